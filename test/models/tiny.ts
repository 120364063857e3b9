import {
  LanguageModel,
  type LanguageModelOptions,
  type NewModelOptions,
} from '../../ts/models/language/index.ts';

/** A Llama-form configuration that runs in milliseconds. */
export const tinyConfig: LanguageModelOptions = {
  vocabularySize: 50,
  dModel: 24,
  layers: 3,
  heads: 4,
  keyValueHeads: 2,
  headDim: 6,
  feedForward: { hidden: 40 },
  maxPositions: 96,
  init: { std: 0.3 },
};

/** The same with LibMoE's form: LayerNorm, partial rotary, biased ReLU layers, biased output. */
export const tinyLibmoe: LanguageModelOptions = {
  ...tinyConfig,
  keyValueHeads: 4,
  norm: 'layernorm',
  rotary: { fraction: 0.5 },
  feedForward: { hidden: 40, activation: 'relu', gated: false, bias: true },
  outputBias: true,
};

export const tinyMoe: LanguageModelOptions = {
  ...tinyConfig,
  moe: { layers: 'every:2', experts: 4, topK: 2, expert: { hidden: 16 } },
};

export const tinyModel = (
  config: LanguageModelOptions = tinyConfig,
  options: NewModelOptions = {},
): LanguageModel => new LanguageModel(config, { seed: 1, ...options });

/** Deterministic token ids. */
export const someIds = (count: number, salt = 0): number[] =>
  Array.from({ length: count }, (_, i) => (i * i * 7 + i * 11 + salt * 13 + 3) % 50);
