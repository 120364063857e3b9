import { describe, expect, it } from 'vitest';
import { ForwardContext, MoeLayer, type Router } from '../../../ts/moe/index.ts';
import { noGrad, scope, type Tensor, tensor } from '../../../ts/tensor/index.ts';
import { dropPolicies } from '../../../ts/tensor/permutation.ts';
import { leaveToCollector } from '../../collected.ts';
import { goldenLogits, oneHot, routerWith } from '../golden-logits.ts';
import { checkGradients } from './gradients.ts';
import { near, product, rowsOf, softmaxOf, waves } from './plain-numbers.ts';
import { made, read, tokensOf } from './routed.ts';

leaveToCollector();

const vision = { flavour: 'vision-language' };
const place = { experts: 6, topK: 3 };
const golden = (compat: 'fixed' | 'libmoe' | 'original', options: object = {}) =>
  routerWith('moe++', goldenLogits(8), { ...place, compat }, { ...vision, ...options }, 8);
const parameterOf = (router: Router, name: string): Tensor => router.namedParameters().get(name)!;

const choices = [2, 3, 1, 0, 1, 7, 6, 5, 0, 4, 3, 5, 2, 3, 7, 1, 6, 7];
const weights = [
  0.436971, 0.342197, 0.220832, 0.438392, 0.358675, 0.202933, 0.504621, 0.299774, 0.195604, 0.555343,
  0.239507, 0.205151, 0.467858, 0.382881, 0.149261, 0.4104, 0.348175, 0.241425,
];
const p = rowsOf(goldenLogits(8), 8).map(softmaxOf);
/** R · Σ η f P with f over the first `of` choices of each token. */
const balance = (eta: (i: number) => number, of: number) =>
  8 *
  Array.from({ length: 8 }, (_, i) => {
    const f = choices.filter((c, slot) => c === i && slot % 3 < of).length / (6 * of);
    return (eta(i) * f * p.reduce((a, row) => a + row[i]!, 0)) / 6;
  }).reduce((a, b) => a + b, 0);

describe('moe++ as LibMoE computes it', () => {
  it('is the golden vector: a zero expert takes its share, column 4 weighs 1.3', () => {
    using router = golden('libmoe');
    const got = read(router, () => oneHot(6));
    expect(got.choices).toEqual(choices);
    expect(got.experts).toEqual(choices.map((c) => (c < 6 ? c : -1)));
    near(got.weights, weights, 5);
    expect(got.losses.balance).toBeCloseTo(1.157372, 6);
    expect(got.losses.routerZ).toBeCloseTo(8.44675, 5);
    expect([...router.namedParameters().keys()].sort()).toEqual(['constants', 'mixing', 'weight']);
  });
});

describe('moe++', () => {
  it('weighs every cheap output by τ in the balance loss', () => {
    const eta = (i: number) => (i < 6 ? 1 : 0.75);
    expect(balance(eta, 1)).toBeCloseTo(1.069285, 6);
    using router = golden('fixed');
    expect(read(router, () => oneHot(6)).losses.balance).toBeCloseTo(balance(eta, 3), 9);
    using original = golden('original');
    expect(read(original, () => oneHot(6)).losses.balance).toBeCloseTo((balance(eta, 3) * 3) / 8, 9);
    using other = golden('fixed', { cheapWeight: 0.5 });
    expect(read(other, () => oneHot(6)).losses.balance).toBeCloseTo(
      balance((i) => (i < 6 ? 1 : 0.5), 3),
      9,
    );
  });

  it('gives the share of a zero expert to the others, unless told otherwise', () => {
    using router = golden('fixed');
    const expected = choices.map((c, slot) => {
      const t = Math.floor(slot / 3);
      const others = choices.slice(3 * t, 3 * t + 3).filter((i) => i !== 6);
      return c === 6 ? 0 : p[t]![c]! / others.reduce((a, i) => a + p[t]![i]!, 0);
    });
    near(read(router, () => oneHot(6)).weights, expected);
    using lost = golden('fixed', { renormaliseZero: false });
    near(read(lost, () => oneHot(6)).weights, weights, 5);
  });

  it('adds copies and constants by the formula', () => {
    using router = made(
      'moe++',
      { experts: 2, topK: 2 },
      { zeroExperts: 1, copyExperts: 2, constantExperts: 2 },
    );
    const x = waves(9);
    const at = (name: string) => parameterOf(router, name).toArray();
    parameterOf(router, 'weight').write(waves(7).map((v) => Math.sin(9 * v)));
    parameterOf(router, 'mixing').write(waves(4).map((v) => Math.cos(5 * v)));
    const got = read(router, x);
    const mix = rowsOf(product(x, at('mixing'), 5), 4);
    const constants = rowsOf(at('constants'), 5);
    const expected = rowsOf(x, 5).flatMap((token, t) =>
      token.map((xi, i) => {
        let out = 0;
        for (let slot = 2 * t; slot < 2 * t + 2; slot += 1) {
          const c = got.choices![slot]!;
          const w = got.weights[slot]!;
          if (c === 3 || c === 4) out += w * xi;
          if (c < 5) continue;
          const alpha = softmaxOf(mix[t]!.slice(2 * (c - 5), 2 * (c - 5) + 2));
          out += w * (alpha[0]! * xi + alpha[1]! * constants[c - 5]![i]!);
        }
        return out;
      }),
    );
    near(got.extra!, expected, 10);
    expect(got.choices!.some((c) => c >= 5) && got.choices!.some((c) => c === 3 || c === 4)).toBe(true);
  });

  it('adds the map of the previous logits from the second layer on', () => {
    using first = made('moe++', place, vision);
    expect(parameterOf(first, 'residual')).toBeUndefined();
    using second = made('moe++', { ...place, layer: 1, layers: 2 }, vision);
    const residual = parameterOf(second, 'residual').toArray();
    const x = waves(3);
    const previous = waves(3, 8);
    const route = (before?: number[]) =>
      scope(() => {
        using context = new ForwardContext({ training: true });
        if (before) context.routed(0, tensor([0]), tensor(before, [3, before.length / 3], { dtype: 'f64' }));
        return second.route(tokensOf(x), context.routing(1)).logits!.toArray();
      });
    const own = product(x, parameterOf(second, 'weight').toArray(), 5);
    near(route(), own);
    const added = product(previous, residual, 8);
    near(
      route(previous),
      own.map((v, i) => v + added[i]!),
    );
    expect(() => route(waves(3, 4))).toThrow(/ERR_LIBMOE_SHAPE.*gatingResidual: false/);
    using without = made('moe++', { ...place, layer: 1, layers: 2 }, { ...vision, gatingResidual: false });
    expect(parameterOf(without, 'residual')).toBeUndefined();
  });

  it('drops beyond the heterogeneous capacity, in training only', () => {
    // Every token alike: all choose the same outputs.
    const x = Array.from({ length: 60 }, (_, i) => [1, -1, 0.5, 2, 0.3][i % 5]!);
    const options = { zeroExperts: 0, copyExperts: 1, constantExperts: 1, capacityFactor: 1.1 };
    using router = made('moe++', { experts: 2, topK: 2 }, options);
    parameterOf(router, 'weight').write(
      [0, 1, 0, 1].flatMap((v) => [v, 0, 0, 0, 0]), // outputs 1 (an expert) and 3 (the constant one)
    );
    const training = read(router, x);
    const share = (1.1 * 12 * 2) / (0.75 * 2 + 2);
    expect(training.capacity).toBe(Math.ceil(0.75 * share));
    const cheap = training.choices!.flatMap((c, slot) => (c === 3 ? [training.weights[slot]!] : []));
    expect(cheap.filter((w) => w > 0).length).toBe(Math.ceil(share));
    const evaluation = read(router, x, { training: false });
    expect(evaluation.capacity).toBeUndefined();
    expect(evaluation.weights.every((w) => w > 0)).toBe(true);
  });

  it('counts what cheap experts drop in the record, and masked tokens nowhere', async () => {
    const x = Array.from({ length: 60 }, (_, i) => [1, -1, 0.5, 2, 0.3][i % 5]!);
    using layer = new MoeLayer({
      router: { name: 'moe++', zeroExperts: 0, copyExperts: 1, constantExperts: 1, capacityFactor: 1.1 },
      experts: 2,
      topK: 2,
      dModel: 5,
      expert: { hidden: 3 },
    });
    parameterOf(layer.router, 'weight').write([0, 1, 0, 1].flatMap((v) => [v, 0, 0, 0, 0]));
    for (const counted of [12, 8]) {
      using tokenMask = tensor(
        Array.from({ length: 12 }, (_, t) => (t < counted ? 1 : 0)),
        [12],
        { dtype: 'bool' },
      );
      using context = new ForwardContext({ training: true, tokenMask });
      noGrad(() => scope(() => void layer.forward(tensor(x, [12, 5]), context)));
      const share = (1.1 * counted * 2) / (0.75 * 2 + 2);
      const dropped = 2 * counted - Math.ceil(0.75 * share) - Math.ceil(share);
      expect(dropped).toBeGreaterThan(0);
      expect(await context.records[0]!.read()).toMatchObject({ tokens: counted, dropped });
    }
  });

  it.each(dropPolicies)('leaves it to the layer whom a full expert drops: %s', async (dropPolicy) => {
    const tokens = 12;
    using layer = new MoeLayer({
      router: {
        name: 'moe++',
        renormaliseZero: false,
        copyExperts: 0,
        constantExperts: 0,
        capacityFactor: 1.1,
      },
      experts: 2,
      topK: 2,
      dModel: 5,
      expert: { hidden: 3 },
      dropPolicy,
    });
    // Expert 1 and then the zero expert; the larger the first channel, the larger the share of the expert.
    parameterOf(layer.router, 'weight').write([0, 1, 0.5].flatMap((v) => [v, 0, 0, 0, 0]));
    const x = Array.from({ length: tokens }, (_, t) => [0.5 + t / 4, -1, 0.5, 2, 0.3]).flat();
    using context = new ForwardContext({ training: true });
    const rows = noGrad(() => scope(() => layer.forward(tensor(x, [tokens, 5]), context).toArray()));
    const kept = rowsOf(rows, 5).flatMap((row, t) => (row.some((v) => v !== 0) ? [t] : []));
    const share = (1.1 * tokens * 2) / (0.75 * 2 + 1);
    const room = Math.ceil(0.75 * share);
    expect(room).toBeLessThan(tokens);
    expect(kept.length).toBe(room);
    if (dropPolicy === 'position') expect(kept[0]).toBe(0);
    if (dropPolicy === 'probability' || dropPolicy === 'batch-prioritised')
      expect(kept[0]).toBe(tokens - room);
    const dropped = tokens - room + tokens - Math.ceil(share);
    expect(await context.records[0]!.read()).toMatchObject({ dropped });
  });

  it('runs in a layer: tokens of cheap experts need no expert', async () => {
    using layer = new MoeLayer({
      router: { name: 'moe++', zeroExperts: 0, copyExperts: 1, constantExperts: 0 },
      experts: 2,
      topK: 1,
      dModel: 5,
      expert: { hidden: 3 },
    });
    parameterOf(layer.router, 'weight').write([0, 0, 1].flatMap((v) => [v, 0, 0, 0, 0]));
    using context = new ForwardContext({ training: true });
    scope(() => {
      const x = tensor([1, 2, 3, 4, 5, 2, 0, 1, 0, 3], [2, 5]);
      expect(layer.forward(x, context).toArray()).toEqual(x.toArray()); // copied, weight 1
    });
    expect(await context.records[0]!.read()).toMatchObject({ tokens: 2, counts: [0, 0, 2], dropped: 0 });
  });

  it('has the gradients', () => {
    using tokenMask = tensor([1, 1, 1, 1, 0, 1, 1], [7], { dtype: 'bool' });
    using sequenceOffsets = tensor(Int32Array.from([0, 4, 7]));
    const previous = waves(7, 14).map((v) => Math.cos(3 * v));
    for (const compat of ['fixed', 'libmoe', 'original'] as const)
      for (const options of [{}, { capacityFactor: 1 }]) {
        using router = made(
          'moe++',
          { ...place, layer: 1, layers: 2, compat },
          { ...options, zCoefficient: 0.1, init: { std: 0.4 } },
        );
        checkGradients(router, waves(7), {
          layer: 1,
          tokenMask,
          sequenceOffsets,
          before: (context) => context.routed(0, tensor([0]), tensor(previous, [7, 14], { dtype: 'f64' })),
        });
      }
  });

  it('takes one token, all experts and a single expert, and only zero experts', () => {
    using all = made('moe++', { experts: 3, topK: 3 });
    expect(read(all, waves(1)).weights.every(Number.isFinite)).toBe(true);
    using one = made('moe++', { experts: 1, topK: 1 });
    expect(read(one, waves(2)).weights.length).toBe(2);
    using nothing = made(
      'moe++',
      { experts: 1, topK: 1 },
      { zeroExperts: 1, copyExperts: 0, constantExperts: 0 },
    );
    parameterOf(nothing, 'weight').write([0, 0, 0, 0, 0, 1, 0, 0, 0, 0]);
    const got = read(nothing, [1, 0, 0, 0, 0]);
    expect(got).toMatchObject({ choices: [1], experts: [-1], weights: [0], extra: undefined });
  });

  it('refuses what it does not have', () => {
    expect(() => made('moe++', place, { copies: 1 })).toThrow(/unknown key "copies"/);
    expect(() => made('moe++', place, { cheapWeight: 0 })).toThrow(/cheapWeight/);
  });
});
