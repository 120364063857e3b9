import { describe, expect, it } from 'vitest';
import {
  generate,
  KvCache,
  LanguageModel,
  type LanguageModelOptions,
  lastLogits,
  packSequences,
  parameterReport,
  resolveLanguageModelConfig,
} from '../../ts/models/language/index.ts';
import { piecesOf } from '../../ts/models/language/packed-batch.ts';
import { ForwardContext } from '../../ts/moe/index.ts';
import { noGrad, scope } from '../../ts/tensor/index.ts';
import { slope } from '../moe/golden-logits.ts';
import { someIds, tinyConfig } from './tiny.ts';

/** Llama 4's attention: layers 0 and 2 turn and see pieces of 6 tokens, layer 1 has no positions and sees everything. */
const pieced: LanguageModelOptions = {
  ...tinyConfig,
  rotary: { interleaved: true, layers: [0, 2] },
  qkNorm: 'turned',
  chunk: { size: 6, layers: [0, 2] },
  temperature: { strength: 0.5, every: 4 },
};
const logitsOf = (model: LanguageModel, sequences: number[][]): number[] =>
  noGrad(() => scope(() => model.logits(model.forward(packSequences(sequences))).toArray()));

describe('pieces of sequences', () => {
  it('are cut at multiples of their size, those that went before counted', () => {
    const offsets = Int32Array.from([0, 7, 9]);
    expect(Array.from(piecesOf(offsets, 3).offsets)).toEqual([0, 3, 6, 7, 9]);
    const { pieces, offsets: later } = piecesOf(offsets, 3, [2, 6]);
    expect(Array.from(later)).toEqual([0, 1, 4, 7, 9]);
    expect(pieces).toEqual([
      { sequence: 0, index: 0, length: 3 },
      { sequence: 0, index: 1, length: 3 },
      { sequence: 0, index: 2, length: 3 },
      { sequence: 1, index: 2, length: 2 },
    ]);
  });

  it('see nothing of each other', () => {
    using model = new LanguageModel({ ...tinyConfig, chunk: { size: 6 } }, { seed: 1 });
    const ids = someIds(14);
    const changed = ids.map((id, at) => (at === 7 ? (id + 1) % 50 : id));
    const [before, after] = [logitsOf(model, [ids]), logitsOf(model, [changed])];
    const differs = ids.map((_, at) =>
      before.slice(50 * at, 50 * at + 50).some((x, i) => x !== after[50 * at + i]),
    );
    expect(differs.flatMap((is, at) => (is ? [at] : []))).toEqual([7, 8, 9, 10, 11]);
  });

  it('are found in a cache, forked, cut and continued', () => {
    using model = new LanguageModel(pieced, { seed: 1 });
    using cache = new KvCache(model.config);
    expect(cache.blockSize).toBe(2);
    const last = (ids: number[]): number[] => logitsOf(model, [ids]).slice(-50);
    const parent = cache.add();
    const prefix = someIds(15);
    expect(Array.from(lastLogits(model, prefix, cache, parent))).toEqual(last(prefix));
    const child = cache.fork(parent);
    const tail = someIds(8, 2);
    expect(Array.from(lastLogits(model, tail, cache, child))).toEqual(last([...prefix, ...tail]));
    expect(Array.from(lastLogits(model, [3], cache, parent))).toEqual(last([...prefix, 3]));
    cache.truncate(child, 11);
    expect(Array.from(lastLogits(model, [4, 5], cache, child))).toEqual(last([...prefix.slice(0, 11), 4, 5]));
  });

  it('must begin a block of the cache', () => {
    const config = resolveLanguageModelConfig(pieced);
    expect(() => new KvCache(config, { blockSize: 4 })).toThrow(
      /ERR_LIBMOE_ARGUMENT.*blockSize 4 must divide the 6 tokens/,
    );
    using cache = new KvCache(resolveLanguageModelConfig({ ...pieced, chunk: { size: 8192 } }));
    expect(cache.blockSize).toBe(16);
  });

  it('generate the tokens that whole passes would', async () => {
    using model = new LanguageModel(pieced, { seed: 1 });
    const prompt = someIds(5);
    const made: number[] = [];
    for await (const { token } of generate(model, prompt, { maxTokens: 9, temperature: 0 })) made.push(token);
    const ids = [...prompt];
    for (const token of made) {
      const row = logitsOf(model, [ids]).slice(-50);
      expect(token).toBe(row.indexOf(Math.max(...row)));
      ids.push(token);
    }
  });

  it('are counted by the keys that their tokens see', () => {
    const flops = (options: LanguageModelOptions): number => parameterReport(options, 15).flopsPerToken;
    const seen = (at: number): number => Math.min(4, (at % 6) + 1);
    const keys = Array.from({ length: 15 }, (_, at) => seen(at)).reduce((a, b) => a + b, 0) / 15;
    const perKey = 3 * 4 * 24;
    const whole = { ...tinyConfig, layers: 2 };
    const cut = { ...whole, chunk: { size: 6, layers: [1] }, window: [null, 4] };
    expect(flops(whole) - flops(cut)).toBeCloseTo(perKey * (8 - keys), 6);
    using model = new LanguageModel(pieced, { seed: 1 });
    expect(parameterReport(pieced).total).toBe(model.parameterCount());
  });
});

describe('layers without positions, and norms after turning', () => {
  const full: LanguageModelOptions = {
    ...pieced,
    feedForward: { hidden: 8 },
    moe: {
      layers: [1],
      experts: 3,
      topK: 2,
      router: { name: 'sigmoid', normalise: false, balanceCoefficient: 0 },
      weighted: 'inputs',
      expert: { hidden: 5 },
      shared: { hidden: 4, sigmoidGate: true },
    },
  };
  const sequences = [someIds(15), someIds(4, 2)];
  const targets = Int32Array.from(sequences.flat(), (id) => (id * 3 + 1) % 50);
  const batch = () => ({ ...packSequences(sequences), targets });

  it('have the gradient of the loss (finite differences, f64), recomputed with the same bits', () => {
    using model = new LanguageModel(full, { seed: 2, dtype: 'f64' });
    const loss = (backward: boolean): number =>
      scope(() => {
        using context = new ForwardContext({ training: true });
        const value = noGradUnless(backward, () => model.loss(batch(), context));
        if (backward) value.backward();
        return value.item();
      });
    loss(true);
    const gradients = new Map([...model.namedParameters()].map(([name, p]) => [name, p.grad!.toArray()]));
    for (const [name, parameter] of model.namedParameters()) {
      const at = Math.floor(parameter.size / 3);
      const numeric = slope(parameter, at, () => loss(false));
      expect(gradients.get(name)![at], name).toBeCloseTo(numeric, 7);
    }
    model.zeroGrad();
    model.activationCheckpointing = true;
    loss(true);
    for (const [name, parameter] of model.namedParameters())
      expect(parameter.grad!.toArray(), name).toEqual(gradients.get(name));
  });

  it('differ from turning layers only where there are positions to tell', () => {
    const still = { ...tinyConfig, rotary: { layers: [1] } };
    using model = new LanguageModel(still, { seed: 1 });
    using turning = new LanguageModel(tinyConfig, { seed: 1 });
    expect(logitsOf(model, [[7]])).toEqual(logitsOf(turning, [[7]])); // nothing turns at position 0
    expect(logitsOf(model, [[7, 8]])).not.toEqual(logitsOf(turning, [[7, 8]]));
  });

  it.each([
    [{ rotary: { layers: [3] } }, /layer 3 does not exist/],
    [{ chunk: { size: 4, layers: [9] } }, /layer 9 does not exist/],
    [{ chunk: { size: 0 } }, /chunk.size/],
    [
      { temperature: { strength: 1, every: 4 } },
      /temperature acts in layers that do not turn: set rotary.layers/,
    ],
    [{ positions: 'learned', rotary: { layers: [0] } }, /rotary.layers needs positions: "rotary"/],
  ])('refuse %o', (change, message) => {
    const resolve = () => resolveLanguageModelConfig({ ...tinyConfig, ...change });
    expect(resolve).toThrow(/ERR_LIBMOE_CONFIG/);
    expect(resolve).toThrow(message);
  });
});

const noGradUnless = <T>(backward: boolean, run: () => T): T => (backward ? run() : noGrad(run));
