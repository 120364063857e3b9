import { describe, expect, it } from 'vitest';
import { KvCache, type LanguageModel, lastLogits, packSequences } from '../../ts/models/language/index.ts';
import { codeOf } from '../../ts/native/index.ts';
import { memory, noGrad, scope } from '../../ts/tensor/index.ts';
import { someIds, tinyModel } from './tiny.ts';

const whole = (model: LanguageModel, ids: number[]): number[] =>
  noGrad(() => scope(() => model.logits(model.forward(packSequences([ids]))).toArray())).slice(
    -model.config.vocabularySize,
  );

describe('KvCache', () => {
  it('forks share their past, and writing to one leaves the other as it was', () => {
    using model = tinyModel();
    using cache = new KvCache(model.config, { blockSize: 4, blocks: 32 });
    const prefix = someIds(10);
    const parent = cache.add();
    lastLogits(model, prefix, cache, parent);
    expect(cache.usage()).toEqual({ used: 3, blocks: 32, sequences: 1 });
    const children = [1, 2, 3].map(() => cache.fork(parent));
    expect(cache.usage().used).toBe(3);
    const tails = [someIds(5, 1), someIds(2, 2), someIds(9, 3)];
    const got = children.map((child, i) => Array.from(lastLogits(model, tails[i]!, cache, child)));
    got.forEach((row, i) => {
      expect(row).toEqual(whole(model, [...prefix, ...tails[i]!]));
    });
    // two full shared blocks, the parent's partly filled one, and each child's own: ceil((10 + n)/4) - 2
    expect(cache.usage().used).toBe(3 + 2 + 1 + 3);
    expect(Array.from(lastLogits(model, [7], cache, parent))).toEqual(whole(model, [...prefix, 7]));
    for (const child of children) cache.free(child);
    expect(cache.usage()).toEqual({ used: 3, blocks: 32, sequences: 1 });
    cache.free(parent);
    expect(cache.usage().used).toBe(0);
  });

  it('truncates and continues as if the rest had never been', () => {
    using model = tinyModel();
    using cache = new KvCache(model.config, { blockSize: 4 });
    const ids = someIds(13);
    const sequence = cache.add();
    lastLogits(model, ids, cache, sequence);
    const fork = cache.fork(sequence);
    cache.truncate(sequence, 6);
    expect(cache.length(sequence)).toBe(6);
    expect(Array.from(lastLogits(model, [9, 8, 7], cache, sequence))).toEqual(
      whole(model, [...ids.slice(0, 6), 9, 8, 7]),
    );
    // the fork still has what was cut
    expect(Array.from(lastLogits(model, [5], cache, fork))).toEqual(whole(model, [...ids, 5]));
  });

  it('grows, up to its limit, and a step that finds no room changes nothing', () => {
    using model = tinyModel();
    using cache = new KvCache(model.config, { blockSize: 4, blocks: 1, maxBlocks: 4 });
    const sequence = cache.add();
    const ids = someIds(12);
    expect(Array.from(lastLogits(model, ids, cache, sequence))).toEqual(whole(model, ids));
    expect(cache.usage()).toEqual({ used: 3, blocks: 4, sequences: 1 });
    let code: unknown;
    try {
      lastLogits(model, someIds(5), cache, sequence);
    } catch (error) {
      code = codeOf(error);
    }
    expect(code).toBe('ERR_LIBMOE_OUT_OF_MEMORY');
    expect(cache.length(sequence)).toBe(12);
    expect(Array.from(lastLogits(model, [1], cache, sequence))).toEqual(whole(model, [...ids, 1]));
  });

  it('a forward pass that fails leaves no room behind that a fork would share', () => {
    using model = tinyModel();
    using cache = new KvCache(model.config, { blockSize: 4, blocks: 32 });
    const prefix = someIds(4);
    const parent = cache.add();
    lastLogits(model, prefix, cache, parent);
    const tooLong = someIds(model.config.maxPositions - 3);
    expect(() => lastLogits(model, tooLong, cache, parent)).toThrow(/ERR_LIBMOE_ARGUMENT.*maxPositions/);
    expect(cache.usage().used).toBe(1);
    const fork = cache.fork(parent);
    lastLogits(model, [1], cache, parent);
    lastLogits(model, [2], cache, fork);
    expect(Array.from(lastLogits(model, [3], cache, parent))).toEqual(whole(model, [...prefix, 1, 3]));
    expect(Array.from(lastLogits(model, [3], cache, fork))).toEqual(whole(model, [...prefix, 2, 3]));
    // nor does a fork share the room of a step that is still going on
    scope(() => {
      const step = cache.begin([parent], [9]);
      const other = cache.fork(parent);
      expect(cache.usage().used).toBe(5);
      cache.free(other);
      step.abandon();
    });
    expect(cache.usage().used).toBe(3);
  });

  it('rejects bad use', () => {
    using model = tinyModel();
    const before = memory().tensors;
    const cache = new KvCache(model.config);
    const sequence = cache.add();
    expect(() => cache.truncate(sequence, 1)).toThrow(
      /ERR_LIBMOE_ARGUMENT.*cannot cut a sequence of 0 tokens to 1/,
    );
    expect(() => cache.length(99)).toThrow(/no sequence 99/);
    expect(() => cache.at([sequence, sequence])).toThrow(/named twice/);
    expect(() => model.forward(packSequences([[1], [2]]), undefined, cache.at([sequence]))).toThrow(
      /2 sequences, the cache was given 1/,
    );
    expect(() => new KvCache(model.config, { blockSize: 0 })).toThrow(/blockSize must be a positive integer/);
    cache.dispose();
    expect(() => cache.add()).toThrow(/ERR_LIBMOE_DISPOSED/);
    expect(memory().tensors).toBe(before);
  });
});
