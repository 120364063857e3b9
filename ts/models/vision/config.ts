import { z } from 'zod';
import { routerDefinition } from '../../moe/index.ts';
import { fail } from '../../native/index.ts';
import { type ActivationName, activationNames } from '../../nn/feed-forward.ts';
import { explainIssues } from '../../storage/schema-errors.ts';
import { checkMoe, type MoeConfig, moeSchema } from '../language/config.ts';
import { resolveLayers } from '../language/layer-selection.ts';

const count = z.number().int().positive();

const activations = ['quickGelu', 'geluTanh', 'gelu', 'relu', 'silu'] as const satisfies ActivationName[];
/** The activations of a tower's feed-forward layers. */
export type TowerActivation = 'quickGelu' | 'geluTanh' | 'gelu' | 'relu' | 'silu';

const expertSchema = z.strictObject({
  hidden: count.optional(),
  activation: z.enum(activationNames).optional(),
  gated: z.boolean().optional(),
  bias: z.boolean().optional(),
});

/** Everything that defines a vision tower; unknown keys are errors. */
export const visionTowerConfigSchema = z.strictObject({
  /** `clip`: class token, a norm before the layers, no bias of the patches; `siglip`: none of the two, and the bias. */
  kind: z.enum(['clip', 'siglip']),
  /** Side of the images that the learned positions are for. */
  imageSize: count,
  patchSize: count,
  /** Side of the images that it is given; default `imageSize`. Another one: positions are interpolated (bicubic). */
  resolution: count.optional(),
  dModel: count,
  layers: count.max(10_000),
  heads: count,
  /** Width of the dense feed-forward layers. */
  hidden: count,
  /** Default: quickGelu (clip), geluTanh (siglip). */
  activation: z.enum(activations).optional(),
  /** Of the norms; default 1e-5 (clip), 1e-6 (siglip). */
  eps: z.number().positive().optional(),
  /**
   * Which hidden state the features are: 0 what enters the first layer, 1 what the first layer gives, …; negative from the end, −1 the last, −2 the
   * last but one. Later layers are neither computed nor kept.
   */
  selectLayer: z.number().int().default(-1),
  /** `full`: with the class token, which comes first. */
  selectFeature: z.enum(['patch', 'full']).default('patch'),
  /** Each image is seen whole at 1, at s as s × s tiles of its enlargement; features side by side in this order (S², Shi et al., arXiv 2403.13043). */
  scales: z.array(count.max(16)).min(1).default([1]),
  /** What makes one vector of an image for `pooled`: SigLIP's attention head, the class token, the mean of the patches; default: nothing does. */
  pool: z.enum(['attention', 'class', 'mean']).optional(),
  /** Experts in place of feed-forward layers; `expert` is one of those unless told otherwise. */
  moe: moeSchema.extend({ expert: expertSchema.prefault({}) }).optional(),
  /** `libmoe`: all layers are computed and the features are the last but one hidden state, whatever `selectLayer` says. */
  compat: z.enum(['fixed', 'libmoe']).default('fixed'),
});

/** What a user writes: defaults may be left out. */
export type VisionTowerOptions = z.input<typeof visionTowerConfigSchema>;
type Parsed = z.output<typeof visionTowerConfigSchema>;

/** A complete configuration: every default written out. */
export type VisionTowerConfig = Omit<Parsed, 'activation' | 'eps' | 'resolution' | 'moe'> & {
  activation: TowerActivation;
  eps: number;
  resolution: number;
  moe?: MoeConfig | undefined;
};

const wrong = (message: string): never => fail('ERR_LIBMOE_CONFIG', `vision tower: ${message}`);

/**
 * Checks a configuration and writes out its defaults. A complete configuration comes back unchanged.
 * @throws ERR_LIBMOE_CONFIG naming every wrong or unknown key, the nearest known key beside it
 */
export function resolveVisionTowerConfig(options: unknown): VisionTowerConfig {
  const parsed = visionTowerConfigSchema.safeParse(options);
  if (!parsed.success) return wrong(explainIssues(visionTowerConfigSchema, parsed.error.issues, options));
  const given = parsed.data;
  const { kind, dModel, heads, imageSize, patchSize, resolution = imageSize, scales, pool } = given;
  if (dModel % heads !== 0) wrong(`dModel ${dModel} must be a multiple of heads ${heads}`);
  for (const [name, side] of Object.entries({ imageSize, resolution }))
    if (side < patchSize) wrong(`${name} ${side} is less than one patch of ${patchSize}`);
  const last = given.layers;
  const { selectLayer } = given;
  if (selectLayer > last || selectLayer < -last - 1)
    wrong(`selectLayer must lie in ${-last - 1}…${last} with ${last} layers, got ${selectLayer}`);
  if (new Set(scales).size !== scales.length) wrong(`scales are named twice in [${scales.join(', ')}]`);
  if (given.selectFeature === 'full' && kind === 'clip' && scales.some((scale) => scale > 1))
    wrong('several tiles have no class token in common: selectFeature "full" needs scales [1]');
  const complete = {
    ...given,
    activation: given.activation ?? (kind === 'clip' ? 'quickGelu' : 'geluTanh'),
    eps: given.eps ?? (kind === 'clip' ? 1e-5 : 1e-6),
    resolution,
    moe: undefined,
  } as const satisfies VisionTowerConfig;
  if (pool === 'class' && kind !== 'clip')
    wrong('pool "class" needs a class token, which kind "siglip" has not');
  if (pool !== undefined && (scales.join() !== '1' || featureLayerOf(complete) !== last))
    wrong(
      `pool "${pool}" needs all layers and the image alone: set selectLayer -1, scales [1], compat "fixed"`,
    );
  const { moe: _, ...dense } = complete;
  return given.moe === undefined ? dense : { ...dense, moe: completeMoe(given.moe, complete) };
}

function completeMoe(given: NonNullable<Parsed['moe']>, config: VisionTowerConfig): MoeConfig {
  const { hidden, activation } = config;
  const {
    hidden: own = hidden,
    activation: ownActivation = activation,
    gated = false,
    bias = true,
  } = given.expert;
  const expert = { hidden: own, activation: ownActivation, gated, bias };
  const moe: MoeConfig = { ...given, expert, router: withFlavour(given.router) };
  const depth = depthOf(config);
  const selected = resolveLayers(moe.layers, config.layers, 'vision tower');
  const unused = Array.isArray(moe.layers) ? selected.find((layer) => layer >= depth) : undefined;
  if (unused !== undefined)
    wrong(`moe.layers names layer ${unused}, whose output nothing uses (selectLayer ${config.selectLayer})`);
  checkMoe({ ...moe, layers: 'all' }, config.layers, 'vision tower');
  if (!selected.some((layer) => layer < depth))
    wrong(`moe.layers ${JSON.stringify(moe.layers)} selects none of the ${depth} layers that are used`);
  return moe;
}

/** A router that knows LibMoE's two flavours has that of vision-language layers here. */
export function withFlavour(router: MoeConfig['router']): MoeConfig['router'] {
  const { options } = routerDefinition(router.name);
  const flavoured = options instanceof z.ZodObject && 'flavour' in options.shape;
  return flavoured ? { flavour: 'vision-language', ...router } : router;
}

/** What says which layers are used. */
export type TowerLayers = Pick<VisionTowerConfig, 'layers' | 'selectLayer' | 'compat'>;

/** Index of the hidden state that the features are, from 0. */
export function featureLayerOf({ layers, selectLayer, compat }: TowerLayers): number {
  if (compat === 'libmoe') return layers - 1;
  return selectLayer < 0 ? layers + 1 + selectLayer : selectLayer;
}

/** How many layers are computed, and kept. */
export const depthOf = (config: TowerLayers): number =>
  config.compat === 'libmoe' ? config.layers : featureLayerOf(config);

/** The indices of the MoE layers among those computed. */
export function visionMoeLayersOf(config: VisionTowerConfig): number[] {
  if (config.moe === undefined) return [];
  const depth = depthOf(config);
  return resolveLayers(config.moe.layers, config.layers, 'vision tower').filter((layer) => layer < depth);
}

/** Patches along a side of an image of this size. */
export const gridOf = ({ patchSize }: Pick<VisionTowerConfig, 'patchSize'>, side: number): number =>
  Math.floor(side / patchSize);

/** Rows of features that an image becomes. */
export function tokensPerImageOf(config: VisionTowerConfig): number {
  const classToken = config.kind === 'clip' && config.selectFeature === 'full' ? 1 : 0;
  return gridOf(config, config.resolution) ** 2 + classToken;
}
