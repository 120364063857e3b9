/** What every stage on the made-up images has in common. */
export const tinyData = (folder: string, conversations: string, batchSamples = 8) => ({
  train: { conversations, images: folder },
  template: 'phi35',
  system: '',
  context: 64,
  batchSamples,
  workers: 0,
});

/** Tokenizer, tower and language model of a vision-language recipe that learns the made-up images within a hundred steps. */
export const tinyParts = {
  tokenizer: {
    train: {
      vocabularySize: 290,
      byteFallback: true,
      userDefinedSymbols: ['<image>', '<|user|>', '<|assistant|>', '<|end|>'],
    },
  },
  model: {
    language: {
      dModel: 32,
      layers: 2,
      heads: 2,
      feedForward: { hidden: 64, activation: 'silu', gated: true },
      maxPositions: 128,
    },
    vision: { kind: 'siglip', imageSize: 16, patchSize: 8, dModel: 32, layers: 2, heads: 2, hidden: 48 },
    projector: { type: 'mlp2x_gelu' },
  },
};
