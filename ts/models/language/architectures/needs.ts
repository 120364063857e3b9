import { type LanguageModelConfig, type MoeConfig, moeLayersOf, windowsOf } from '../config.ts';

/** A need of a family, whether a model meets it, and otherwise what of the model the family lacks, in words that follow "a model with". */
export type FamilyNeed = readonly [met: boolean, lacking: string];

/** What of a model a family with these needs lacks; empty when it has all of it. */
export const lacking = (needs: readonly FamilyNeed[]): string[] =>
  needs.flatMap(([met, words]) => (met ? [] : [words]));

/** The window of all layers, null when none has one; undefined when they differ. */
export function commonWindow(config: LanguageModelConfig): number | null | undefined {
  const windows = windowsOf(config);
  return windows.every((window) => window === windows[0]) ? (windows[0] ?? null) : undefined;
}

/** The sizes of windows that there are. */
export const windowSizes = (config: LanguageModelConfig): number[] => [
  ...new Set(windowsOf(config).filter((window) => window !== undefined)),
];

export const noWindow = (config: LanguageModelConfig): FamilyNeed => [
  commonWindow(config) === null,
  'windows of attention',
];
export const oneWindow = (config: LanguageModelConfig): FamilyNeed => [
  commonWindow(config) !== undefined,
  'different windows in different layers',
];
export const oneWindowSize = (config: LanguageModelConfig): FamilyNeed => [
  windowSizes(config).length <= 1,
  'windows of several sizes',
];

export const noAttentionBias = ({ attentionBias, attentionOutputBias }: LanguageModelConfig): FamilyNeed => [
  !attentionBias && !attentionOutputBias,
  'biases of attention',
];
export const oneAttentionBias = ({ attentionBias, attentionOutputBias }: LanguageModelConfig): FamilyNeed => [
  attentionBias === attentionOutputBias,
  'biases of some projections of attention alone',
];
export const noAttentionOutputBias = ({ attentionOutputBias }: LanguageModelConfig): FamilyNeed => [
  !attentionOutputBias,
  "a bias of attention's output projection",
];

/** @param known norms of queries and keys that the family has; undefined: it may do without */
export const queryKeyNorm = (
  { qkNorm }: LanguageModelConfig,
  ...known: LanguageModelConfig['qkNorm'][]
): FamilyNeed => [
  known.includes(qkNorm),
  qkNorm === undefined ? 'queries and keys without norms' : `norms of queries and keys (qkNorm "${qkNorm}")`,
];

export const noSinks = ({ attentionSinks }: LanguageModelConfig): FamilyNeed => [
  !attentionSinks,
  'attention sinks',
];
export const noChunk = ({ chunk }: LanguageModelConfig): FamilyNeed => [
  chunk === undefined,
  'attention within pieces (chunk)',
];
export const noOutputBias = ({ outputBias }: LanguageModelConfig): FamilyNeed => [
  !outputBias,
  'a bias of the projection to the vocabulary',
];
export const turnsNeighbours = ({ rotary }: LanguageModelConfig): FamilyNeed => [
  rotary.interleaved === true,
  'rotary embedding of channels of both halves',
];
export const headsFillWidth = ({ heads, headDim, dModel }: LanguageModelConfig): FamilyNeed => [
  heads * headDim === dModel,
  'a headDim other than dModel / heads',
];

const hasDenseLayers = (config: LanguageModelConfig): boolean => moeLayersOf(config).length < config.layers;

export const gatedFeedForward = (config: LanguageModelConfig): FamilyNeed => [
  config.feedForward.gated || !hasDenseLayers(config),
  'dense layers without gate',
];
export const noFeedForwardBias = (config: LanguageModelConfig): FamilyNeed => [
  !config.feedForward.bias || !hasDenseLayers(config),
  'dense layers with biases',
];

/** What a family without experts lacks of a model that has them: more than any number of other things. */
export const mixture = 'experts';

export const noMixture = ({ moe }: LanguageModelConfig): FamilyNeed => [moe === undefined, mixture];

/** What a family needs of a mixture, which it needs. */
export const needsMixture = (
  { moe }: LanguageModelConfig,
  needs: (moe: MoeConfig) => readonly FamilyNeed[],
): readonly FamilyNeed[] => (moe === undefined ? [[false, 'dense layers alone']] : needs(moe));

/** The form of Llama outside feed-forward layers, but for biases, norms of queries and keys, and windows. */
export function llamaForm(
  config: LanguageModelConfig,
  allowed: { partialRotary?: boolean; sinks?: boolean } = {},
): FamilyNeed[] {
  const { rotary } = config;
  return [
    [config.norm === 'rmsnorm', 'LayerNorm'],
    [config.positions === 'rotary', 'learned positions'],
    [config.attention === undefined, 'latent attention'],
    [rotary.interleaved === undefined, 'rotary embedding of neighbouring channels'],
    [rotary.layers === undefined, 'layers without rotary embedding'],
    noChunk(config),
    [
      allowed.partialRotary === true || rotary.dims === config.headDim,
      'rotary embedding of a part of each head',
    ],
    noOutputBias(config),
    ...(allowed.sinks === true ? [] : [noSinks(config)]),
  ];
}
