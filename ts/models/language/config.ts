import { z } from 'zod';
import { coefficientSchema, createRouter, type Router, type RouterPlace } from '../../moe/index.ts';
import { fail } from '../../native/index.ts';
import { activationNames } from '../../nn/feed-forward.ts';
import { type RotaryScaling, rotaryFrequencies, rotaryScalingSchema } from '../../nn/rotary-scaling.ts';
import { explainIssues } from '../../storage/schema-errors.ts';
import { layerSelectionSchema, resolveLayers } from './layer-selection.ts';

const count = z.number().int().positive();

/** Rotary position embedding on the first `dims` channels of each head (or `fraction` of them, rounded down to even). */
const rotarySchema = z.strictObject({
  dims: count.refine((dims) => dims % 2 === 0, 'must be even').optional(),
  fraction: z.number().gt(0).lte(1).optional(),
  base: z.number().gt(1).default(10000),
  /** Pairs are neighbouring channels instead of one of each half. */
  interleaved: z.boolean().optional(),
  /** Layers that turn; in the others nothing tells positions. Default: all. */
  layers: layerSelectionSchema.optional(),
  scaling: rotaryScalingSchema.optional(),
});

/**
 * Multi-head latent attention: `headDim` is contentDim + rotaryDim, every head has keys of its own, and `rotary` turns `rotaryDim` channels.
 * `attentionBias` stands for biases of what leads into the latents.
 */
const latentAttentionSchema = z.strictObject({
  kind: z.literal('mla'),
  /** Width of the latent of queries; default: none, queries come from the input itself. */
  queryRank: count.optional(),
  /** Width of the latent of keys and values. */
  keyValueRank: count,
  /** Channels of a query and key that do not turn, and that do. */
  contentDim: count,
  rotaryDim: count.refine((dims) => dims % 2 === 0, 'must be even'),
  valueDim: count,
  /** Of the norms of the latents. */
  eps: z.number().positive().default(1e-6),
});

const feedForwardSchema = z.strictObject({
  hidden: count,
  activation: z.enum(activationNames).default('silu'),
  gated: z.boolean().default(true),
  bias: z.boolean().default(false),
});

/** A mixture of experts in chosen layers of a model. */
export const moeSchema = z.strictObject({
  layers: layerSelectionSchema.default('all'),
  experts: count,
  topK: count,
  /** A registered router and its options, its balance losses and their coefficients included. */
  router: z.looseObject({ name: z.string() }).default({ name: 'smoe' }),
  expert: feedForwardSchema,
  /** One block that sees every token, `hidden` wide (several shared experts are one wide one); `sigmoidGate`: times a learned factor per token. */
  shared: z.strictObject({ hidden: count, sigmoidGate: z.boolean().optional() }).optional(),
  sharedMix: z.enum(['sum', 'half']).default('sum'),
  /** What the router's weights multiply: the experts' outputs (default), or their inputs (Llama 4). */
  weighted: z.enum(['outputs', 'inputs']).optional(),
  routedScaling: z.number().positive().default(1),
  capacityFactor: z.number().positive().optional(),
  dropPolicy: z.enum(['position', 'probability', 'random', 'batch-prioritised']).optional(),
  /** Factor of the diversity loss, which keeps the experts of a token from answering alike; default: none. */
  diversityCoefficient: coefficientSchema.optional(),
  /** Which behaviour of the method: as its idea intends, as LibMoE computes it, as its own paper has it. */
  compat: z.enum(['fixed', 'libmoe', 'original']).default('fixed'),
});

/** Everything that defines a decoder-only language model; unknown keys are errors. */
export const languageModelConfigSchema = z.strictObject({
  vocabularySize: count,
  dModel: count,
  layers: count.max(10_000),
  heads: count,
  /** Default: as many as `heads`. Fewer: grouped-query attention. */
  keyValueHeads: count.optional(),
  /** Default: dModel / heads. */
  headDim: count.optional(),
  /** Default: self-attention with keys and values of their own. */
  attention: latentAttentionSchema.optional(),
  norm: z.enum(['layernorm', 'rmsnorm']).default('rmsnorm'),
  eps: z.number().positive().default(1e-5),
  /** `learned`: a vector per position is added to the embedding, and nothing turns. */
  positions: z.enum(['rotary', 'learned']).default('rotary'),
  rotary: rotarySchema.default({ base: 10000 }),
  /** The dense feed-forward layers; may be left out when every layer is a MoE layer. */
  feedForward: feedForwardSchema.optional(),
  /** Biases of the query, key and value projections. */
  attentionBias: z.boolean().default(false),
  /** Bias of the attention's output projection; default: as `attentionBias`. */
  attentionOutputBias: z.boolean().optional(),
  /** A learnt logit per head beside those of the keys, which takes its share of the softmax and gives nothing. */
  attentionSinks: z.boolean().optional(),
  /** Bias of the projection to the vocabulary. */
  outputBias: z.boolean().default(false),
  /** One matrix for the embedding and the projection to the vocabulary. */
  tieEmbeddings: z.boolean().default(false),
  /**
   * RMS norms of queries and keys: of each head by itself (Qwen3), of the whole projection (OLMoE), or of each head after it has turned, without a
   * weight (`turned`, Llama 4).
   */
  qkNorm: z.enum(['head', 'projection', 'turned']).optional(),
  /** Each token sees this many tokens, itself included: in all layers, or listed by layer (null: all of them). */
  window: z.union([count, z.array(count.nullable()).min(1)]).optional(),
  /** In these layers sequences are cut into pieces of `size` tokens, and a token sees its own piece alone (Llama 4). */
  chunk: z.strictObject({ size: count, layers: layerSelectionSchema.default('all') }).optional(),
  /**
   * In layers that do not turn, queries are multiplied by 1 + strength · ln(1 + ⌊(position + 1) / every⌋), against softmax growing flat over long
   * inputs (Nakanishi 2025, arXiv 2501.19399, as Llama 4 has it).
   */
  temperature: z.strictObject({ strength: z.number(), every: count }).optional(),
  maxPositions: count.default(2048),
  moe: moeSchema.optional(),
  /** `libmoe`: LibMoE's own initialisation; otherwise every matrix N(0, std²). */
  init: z.union([z.literal('libmoe'), z.strictObject({ std: z.number().positive() })]).default({ std: 0.02 }),
});

/** What a user writes: defaults may be left out. */
export type LanguageModelOptions = z.input<typeof languageModelConfigSchema>;
type Parsed = z.output<typeof languageModelConfigSchema>;
/** The mixture-of-experts part of a configuration, every default written out. */
export type MoeConfig = z.output<typeof moeSchema>;
/** A dense layer or an expert, every default written out. */
export type FeedForwardConfig = z.output<typeof feedForwardSchema>;

/** A complete configuration: every default written out. */
export type LanguageModelConfig = Omit<
  Parsed,
  'keyValueHeads' | 'headDim' | 'rotary' | 'attentionOutputBias' | 'feedForward'
> & {
  feedForward: FeedForwardConfig;
  keyValueHeads: number;
  headDim: number;
  rotary: { dims: number; base: number; interleaved?: true; layers?: number[]; scaling?: RotaryScaling };
  attentionOutputBias: boolean;
};

const wrong = (message: string): never => fail('ERR_LIBMOE_CONFIG', `language model: ${message}`);

/**
 * Checks a configuration and writes out its defaults. A complete configuration comes back unchanged.
 * @throws ERR_LIBMOE_CONFIG naming every wrong or unknown key, the nearest known key beside it
 */
export function resolveLanguageModelConfig(options: unknown): LanguageModelConfig {
  const parsed = languageModelConfigSchema.safeParse(options);
  if (!parsed.success) return wrong(explainIssues(languageModelConfigSchema, parsed.error.issues, options));
  const given = parsed.data;
  const { heads } = given;
  const keyValueHeads = given.keyValueHeads ?? heads;
  const headDim = headDimOf(given);
  if (heads % keyValueHeads !== 0) {
    wrong(`heads ${heads} must be a multiple of keyValueHeads ${keyValueHeads}`);
  }
  if (given.rotary.dims !== undefined && given.rotary.fraction !== undefined) {
    wrong('rotary takes dims or fraction, not both');
  }
  const dims =
    given.rotary.dims ??
    given.attention?.rotaryDim ??
    2 * Math.floor(Math.floor(headDim * (given.rotary.fraction ?? 1)) / 2);
  if (given.positions === 'rotary') {
    if (dims < 2 || dims > headDim) {
      wrong(`rotary.dims must be between 2 and headDim ${headDim}, got ${dims}`);
    }
    checkScaling(dims, given.rotary.base, given.rotary.scaling);
  } else if (given.rotary.scaling) wrong('rotary.scaling needs positions: "rotary"');
  if (Array.isArray(given.window) && given.window.length !== given.layers) {
    wrong(`window must list ${given.layers} layers, got ${given.window.length}`);
  }
  const turning = resolveLayers(given.rotary.layers ?? 'all', given.layers);
  if (turning.length < given.layers && given.positions !== 'rotary')
    wrong('rotary.layers needs positions: "rotary"');
  if (given.temperature && turning.length === given.layers)
    wrong('temperature acts in layers that do not turn: set rotary.layers');
  if (given.chunk) resolveLayers(given.chunk.layers, given.layers);
  if (given.outputBias && given.tieEmbeddings) {
    wrong('outputBias needs a projection of its own: set tieEmbeddings to false');
  }
  if (given.moe) checkMoe(given.moe, given.layers, 'language model');
  for (const layer of [given.feedForward, given.moe?.expert]) {
    if (layer?.activation === 'clampedSwiglu' && !layer.gated) wrong('clampedSwiglu needs gated: true');
  }
  const everywhere =
    given.moe !== undefined && resolveLayers(given.moe.layers, given.layers).length === given.layers;
  const feedForward =
    given.feedForward ??
    (everywhere ? given.moe?.expert : undefined) ??
    wrong('set feedForward: { hidden, … } for the layers without experts');
  return {
    ...given,
    feedForward,
    keyValueHeads,
    headDim,
    rotary: {
      dims,
      base: given.rotary.base,
      ...(given.rotary.interleaved && { interleaved: true }),
      ...(turning.length < given.layers && { layers: turning }),
      ...(given.rotary.scaling && { scaling: given.rotary.scaling }),
    },
    attentionOutputBias: given.attentionOutputBias ?? given.attentionBias,
  };
}

function headDimOf({ attention, ...given }: Parsed): number {
  const { dModel, heads, keyValueHeads, rotary } = given;
  if (attention === undefined) {
    if (given.headDim === undefined && dModel % heads !== 0)
      wrong(`dModel ${dModel} is not a multiple of heads ${heads}: set headDim`);
    return given.headDim ?? dModel / heads;
  }
  const { contentDim, rotaryDim } = attention;
  const headDim = contentDim + rotaryDim;
  const expected = (name: string, value: unknown, wanted: unknown): void => {
    if (value !== undefined && value !== wanted)
      wrong(`${name} must be ${wanted} beside this attention, got ${value}: leave it out`);
  };
  expected('headDim', given.headDim, headDim);
  expected('keyValueHeads', keyValueHeads, heads);
  expected('rotary.dims', rotary.dims, rotaryDim);
  expected('rotary.fraction', rotary.fraction, undefined);
  expected('qkNorm', given.qkNorm, undefined);
  expected('attentionSinks', given.attentionSinks || undefined, undefined);
  expected('rotary.layers', rotary.layers, undefined);
  expected('chunk', given.chunk, undefined);
  expected('positions', given.positions, 'rotary');
  return headDim;
}

/** Channels of a value, which latent attention may have other than keys. */
export const valueDimOf = ({
  headDim,
  attention,
}: Pick<LanguageModelConfig, 'headDim' | 'attention'>): number => attention?.valueDim ?? headDim;

function checkScaling(dims: number, base: number, scaling: RotaryScaling | undefined): void {
  try {
    rotaryFrequencies(dims, base, scaling);
  } catch (error) {
    wrong(`rotary.scaling: ${(error as Error).message}`);
  }
}

/** Checks what the schema cannot. @param of what `layers` are those of, for messages @throws ERR_LIBMOE_CONFIG */
export function checkMoe(moe: MoeConfig, layers: number, of: string): void {
  const wrong = (message: string): never => fail('ERR_LIBMOE_CONFIG', `${of}: ${message}`);
  if (moe.topK > moe.experts) wrong(`moe.topK ${moe.topK} is more than the ${moe.experts} experts there are`);
  if (moe.sharedMix === 'half' && !moe.shared) wrong('moe.sharedMix "half" needs moe.shared');
  resolveLayers(moe.layers, layers, of);
  const { seeds } = (moe.router.init ?? {}) as { seeds?: unknown };
  if (Array.isArray(seeds) && seeds.length !== layers)
    wrong(`moe.router.init.seeds must list ${layers} layers, got ${seeds.length}`);
  oneRouter(moe, 1, layers).dispose();
}

/** What a router of a layer of this model is made for. */
export function routerPlace(moe: MoeConfig, width: number, layers: number, layer: number): RouterPlace {
  const { experts, topK, compat } = moe;
  return { width, experts, topK, layer, layers, compat, shared: moe.shared !== undefined };
}

/** A router as a layer of this model (default its first) has, for a look at it. @throws ERR_LIBMOE_CONFIG for a name or options that do not exist */
export function oneRouter(moe: MoeConfig, width: number, layers: number, layer = 0): Router {
  const { name, ...options } = moe.router;
  return createRouter(name, options, routerPlace(moe, width, layers, layer));
}

/** The window of each layer; undefined where a token sees all before it. */
export function windowsOf({
  window,
  layers,
}: Pick<LanguageModelConfig, 'window' | 'layers'>): (number | undefined)[] {
  return Array.from({ length: layers }, (_, layer) =>
    Array.isArray(window) ? (window[layer] ?? undefined) : window,
  );
}

/** The size of the pieces that a layer's tokens see, by layer; undefined where they see all before them. */
export function chunksOf({
  chunk,
  layers,
}: Pick<LanguageModelConfig, 'chunk' | 'layers'>): (number | undefined)[] {
  const chosen = chunk === undefined ? [] : resolveLayers(chunk.layers, layers);
  return Array.from({ length: layers }, (_, layer) => (chosen.includes(layer) ? chunk?.size : undefined));
}

/** The indices of the layers that turn. */
export const turningLayersOf = ({
  rotary,
  layers,
}: Pick<LanguageModelConfig, 'rotary' | 'layers'>): number[] => rotary.layers ?? resolveLayers('all', layers);

/** The indices of the MoE layers; none in a dense model. */
export function moeLayersOf(config: Pick<LanguageModelConfig, 'moe' | 'layers'>): number[] {
  return config.moe === undefined ? [] : resolveLayers(config.moe.layers, config.layers);
}
