import { describe, expect, it } from 'vitest';
import { tensor } from '../../../ts/tensor/index.ts';
import { goldenLogits, oneHot, routerWith } from '../golden-logits.ts';
import { checkGradients } from './gradients.ts';
import { best, near, rowsOf, softmaxOf, waves } from './plain-numbers.ts';
import { made, read } from './routed.ts';

/** For every token the experts that take it, by the definition. */
function reference(logits: readonly number[], experts: number, each: number) {
  const p = rowsOf(logits, experts).map(softmaxOf);
  const rows: number[][] = p.map(() => []);
  for (let e = 0; e < experts; e += 1)
    for (const t of best(
      p.map((row) => row[e]!),
      each,
    ))
      rows[t]!.push(e);
  rows.forEach((row, t) => {
    row.sort((a, b) => p[t]![b]! - p[t]![a]!);
  });
  return { p, rows };
}

describe('expert-choice', () => {
  const place = { experts: 5, topK: 2 };

  it('lets every expert take its best ceil(tokens · topK / experts) tokens', () => {
    const logits = goldenLogits(5);
    using router = routerWith('expert-choice', logits, place);
    const { experts, weights, counts, losses } = read(router, () => oneHot(6));
    const { p, rows } = reference(logits, 5, 3); // 12 / 5
    const most = experts.length / 6;
    expect(most).toBe(Math.max(...rows.map((r) => r.length)));
    expect(experts).toEqual(rows.flatMap((r) => Array.from({ length: most }, (_, j) => r[j] ?? -1)));
    near(
      weights,
      experts.map((e, slot) => (e < 0 ? 0 : p[Math.floor(slot / most)]![e]!)),
    );
    expect(counts).toEqual([3, 3, 3, 3, 3]);
    expect(losses).toEqual({});
    using fewer = routerWith('expert-choice', logits, place, { capacityFactor: 0.5 });
    expect(read(fewer, () => oneHot(6)).counts).toEqual([1, 1, 1, 1, 1]);
  });

  it('looks ahead: a later token takes an earlier one its place', () => {
    const logits = [2, 0, 1, 0, 3, 0];
    using router = routerWith('expert-choice', logits, { experts: 2, topK: 1 }, { capacityFactor: 0.6 });
    expect(rowsOf(read(router, () => oneHot(3)).experts, 1)[0]).toEqual([-1]);
    using shorter = routerWith(
      'expert-choice',
      logits.slice(0, 4),
      { experts: 2, topK: 1 },
      { capacityFactor: 0.6 },
    );
    expect(read(shorter, () => oneHot(2)).experts[0]).toBe(0);
  });

  it('leaves masked tokens out and fills with the others', () => {
    using router = routerWith('expert-choice', goldenLogits(5), place);
    using tokenMask = tensor([1, 1, 1, 1, 0, 0], [6], { dtype: 'bool' });
    const { experts, counts } = read(router, () => oneHot(6), { training: false, tokenMask });
    const { rows } = reference(goldenLogits(5, 4), 5, 2); // 8 / 5
    const most = experts.length / 6;
    expect(experts).toEqual(
      [...rows, [], []].flatMap((r) => Array.from({ length: most }, (_, j) => r[j] ?? -1)),
    );
    expect(counts).toEqual([2, 2, 2, 2, 2]);
  });

  it('has the gradients, of losses that are asked for too', () => {
    using sequenceOffsets = tensor(Int32Array.from([0, 4, 7]));
    for (const balance of ['none', 'switch', 'time']) {
      using router = made('expert-choice', place, { balance, zCoefficient: 0.1, init: { std: 0.5 } });
      checkGradients(router, waves(7), { sequenceOffsets });
    }
  });

  it('takes one token, all experts and a single expert', () => {
    using all = made('expert-choice', { experts: 3, topK: 3 });
    expect([...read(all, waves(1)).experts].sort()).toEqual([0, 1, 2]);
    using one = made('expert-choice', { experts: 1, topK: 1 });
    expect(read(one, waves(2))).toMatchObject({ experts: [0, 0], weights: [1, 1] });
  });

  it('is not in LibMoE', () => {
    expect(() => made('expert-choice', { ...place, compat: 'libmoe' })).toThrow(/no compat "libmoe"/);
  });
});
