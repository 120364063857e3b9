import { LanguageModel } from '../../ts/models/language/model.ts';

/** A token per byte, BOS and EOS: what the small models know. */
export const smallVocabulary = 258;

/** Two layers whose answers are far from uniform, so that mistakes show; `mixture` has four experts in each. Whoever makes one disposes of it. */
export function smallModel(kind: 'dense' | 'mixture', maxPositions: number): LanguageModel {
  const shape = {
    vocabularySize: smallVocabulary,
    dModel: 32,
    layers: 2,
    heads: 4,
    keyValueHeads: 2,
    maxPositions,
    feedForward: { hidden: 48 },
    init: { std: 0.3 },
  };
  return kind === 'dense'
    ? new LanguageModel(shape, { seed: 3 })
    : new LanguageModel(
        { ...shape, moe: { experts: 4, topK: 2, layers: 'all', expert: { hidden: 24 } } },
        { seed: 4 },
      );
}
