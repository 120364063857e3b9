import { describe, expect, it } from 'vitest';
import { KvCache, type LanguageModel, packSequences } from '../../ts/models/language/index.ts';
import { noGrad, scope, setThreads, threads } from '../../ts/tensor/index.ts';
import { someIds, tinyConfig, tinyLibmoe, tinyModel, tinyMoe } from './tiny.ts';

/** Logits of every token of every sequence, run together. */
const logitsOf = (model: LanguageModel, sequences: readonly number[][]): number[][] =>
  noGrad(() =>
    scope(() => {
      const all = model.logits(model.forward(packSequences(sequences))).toArray();
      const rows: number[][] = [];
      let at = 0;
      for (const sequence of sequences) {
        const size = sequence.length * model.config.vocabularySize;
        rows.push(all.slice(at, at + size));
        at += size;
      }
      return rows;
    }),
  );

const cachedLogits = (
  model: LanguageModel,
  cache: KvCache,
  sequences: number[],
  parts: readonly number[][],
): number[] =>
  noGrad(() =>
    scope(() => model.logits(model.forward(packSequences(parts), undefined, cache.at(sequences))).toArray()),
  );

const configs = {
  llama: tinyConfig,
  libmoe: tinyLibmoe,
  window: { ...tinyConfig, window: 5 },
  moe: tinyMoe,
};

describe.each(Object.entries(configs))('bits of %s', (_, config) => {
  for (const dtype of ['f32', 'bf16'] as const) {
    it(`a sequence has the same logits alone, in a batch, and at 1 and 2 threads (${dtype})`, () => {
      using model = tinyModel(config, { dtype }).eval();
      const sequences = [someIds(37), someIds(1, 1), someIds(70, 2), someIds(8, 3)];
      const before = threads();
      try {
        setThreads(2);
        const together = logitsOf(model, sequences);
        const alone = sequences.map((sequence) => logitsOf(model, [sequence])[0]);
        expect(together).toEqual(alone);
        setThreads(1);
        expect(logitsOf(model, sequences)).toEqual(together);
      } finally {
        setThreads(before);
      }
    });

    it(`cached and uncached logits are equal bit for bit (${dtype})`, () => {
      using model = tinyModel(config, { dtype }).eval();
      const [first, second] = [someIds(45), someIds(23, 1)];
      const [wholeFirst, wholeSecond] = logitsOf(model, [first, second]) as [number[], number[]];
      using cache = new KvCache(model.config, { dtype, blockSize: 8, blocks: 2 });
      const [a, b] = [cache.add(), cache.add()];
      const got: [number[], number[]] = [[], []];
      const vocabulary = model.config.vocabularySize;
      // a in pieces of 20, 1, 24; b alone in pieces of 3 and 20, the last pieces of both together
      got[0].push(...cachedLogits(model, cache, [a], [first.slice(0, 20)]));
      got[1].push(...cachedLogits(model, cache, [b], [second.slice(0, 3)]));
      got[0].push(...cachedLogits(model, cache, [a], [first.slice(20, 21)]));
      const both = cachedLogits(model, cache, [b, a], [second.slice(3), first.slice(21)]);
      got[1].push(...both.slice(0, 20 * vocabulary));
      got[0].push(...both.slice(20 * vocabulary));
      expect(got[0]).toEqual(wholeFirst);
      expect(got[1]).toEqual(wholeSecond);
      expect([cache.length(a), cache.length(b)]).toEqual([45, 23]);
    });
  }
});
