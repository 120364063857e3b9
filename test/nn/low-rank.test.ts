import { describe, expect, it } from 'vitest';
import { LanguageModel } from '../../ts/models/language/index.ts';
import { addLowRank, FeedForward, lowRankPlaces, SelfAttention } from '../../ts/nn/index.ts';
import { LowRank } from '../../ts/nn/low-rank.ts';
import { multiply } from '../../ts/tensor/elementwise.ts';
import { noGrad, scope, type Tensor, tensor } from '../../ts/tensor/index.ts';
import { randn } from '../../ts/tensor/random.ts';
import { sum } from '../../ts/tensor/reduction.ts';
import { tinyConfig } from '../models/tiny.ts';

/** Numbers in place of the zeros that adapters begin with. */
function shake(model: Pick<ReturnType<typeof addLowRank>, 'all'>): void {
  for (const [i, { up }] of [...model.all.values()].entries()) {
    using values = randn(up.shape, { seed: 50 + i, std: 0.3, dtype: up.dtype });
    up.write(values.readSync());
  }
}

const batch = {
  ids: Int32Array.from({ length: 12 }, (_, i) => (i * 5) % 17),
  targets: Int32Array.from({ length: 12 }, (_, i) => (i * 7 + 1) % 17),
  sequenceOffsets: Int32Array.from([0, 7, 12]),
};
const tiny = (): LanguageModel =>
  new LanguageModel({ ...tinyConfig, vocabularySize: 64, layers: 2 }, { seed: 2, dtype: 'f64' });
const lossOf = (model: LanguageModel): number => noGrad(() => scope(() => model.loss(batch).item()));

describe('low-rank adapters', () => {
  it('change nothing at first, take all gradients, and name themselves after their matrices', () => {
    using model = tiny();
    const before = lossOf(model);
    const names = [...lowRankPlaces(model).keys()].filter((name) => name.startsWith('blocks.0.'));
    expect(names).toEqual([
      ...['query', 'key', 'value', 'output'].map((part) => `blocks.0.attention.${part}`),
      'blocks.0.feedForward.up',
      'blocks.0.feedForward.down',
    ]);
    const adapters = addLowRank(model, names, { rank: 2, alpha: 4, seed: 1 });
    expect(lossOf(model)).toBe(before);
    const own = [...adapters.parameters().keys()];
    expect(own).toContain('blocks.0.attention.query.beside.down');
    expect(own).toContain('blocks.0.feedForward.besideUp.up');
    expect(own).toHaveLength(2 * names.length);
    for (const [name, weight] of adapters.weights) expect(weight.requiresGrad, name).toBe(false);
    expect(() => addLowRank(model, names, { rank: 2, alpha: 4, seed: 1 })).toThrow(/already/);
    expect(() => addLowRank(model, ['output'], { rank: 2, alpha: 4, seed: 1 })).toThrow(
      /"output".*there are/,
    );
    expect(() => addLowRank(model, ['blocks.1.attention.key'], { rank: 0, alpha: 4, seed: 1 })).toThrow(
      /positive integer/,
    );
  });

  it('have the gradients that finite differences give, in f64', () => {
    using model = tiny();
    const adapters = addLowRank(model, lowRankPlaces(model).keys(), { rank: 2, alpha: 3, seed: 1 });
    shake(adapters);
    scope(() => model.loss(batch).backward());
    const step = 1e-5;
    for (const [name, p] of adapters.parameters()) {
      const gradient = p.grad!.toArray();
      const values = p.readSync() as Float64Array;
      for (const at of [0, Math.floor(p.size / 2), p.size - 1]) {
        const moved = (by: number): number => {
          p.write(values.map((v, i) => (i === at ? v + by : v)));
          return lossOf(model);
        };
        const difference = (moved(step) - moved(-step)) / (2 * step);
        p.write(values);
        expect(Math.abs(difference - gradient[at]!), `${name}[${at}]`).toBeLessThan(1e-7);
      }
    }
    for (const [name, { grad }] of adapters.weights) expect(grad, name).toBeUndefined();
    model.zeroGrad();
  });

  it('give what the model with merged matrices gives, and leave the matrices as they were', () => {
    using model = tiny();
    const names = lowRankPlaces(model).keys();
    const adapters = addLowRank(model, names, { rank: 3, alpha: 6, seed: 1 });
    const plain = lossOf(model);
    shake(adapters);
    const before = [...adapters.weights.values()].map((t) => t.toArray());
    const learnt = lossOf(model);
    expect(Math.abs(learnt - plain)).toBeGreaterThan(1e-3);
    const seen = adapters.aside(true, () => {
      expect(model.namedParameters().size).toBe(model.stateDict().size);
      expect([...model.namedParameters().keys()].some((name) => name.includes('beside'))).toBe(false);
      return lossOf(model);
    });
    expect(Math.abs(seen - learnt)).toBeLessThan(1e-12);
    expect(adapters.aside(false, () => lossOf(model))).toBe(plain);
    expect([...adapters.weights.values()].map((t) => t.toArray())).toEqual(before);
    expect(lossOf(model)).toBe(learnt);
  });

  it('merge bf16 matrices with one rounding', () => {
    using weight = tensor([1, 2, 3, 4, 5, 6], [2, 3], { dtype: 'bf16' });
    using beside = new LowRank(weight, { rank: 1, alpha: 0.5 }, { seed: 3, name: 'a' });
    beside.down.write(Uint16Array.from([0x3f80, 0, 0x3f80])); // 1, 0, 1
    beside.up.write(Uint16Array.from([0x3f80, 0x4000])); // 1, 2
    using merged = beside.merged(weight);
    expect(merged.toArray()).toEqual([1.5, 2, 3.5, 5, 5, 7]);
  });

  it('stand beside layers outside of language models too', () => {
    using attention = new SelfAttention(8, {
      ...{ heads: 2, keyValueHeads: 2, headDim: 4, bias: true, outputBias: true },
    });
    using feed = new FeedForward(8, { hidden: 12, activation: 'gelu', gated: false, bias: true });
    expect([...lowRankPlaces(attention).keys()]).toEqual(['query', 'key', 'value', 'output']);
    const adapters = addLowRank(feed, ['down'], { rank: 2, alpha: 2, seed: 4 });
    using x = randn([5, 8], { seed: 6 });
    const gradient = (t: Tensor): number[] => t.grad!.toArray();
    scope(() => sum(multiply(feed.forward(x), feed.forward(x))).backward());
    expect(gradient(adapters.all.get('down')!.up).some((v) => v !== 0)).toBe(true);
    feed.zeroGrad();
  });
});
