import { describe, expect, it } from 'vitest';
import { MoeLayer } from '../../../ts/moe/index.ts';
import { scope, tensor } from '../../../ts/tensor/index.ts';
import { leaveToCollector } from '../../collected.ts';
import { goldenLogits, oneHot, routerWith } from '../golden-logits.ts';
import { checkGradients } from './gradients.ts';
import { best, near, rowsOf, softmaxOf, waves } from './plain-numbers.ts';
import { made, read } from './routed.ts';

leaveToCollector();

const vision = { flavour: 'vision-language' };
const place = { experts: 6, topK: 3 };
/** Appendix A: one token likes null expert 0. */
const logits = goldenLogits(15).map((x, i) => (i === 3 * 15 + 12 ? 14 : x));
const golden = (compat: 'fixed' | 'libmoe' | 'original', options: object = {}, values = logits) =>
  routerWith('tc-moe', values, { ...place, compat }, { ...vision, ...options }, 15);

const choices = [2, 3, 1, 0, 1, 8, 5, 0, 6, 12, 4, 3, 2, 3, 8, 1, 2, 6];
const weights = [
  0.436961, 0.342189, 0.220827, 0.453595, 0.371114, 0.175287, 0.440156, 0.287204, 0.272573, 0.838017,
  0.113173, 0.048809, 0.442368, 0.362021, 0.195575, 0.591855, 0.223401, 0.184719,
];
const signs = [1, 1, 1, 1, 1, -1, 1, 1, -1, 0, 1, 1, 1, 1, -1, 1, 1, -1];
const experts = [2, 3, 1, 0, 1, 2, 5, 0, 0, -1, 4, 3, 2, 3, 2, 1, 2, 0];

/** Σ f P of one sequence by the formula, and the mean null mass. */
function reference(rows: number[][]) {
  const p = rows.map((row) => softmaxOf(row.map((x, i) => x - (i < 6 ? 0 : i < 12 ? 1 : 10))));
  const picked = p.flatMap((row) => best(row, 3));
  const used = picked.filter((c) => c < 12);
  const counts = Array.from({ length: 6 }, (_, e) => used.filter((c) => c % 6 === e).length);
  const mean = counts.map((_, e) =>
    p.reduce((a, row) => {
      const rest = row.slice(0, 12).reduce((s, x) => s + x, 0);
      return a + (row[e]! + row[e + 6]!) / rest / rows.length;
    }, 0),
  );
  const nulls = p.reduce((a, row) => a + row.slice(12).reduce((s, x) => s + x, 0), 0) / rows.length;
  return { counts, used: used.length, mean, nulls };
}

describe('tc-moe', () => {
  it('is the golden vector: choices, signed weights, losses', () => {
    using router = golden('fixed');
    const got = read(router, () => oneHot(6));
    expect(got.choices).toEqual(choices);
    expect(got.experts).toEqual(experts);
    near(
      got.weights,
      weights.map((w, i) => w * signs[i]! + 0),
      5,
    );
    expect(got.losses.balance).toBeCloseTo(1.062716, 6);
    expect(got.losses.routerZ).toBeCloseTo(43.401547, 5);
    expect(got.losses.reward).toBeCloseTo(-0.1231766, 6);
    expect(got.coefficients).toEqual({ balance: 0.01, routerZ: 0.001, reward: 1e-5 });
    const { counts, used, mean, nulls } = reference(rowsOf(logits, 15));
    expect(got.losses.balance).toBeCloseTo(6 * counts.reduce((a, c, e) => a + (c / used) * mean[e]!, 0), 9);
    expect(got.losses.reward).toBeCloseTo(-nulls, 9);
    expect(got.counts!.length).toBe(15);
  });

  it('libmoe: balance without N, of the whole batch in every row, so that it grows with the number of sequences', () => {
    using router = golden('libmoe');
    expect(read(router, () => oneHot(6)).losses.balance).toBeCloseTo(0.177119, 6);
    const twice = [...logits, ...logits];
    using sequenceOffsets = tensor(Int32Array.from([0, 6, 12]));
    const balance = (compat: 'fixed' | 'libmoe') => {
      using both = golden(compat, {}, twice);
      return read(both, () => oneHot(12), { sequenceOffsets }).losses.balance;
    };
    expect(balance('libmoe')).toBeCloseTo(2 * 0.177119, 5);
    expect(balance('fixed')).toBeCloseTo(1.062716, 6);
  });

  it('libmoe loses all but the last of the choices of one expert', () => {
    const at = (values: Record<number, number>) =>
      Array.from({ length: 15 }, (_, i) => (i in values ? Math.log(values[i]!) : -30));
    // Identity experts and x = 1: the output is the sum of the signed weights.
    const out = (compat: 'fixed' | 'libmoe', values: Record<number, number>, flavour = 'vision-language') => {
      using router = routerWith('tc-moe', at(values), { ...place, compat }, { flavour, balance: 'none' }, 15);
      return read(router, () => oneHot(1)).weights.reduce((a, w) => a + w, 0);
    };
    // Biases −1 and −10 are part of the scores: given here so that the probabilities come out as wanted.
    const signed = { 2: 0.5, 8: 0.3 * Math.E, 1: 0.2 };
    expect(out('fixed', signed)).toBeCloseTo(0.4, 6);
    expect(out('libmoe', signed)).toBeCloseTo(-0.1, 6);
    expect(out('libmoe', signed, 'language')).toBeCloseTo(0.4, 6);
    const wiped = { 0: 0.5, 12: 0.3 * Math.exp(10), 3: 0.2 };
    expect(out('fixed', wiped)).toBeCloseTo(0.7, 6);
    expect(out('libmoe', wiped)).toBeCloseTo(0.2, 6);
  });

  it('adds signed weights of one expert in the layer', () => {
    scope(() => {
      using layer = new MoeLayer({
        router: { name: 'tc-moe', balance: 'none' },
        experts: 6,
        topK: 3,
        dModel: 6,
        expert: { hidden: 4 },
      });
      const x = tensor(waves(8, 6), [8, 6]);
      expect(layer.forward(x).toArray().every(Number.isFinite)).toBe(true);
    });
  });

  it('has no z-loss for a coefficient of 0, and counts masked tokens nowhere', () => {
    using router = golden('fixed', { zCoefficient: 0 });
    expect(Object.keys(read(router, () => oneHot(6)).losses)).toEqual(['balance', 'reward']);
    using tokenMask = tensor([1, 1, 1, 1, 0, 0], [6], { dtype: 'bool' });
    const masked = read(router, () => oneHot(6), { tokenMask });
    const { counts, used, mean, nulls } = reference(rowsOf(logits, 15).slice(0, 4));
    expect(masked.losses.balance).toBeCloseTo(
      6 * counts.reduce((a, c, e) => a + (c / used) * mean[e]!, 0),
      9,
    );
    expect(masked.losses.reward).toBeCloseTo(-nulls, 9);
    expect(masked.experts.slice(12)).toEqual([-1, -1, -1, -1, -1, -1]);
    expect(masked.weights.slice(12)).toEqual([0, 0, 0, 0, 0, 0]);
  });

  it('has the gradients', () => {
    using sequenceOffsets = tensor(Int32Array.from([0, 4, 7]));
    using tokenMask = tensor([1, 1, 1, 1, 0, 1, 1], [7], { dtype: 'bool' });
    for (const compat of ['fixed', 'libmoe', 'original'] as const)
      for (const balance of ['switch', 'global']) {
        using router = made('tc-moe', { ...place, compat }, { ...vision, balance, init: { std: 0.5 } });
        checkGradients(router, waves(7), { sequenceOffsets, tokenMask });
      }
  });

  it('takes one token, all experts and a single expert', () => {
    using all = made('tc-moe', { experts: 3, topK: 3 });
    expect(read(all, waves(1)).weights.every(Number.isFinite)).toBe(true);
    using one = made('tc-moe', { experts: 1, topK: 1 });
    expect(read(one, waves(2)).experts.every((e) => e <= 0)).toBe(true);
  });

  it("refuses the balance that LibMoE's language models cannot compute", () => {
    expect(() => made('tc-moe', { ...place, compat: 'libmoe' })).toThrow(/set balance to step, time/);
    using router = made('tc-moe', { ...place, compat: 'libmoe' }, { balance: 'global' });
    expect(Object.keys(read(router, waves(2)).losses)).toEqual(['reward', 'balance']);
  });
});
