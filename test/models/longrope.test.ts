import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';
import { languageAdapter } from '../../ts/evaluation/language-adapter.ts';
import {
  generate,
  KvCache,
  type LanguageModel,
  loadModel,
  packSequences,
} from '../../ts/models/language/index.ts';
import { noGrad, scope } from '../../ts/tensor/index.ts';

// Sequences of up to 16 tokens turn by its short factors, longer ones by its long ones.
const golden = fileURLToPath(new URL('../golden/language/phi3', import.meta.url));
const someIds = (count: number): number[] => Array.from({ length: count }, (_, i) => (i * i * 7 + 3) % 50);
const logitsOf = (model: LanguageModel, sequences: number[][]): number[] =>
  noGrad(() => scope(() => model.logits(model.forward(packSequences(sequences))).toArray()));

describe('a longrope model', () => {
  it('gives a short sequence the same bits alone and beside a long one', async () => {
    using model = await loadModel(golden);
    const beside = logitsOf(model, [someIds(16), someIds(17)]);
    expect(beside).toEqual([...logitsOf(model, [someIds(16)]), ...logitsOf(model, [someIds(17)])]);
    // All tokens of a longer sequence turn otherwise, the shared ones too.
    const width = 16 * model.config.vocabularySize;
    expect(beside.slice(width, 2 * width)).not.toEqual(beside.slice(0, width));
  });

  it('refuses to grow a cached sequence across its original length, and leaves the cache as it was', async () => {
    using model = await loadModel(golden);
    using cache = new KvCache(model.config);
    const sequence = cache.add();
    const step = (ids: number[]): void => {
      model.forward(packSequences([ids]), undefined, cache.at([sequence])).dispose();
    };
    step(someIds(10));
    step([1, 2, 3, 4, 5, 6]);
    expect(model.outgrowsCache(16, 17)).toBe(true);
    expect(() => step([7])).toThrow(/ERR_LIBMOE_UNSUPPORTED.*16 tokens cannot grow to 17: beyond 16 tokens/);
    expect(cache.length(sequence)).toBe(16);
  });

  it('generates across its original length what it says without a cache', async () => {
    using model = await loadModel(golden);
    const ids = someIds(12);
    const made: number[] = [];
    for await (const { token } of generate(model, ids, { maxTokens: 9 })) made.push(token);
    for (const token of made) {
      const last = logitsOf(model, [ids]).slice(-model.config.vocabularySize);
      expect(token).toBe(last.indexOf(Math.max(...last)));
      ids.push(token);
    }
    expect(ids).toHaveLength(21);
  });

  it('scores choices alike whether or not they may share the forward pass of their context', async () => {
    using model = await loadModel(golden);
    const tokenizer = { name: 'none', encode: () => [], addsBos: false };
    const requests = [2, 3, 4, 6, 9].map((length) => ({
      kind: 'loglikelihood' as const,
      context: someIds(13),
      continuation: Array.from({ length }, (_, i) => 5 * i + length),
    }));
    const scores = async (sharePrefixes: boolean): Promise<unknown[]> => {
      const found: unknown[] = [];
      await languageAdapter(model, { tokenizer, sharePrefixes }).loglikelihood(requests, (i, score) => {
        found[i] = score;
      });
      return found;
    };
    const apart = await scores(false);
    expect(apart).toHaveLength(5);
    expect(await scores(true)).toEqual(apart);
  });
});
