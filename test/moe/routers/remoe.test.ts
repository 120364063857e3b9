import { describe, expect, it } from 'vitest';
import { MoeLayer, type Router } from '../../../ts/moe/index.ts';
import { scope, tensor } from '../../../ts/tensor/index.ts';
import { leaveToCollector } from '../../collected.ts';
import { goldenLogits, oneHot, routerWith } from '../golden-logits.ts';
import { checkGradients } from './gradients.ts';
import { near, rowsOf, waves } from './plain-numbers.ts';
import { made, read } from './routed.ts';

leaveToCollector();

const place = { experts: 6, topK: 2 };
const lambda = (router: Router): number => router.namedBuffers().get('sparsityWeight')!.item();
const told = (...layers: [counts: number[], tokens: number][]) => ({
  counts: layers[0]![0],
  tokens: layers[0]![1],
  step: 1,
  totalSteps: 10,
  layers: new Map(layers.map(([counts, tokens], i) => [String(i), { counts, tokens }])),
});

describe('remoe', () => {
  const logits = goldenLogits(6);
  const rows = rowsOf(logits, 6);

  it('sends a token to every expert with a positive gate, the largest first', () => {
    using router = routerWith('remoe', logits, place);
    const { experts, weights, counts } = read(router, () => oneHot(6));
    const open = rows.map((row) =>
      row.flatMap((x, e) => (x > 0 ? [e] : [])).sort((a, b) => row[b]! - row[a]!),
    );
    const most = Math.max(...open.map((o) => o.length));
    const slots = open.map((o) => Array.from({ length: most }, (_, j) => o[j] ?? -1));
    expect(experts).toEqual(slots.flat());
    near(
      weights,
      slots.flatMap((o, t) => o.map((e) => (e < 0 ? 0 : rows[t]![e]!))),
    );
    expect(counts).toEqual([0, 1, 2, 3, 4, 5].map((e) => open.filter((o) => o.includes(e)).length));
  });

  it('penalises gates by load, or plainly', () => {
    const gates = rows.map((row) => row.map((x) => Math.max(0, x)));
    const load = (e: number) => (6 / (2 * 6)) * gates.filter((row) => row[e]! > 0).length;
    const total = (factor: (e: number) => number) =>
      gates.reduce((a, row) => a + row.reduce((s, g, e) => s + factor(e) * g, 0), 0) / (4 * 6);
    using router = routerWith('remoe', logits, { ...place, layers: 4 }, { sparsityStart: 0.5 });
    const got = read(router, () => oneHot(6));
    expect(got.losses.sparsity).toBeCloseTo(total(load), 9);
    expect(got.coefficients).toEqual({ sparsity: 0.5 });
    using plain = routerWith('remoe', logits, { ...place, layers: 4 }, { loadWeighted: false });
    expect(read(plain, () => oneHot(6)).losses.sparsity).toBeCloseTo(
      total(() => 1),
      9,
    );
    expect(read(plain, () => oneHot(6), { training: false }).losses).toEqual({});
  });

  it('adapts λ to the sparsity over all layers', () => {
    using router = made('remoe', place);
    expect(lambda(router)).toBeCloseTo(1e-8, 12);
    // 12 tokens in each of two layers: the target is 2 experts per token, 48 choices.
    router.afterStep!(told([[9, 9, 9, 9, 0, 0], 12], [[2, 2, 2, 2, 2, 2], 12]));
    expect(lambda(router)).toBeCloseTo(1e-8, 12); // 36 + 12 = 48
    router.afterStep!(told([[9, 9, 9, 9, 1, 0], 12], [[2, 2, 2, 2, 2, 2], 12]));
    expect(lambda(router) / 1.2e-8).toBeCloseTo(1, 6);
    router.afterStep!(told([[9, 9, 9, 8, 0, 0], 12], [[2, 2, 2, 2, 2, 2], 12]));
    expect(lambda(router) / 1e-8).toBeCloseTo(1, 6);
    for (let i = 0; i < 1000; i += 1) router.afterStep!(told([[0, 0, 0, 0, 0, 0], 12]));
    expect(lambda(router)).toBeGreaterThan(0);
  });

  it('takes no notice of layers with another router, and of each layer its own size', () => {
    using router = made('remoe', place);
    using wide = made('remoe', { experts: 12, topK: 3 });
    using other = made('smoe', place);
    const layer = (counts: number[], tokens: number, of: Router) => ({ counts, tokens, router: of });
    const step = (...layers: ReturnType<typeof layer>[]) =>
      router.afterStep!({
        ...told([layers[0]!.counts, layers[0]!.tokens]),
        layers: new Map(layers.map((l, i) => [String(i), l])),
      });
    // 12 tokens, 2 each: 24 are open; smoe would make it too many, whatever it does.
    step(layer([4, 4, 4, 4, 4, 4], 12, router), layer([12, 12, 12, 12, 0, 0], 12, other));
    expect(lambda(router)).toBeCloseTo(1e-8, 12);
    // Together 24 + 36 are wanted.
    const half = new Array<number>(12).fill(3);
    step(layer([4, 4, 4, 4, 4, 4], 12, router), layer(half, 12, wide));
    expect(lambda(router)).toBeCloseTo(1e-8, 12);
    step(layer([4, 4, 4, 4, 4, 4], 12, router), layer([4, ...half.slice(1)], 12, wide));
    expect(lambda(router) / 1.2e-8).toBeCloseTo(1, 6);
  });

  it('gives nothing to tokens without an open gate, and to masked ones', () => {
    using router = routerWith(
      'remoe',
      logits.map((x) => -Math.abs(x)),
      place,
    );
    expect(read(router, () => oneHot(6))).toMatchObject({
      experts: [-1, -1, -1, -1, -1, -1],
      weights: [0, 0, 0, 0, 0, 0],
      losses: { sparsity: 0 },
    });
    using tokenMask = tensor([1, 0, 1, 1, 1, 1], [6], { dtype: 'bool' });
    using open = routerWith('remoe', logits, place);
    const got = read(open, () => oneHot(6), { tokenMask });
    expect(rowsOf(got.experts, got.experts.length / 6)[1]!.every((e) => e === -1)).toBe(true);
    using five = routerWith('remoe', [...logits.slice(0, 6), ...logits.slice(12)], place);
    expect(got.losses.sparsity).toBeCloseTo(read(five, () => oneHot(5)).losses.sparsity!, 9);
  });

  it('runs in a layer', async () => {
    using layer = new MoeLayer({ router: 'remoe', ...place, dModel: 5, expert: { hidden: 3 } });
    scope(() => {
      expect(
        layer
          .forward(tensor(waves(4), [4, 5]))
          .toArray()
          .every(Number.isFinite),
      ).toBe(true);
    });
  });

  it('has the gradients', () => {
    using sequenceOffsets = tensor(Int32Array.from([0, 4, 7]));
    using tokenMask = tensor([1, 1, 1, 1, 0, 1, 1], [7], { dtype: 'bool' });
    for (const options of [{}, { loadWeighted: false }, { balance: 'switch', zCoefficient: 0.1 }]) {
      using router = made('remoe', place, { ...options, init: { std: 0.5 } });
      checkGradients(router, waves(7), { sequenceOffsets, tokenMask });
    }
  });

  it('takes one token, all experts and a single expert; names a token that is no number', () => {
    using all = made('remoe', { experts: 3, topK: 3 });
    expect(read(all, waves(1)).weights.every(Number.isFinite)).toBe(true);
    using one = made('remoe', { experts: 1, topK: 1 });
    expect(read(one, waves(2)).experts.every((e) => e <= 0)).toBe(true);
    expect(() => read(all, [1, 1, 1, 1, 1, 1, Number.NaN, 1, 1, 1])).toThrow(
      /ERR_LIBMOE_NOT_FINITE.*token 1/,
    );
  });

  it('is not in LibMoE', () => {
    expect(() => made('remoe', { ...place, compat: 'libmoe' })).toThrow(/no compat "libmoe"/);
  });
});
