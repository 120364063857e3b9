import { z } from 'zod';
import { resolveLayers } from '../models/language/index.ts';
import type { RoutedModel } from '../models/language/initial-values.ts';
import {
  depthOf,
  type VisionTower,
  type VisionTowerConfig,
  visionMoeLayersOf,
} from '../models/vision/index.ts';
import {
  configOf,
  newVisionLanguageModel,
  type ProjectorConfig,
  resolveVisionLanguageConfig,
  type VisionLanguageConfig,
  type VisionLanguageModel,
} from '../models/vision-language/index.ts';
import { type Experts, MoeLayer, routerDefinition } from '../moe/index.ts';
import { fail } from '../native/index.ts';
import { blockNameOf, copyWeights, drawRouters, type UpcycleReport } from './copies.ts';
import { addExpertNoise, type NoiseReport } from './expert-noise.ts';
import {
  type CheckedUpcycleOptions,
  checkedOptions,
  upcycledConfig,
  upcycledMoe,
  upcycleOptionsSchema,
} from './options.ts';
import { whyUnlikeDense } from './unlike-dense.ts';

/** The parts of a vision-language model, in their order. */
export const upcycledParts = ['vision', 'projector', 'language'] as const;
/** One of {@link upcycledParts}. */
export type UpcycledPart = (typeof upcycledParts)[number];

/** Options of {@link upcycleVisionLanguageWithReport}: those of a language model, for every part that is upcycled; unknown keys are errors. */
export const vlmUpcycleOptionsSchema = upcycleOptionsSchema.extend({
  /** Which parts become mixtures of experts; default tower and projector, as in LibMoE. `layers` says nothing of the projector. */
  parts: z.array(z.enum(upcycledParts)).min(1).optional(),
});
/** What a user writes: defaults may be left out. */
export type VisionLanguageUpcycleOptions = z.input<typeof vlmUpcycleOptionsSchema>;

/** What {@link upcycleVisionLanguageWithReport} did; names are those of the whole model. */
export interface VisionLanguageUpcycleReport extends Omit<UpcycleReport, 'layers' | 'expertNoise'> {
  parts: UpcycledPart[];
  /** Indices of the layers that became MoE layers, by part. */
  layers: Partial<Record<UpcycledPart, number[]>>;
  expertNoise?: Partial<Record<UpcycledPart, NoiseReport>>;
  /** What was done otherwise than asked, and why. */
  notes: string[];
}

const wrong = (message: string): never => fail('ERR_LIBMOE_CONFIG', `upcycling: ${message}`);

function checkedParts(parts: readonly UpcycledPart[] = ['vision', 'projector']): UpcycledPart[] {
  const parsed = z.array(z.enum(upcycledParts)).min(1).safeParse(parts);
  if (!parsed.success || new Set(parts).size !== parts.length)
    wrong(`parts must name some of ${upcycledParts.join(', ')}, each once, got [${parts.join(', ')}]`);
  return upcycledParts.filter((part) => parts.includes(part));
}

/** A router that copies its input or mixes it with a constant cannot do so where a layer gives another width: there it is its plain relative, as in LibMoE. */
function projectorRouter(
  router: CheckedUpcycleOptions['router'],
  { equal, notes }: { equal: boolean; notes: string[] },
): CheckedUpcycleOptions['router'] {
  const { name, ...options } = typeof router === 'string' ? { name: router } : router;
  if (name !== 'moe++' || equal) return router;
  const known = routerDefinition('smoe').options;
  const shape = known instanceof z.ZodObject ? known.shape : {};
  notes.push(
    'projector: router smoe, since copy and constant experts of moe++ give the width of their input',
  );
  return { name: 'smoe', ...Object.fromEntries(Object.entries(options).filter(([key]) => key in shape)) };
}

function upcycledProjector(
  dense: ProjectorConfig,
  given: CheckedUpcycleOptions,
  widths: { equal: boolean; notes: string[]; dModel: number },
): ProjectorConfig {
  if (dense.moe) wrong('the projector already is a mixture of experts');
  if (dense.type !== 'mlp2x_gelu')
    wrong(
      `the projector is "${dense.type}", and experts have the form of mlp2x_gelu: choose other parts, or train such a projector`,
    );
  const { activation, bias } = dense;
  const router = projectorRouter(given.router, widths);
  const form = { hidden: widths.dModel, activation, gated: false, bias };
  const { layers: _, expert: __, shared, ...moe } = upcycledMoe({ ...given, router, layers: 'all' }, form, 1);
  return { ...dense, type: 'moe', moe: { ...moe, ...(shared && { shared: true }) } };
}

function upcycledTower(dense: VisionTowerConfig, given: CheckedUpcycleOptions): VisionTowerConfig {
  if (dense.moe) wrong('the tower already has MoE layers');
  const { hidden, activation } = dense;
  const moe = upcycledMoe(given, { hidden, activation, gated: false, bias: true }, depthOf(dense));
  return { ...dense, moe };
}

/** The configuration of the upcycled model, and what of it differs from what was asked. @throws ERR_LIBMOE_CONFIG where dense weights would be lost */
export function upcycledVisionLanguageConfig(
  dense: VisionLanguageConfig & { featureWidth: number },
  { parts, ...options }: VisionLanguageUpcycleOptions,
): { config: VisionLanguageConfig; notes: string[] } {
  const given = checkedOptions(options);
  const chosen = checkedParts(parts);
  const router = typeof given.router === 'string' ? given.router : given.router.name;
  if (routerDefinition(router).byTokenId && chosen.some((part) => part !== 'language'))
    wrong(
      `router "${router}" goes by the ids of tokens, which images have not: choose another, or parts: ["language"]`,
    );
  const notes: string[] = [];
  const { vision, projector, language, imageTokenId, compat, featureWidth } = dense;
  const { dModel } = language;
  const equal = featureWidth * projector.pixelShuffle ** 2 === dModel;
  const config = resolveVisionLanguageConfig({
    vision: chosen.includes('vision') ? upcycledTower(vision, given) : vision,
    projector: chosen.includes('projector')
      ? upcycledProjector(projector, given, { equal, notes, dModel })
      : projector,
    language: chosen.includes('language') ? upcycledConfig(language, options) : language,
    imageTokenId,
    compat,
  });
  return { config, notes };
}

const denseLayers: Record<string, string> = {
  up: 'layers.0.weight',
  upBias: 'layers.0.bias',
  down: 'layers.1.weight',
  downBias: 'layers.1.bias',
};

/** The dense name of a parameter of the whole new model. */
const denseNames =
  (parts: readonly UpcycledPart[]) =>
  (name: string): string | undefined => {
    const [, part, rest = ''] = /^(\w+)\.(.+)$/.exec(name) ?? [];
    if (!parts.some((known) => known === part)) return name;
    if (part !== 'projector') {
      const dense = blockNameOf(rest);
      return dense && `${part}.${dense}`;
    }
    if (!rest.startsWith('moe.')) return name;
    const [, field = ''] = /^moe\.(?:experts|shared)\.(\w+)$/.exec(rest) ?? [];
    return field in denseLayers ? `projector.${denseLayers[field]}` : undefined;
  };

/** The MoE layers of the parts, by name in the model. */
function* mixtures(model: VisionLanguageModel, part: UpcycledPart): Generator<[string, MoeLayer]> {
  for (const [name, module] of model[part].namedModules())
    if (module instanceof MoeLayer) yield [`${part}.${name}`, module];
}

/**
 * Makes mixtures of experts of tower and projector (and, if asked, language model) of a dense vision-language model, as LibMoE's third stage begins
 * (arXiv 2411.00918): every feed-forward layer of the tower and the two linear layers of the projector are copied into every expert, everything else is
 * taken over, and only routers are new, N(0, initStd²) from the seed and their name. With weights that sum to 1 the new model computes what the
 * dense one does; the report says where it does not. The dense model stays as it is.
 * @throws ERR_LIBMOE_CONFIG for parts that are mixtures already or cannot become one, and options under which dense weights would be lost
 */
export function upcycleVisionLanguageWithReport(
  dense: VisionLanguageModel<VisionTower>,
  options: VisionLanguageUpcycleOptions,
): { model: VisionLanguageModel<VisionTower>; report: VisionLanguageUpcycleReport } {
  const { parts: asked, ...rest } = options;
  const parts = checkedParts(asked);
  const given = checkedOptions(rest);
  const { seed, only, fromScratch } = given;
  const before = { ...configOf(dense), featureWidth: dense.vision.featureWidth };
  const { config, notes } = upcycledVisionLanguageConfig(before, options);
  const { dtype, device } = dense.language;
  const model = newVisionLanguageModel(config, { seed: only || fromScratch ? seed : 'later', dtype, device });
  // The tokenizer stays the same.
  for (const [to, from] of [
    [model, dense],
    [model.language, dense.language],
  ] as const)
    if (from.checkpoint !== undefined) to.checkpoint = from.checkpoint;
  if (dense.language.family !== undefined) model.language.family = dense.language.family;
  if (dense.language.specialTokens !== undefined) model.language.specialTokens = dense.language.specialTokens;
  const layers = {
    vision: visionMoeLayersOf(config.vision),
    projector: [0],
    language: config.language.moe ? resolveLayers(config.language.moe.layers, config.language.layers) : [],
  };
  const report: VisionLanguageUpcycleReport = {
    parts,
    layers: Object.fromEntries(parts.map((part) => [part, layers[part]])),
    copied: [],
    replicated: [],
    initialised: [],
    leftOut: [],
    unlikeDense: parts.flatMap((part) => whyUnlikeDense(config[part], given).map((why) => `${part}: ${why}`)),
    notes,
    parameters: { before: dense.parameterCount(), after: model.parameterCount() },
  };
  const names = denseNames(parts);
  try {
    copyWeights(dense, model, names, given, report);
    for (const part of parts) {
      const routed = part === 'projector' ? asBlock(model) : (model[part] as RoutedModel);
      const pathOf = part === 'projector' ? (name: string) => `blocks.0.${name}` : undefined;
      drawRouters(model, { routed, prefix: `${part}.`, ...(pathOf && { pathOf }) }, names, given, report);
      if (!given.expertNoise) continue;
      for (const [name, { experts }] of mixtures(model, part)) {
        const done = addExpertNoise(experts as Experts, given.expertNoise, { seed, name: `${name}.experts` });
        report.expertNoise = { ...report.expertNoise, [part]: done };
      }
    }
  } catch (error) {
    model.dispose();
    throw error;
  }
  return { model, report };
}

/** The projector as a model of one block. */
const asBlock = ({ projector: { config, moe } }: VisionLanguageModel): RoutedModel => ({
  config: { layers: 1, moe: config.moe },
  blocks: moe ? [{ moe }] : [],
});
