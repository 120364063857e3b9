import { describe, expect, it } from 'vitest';
import type { Router } from '../../../ts/moe/index.ts';
import { codeOf } from '../../../ts/native/index.ts';
import { tensor } from '../../../ts/tensor/index.ts';
import { leaveToCollector } from '../../collected.ts';
import { goldenLogits, oneHot, routerWith } from '../golden-logits.ts';
import { checkGradients } from './gradients.ts';
import { best, near, rowsOf, waves } from './plain-numbers.ts';
import { made, pass, read } from './routed.ts';

leaveToCollector();

const vision = { flavour: 'vision-language' };
const sigmoids = (row: readonly number[]): number[] => row.map((x) => 1 / (1 + Math.exp(-x)));
const biasOf = (router: Router): number[] => router.namedBuffers().get('selectionBias')!.toArray();
const told = (counts: number[], step = 1, totalSteps = 10) => ({
  counts,
  tokens: 12,
  step,
  totalSteps,
  layers: new Map([['0', { counts, tokens: 12 }]]),
});

describe('shared-v3 as LibMoE computes it', () => {
  it('is its golden vector', () => {
    using router = routerWith(
      'shared-v3',
      goldenLogits(5),
      { experts: 5, topK: 2, compat: 'libmoe' },
      vision,
    );
    const { experts, weights, losses, coefficients } = read(router, () => oneHot(6));
    expect(experts).toEqual([2, 3, 0, 1, 0, 4, 4, 3, 2, 3, 1, 2]);
    near(
      weights,
      [
        0.508326, 0.491674, 0.506962, 0.493038, 0.616488, 0.383512, 0.536497, 0.463503, 0.507766, 0.492234,
        0.545607, 0.454393,
      ],
      6,
    );
    expect(losses.balance).toBeCloseTo(1.044847, 6);
    expect(losses.routerZ).toBeCloseTo(6.137573, 5);
    expect(coefficients).toEqual({ balance: 0.01, routerZ: 0.001 });
    expect([...router.namedBuffers().keys()]).toEqual([]);
  });

  it('balances sigmoids that are not divided by their sum in language models; fixed divides', () => {
    const logits = [...goldenLogits(6), ...goldenLogits(6, 6, 0.5)];
    const balance = (compat: 'libmoe' | 'fixed') => {
      using router = routerWith('shared-v3', logits, { experts: 6, topK: 2, compat });
      using sequenceOffsets = tensor(Int32Array.from([0, 6, 12]));
      return read(router, () => oneHot(12), { sequenceOffsets });
    };
    expect(balance('libmoe').losses.balance).toBeCloseTo(3.175112, 6);
    expect(balance('fixed').losses.balance).toBeCloseTo(1.035484, 6);
    expect(balance('libmoe').coefficients.balance).toBe(0.01);
    expect(balance('fixed').coefficients.balance).toBe(1e-4);
  });
});

describe('the bias of shared-v3', () => {
  it('moves by u toward the mean of the global batch', () => {
    using router = made('shared-v3', { experts: 6, topK: 2 });
    router.afterStep!(told([4, 6, 5, 4, 3, 2]));
    near(biasOf(router), [0, -0.001, -0.001, 0, 0.001, 0.001], 9);
    router.afterStep!(told([0, 12, 0, 4, 4, 4]));
    near(biasOf(router), [0.001, -0.002, 0, 0, 0.001, 0.001], 9);
    expect(router.namedBuffers().get('selectionBias')!.dtype).toBe('f32');
    expect([...router.namedParameters().keys()]).toEqual(['weight']);
  });

  it('changes choices and leaves weights, losses and gradients to the scores', () => {
    const logits = goldenLogits(6);
    const bias = [0.3, -0.2, 0, 0.1, 0.4, -0.5];
    using router = routerWith('shared-v3', logits, { experts: 6, topK: 3 });
    const before = read(router, () => oneHot(6));
    router.namedBuffers().get('selectionBias')!.write(bias);
    const { experts, weights } = read(router, () => oneHot(6));
    const scores = rowsOf(logits, 6).map(sigmoids);
    const chosen = scores.map((s) =>
      best(
        s.map((x, i) => x + Math.fround(bias[i]!)),
        3,
      ),
    );
    expect(experts).toEqual(chosen.flat());
    expect(experts).not.toEqual(before.experts);
    near(
      weights,
      chosen.flatMap((c, t) => {
        const total = c.reduce((a, e) => a + scores[t]![e]!, 0);
        return c.map((e) => scores[t]![e]! / total);
      }),
    );
    checkGradients(router, waves(4, 6));
  });

  it('is not in the balance loss, which counts the best scores themselves (equation 18)', () => {
    const logits = [...goldenLogits(6), ...goldenLogits(6, 6, 0.5)];
    const bias = [3, 0, 3, 0, 0, 0]; // experts 0 and 2 for every token
    using sequenceOffsets = tensor(Int32Array.from([0, 6, 12]));
    for (const balance of ['standard', 'switch'] as const) {
      const options = { balance, groups: { count: 3, kept: 2 } };
      using router = routerWith('shared-v3', logits, { experts: 6, topK: 2 }, options);
      const before = read(router, () => oneHot(12), { sequenceOffsets });
      router.namedBuffers().get('selectionBias')!.write(bias);
      const after = read(router, () => oneHot(12), { sequenceOffsets });
      expect(after.counts).toEqual([6, 0, 6, 0, 0, 0, 6, 0, 6, 0, 0, 0]);
      expect(after.losses.balance).toBeCloseTo(before.losses.balance!, 12);
      using plain = routerWith('shared-v3', logits, { experts: 6, topK: 2 }, { balance });
      const ungrouped = read(plain, () => oneHot(12), { sequenceOffsets });
      expect(after.losses.balance).toBeCloseTo(ungrouped.losses.balance!, 12);
    }
  });

  it('stops at the end fraction, and with u = 0', () => {
    using router = made('shared-v3', { experts: 2, topK: 1 }, { biasUpdate: 0.5, biasUpdateUntil: 0.8 });
    router.afterStep!(told([3, 1], 8));
    expect(biasOf(router)).toEqual([-0.5, 0.5]);
    router.afterStep!(told([3, 1], 9));
    expect(biasOf(router)).toEqual([-0.5, 0.5]);
    using still = made('shared-v3', { experts: 2, topK: 1 }, { biasUpdate: 0 });
    still.afterStep!(told([3, 1]));
    expect(biasOf(still)).toEqual([0, 0]);
  });

  it('evens the load out over steps', () => {
    const values = Array.from({ length: 320 }, (_, i) => 2 * Math.sin(0.37 * i * i) + (i % 5 === 0 ? 3 : 0));
    using router = made('shared-v3', { experts: 4, topK: 1 }, { biasUpdate: 0.005, init: { std: 0.5 } });
    const counts = () => read(router, values).counts!;
    const most = Math.max(...counts());
    for (let step = 1; step <= 200; step += 1) router.afterStep!(told(counts(), step, 0));
    expect(Math.max(...counts())).toBeLessThan(most);
    expect(Math.max(...counts())).toBeLessThanOrEqual(20);
  });
});

describe('shared-v3 besides', () => {
  it('limits choices to the best groups', () => {
    const logits = goldenLogits(8);
    using router = routerWith(
      'shared-v3',
      logits,
      { experts: 8, topK: 3 },
      { groups: { count: 4, kept: 2 } },
    );
    const expected = rowsOf(logits, 8)
      .map(sigmoids)
      .flatMap((s) => {
        const worth = [0, 1, 2, 3].map((g) => s[2 * g]! + s[2 * g + 1]!);
        const kept = best(worth, 2);
        return best(
          s.map((x, i) => (kept.includes(Math.floor(i / 2)) ? x : -1)),
          3,
        );
      });
    expect(read(router, () => oneHot(6)).experts).toEqual(expected);
    for (const [groups, message] of [
      [{ count: 3, kept: 1 }, /must divide the 8 experts/],
      [{ count: 4, kept: 1 }, /fewer than topK 3/],
      [{ count: 4, kept: 5 }, /not exceed/],
    ] as const)
      expect(() => made('shared-v3', { experts: 8, topK: 3 }, { groups })).toThrow(message);
  });

  it('leaves the sigmoids undivided when told to', () => {
    const logits = goldenLogits(5);
    using router = routerWith('shared-v3', logits, { experts: 5, topK: 2 }, { normalise: false, scaling: 2 });
    const { experts, weights } = read(router, () => oneHot(6));
    const scores = rowsOf(logits, 5).map(sigmoids);
    near(
      weights,
      experts.map((e, i) => 2 * scores[Math.floor(i / 2)]![e]!),
    );
    checkGradients(router, waves(6, 6));
  });

  it.each([
    { groups: { count: 2, kept: 1 } },
    { scaling: 2.5 },
    { biasUpdate: 0.001 },
    { biasUpdateUntil: 1 },
  ])('refuses what LibMoE does not compute: %o', (options) => {
    const place = { experts: 4, topK: 2, compat: 'libmoe' } as const;
    const [option] = Object.keys(options);
    expect(() => made('shared-v3', place, options)).toThrow(
      new RegExp(`ERR_LIBMOE_CONFIG.*has no ${option} as LibMoE computes it`),
    );
  });

  it('scales weights: 1 by default, 2.5 in original', () => {
    const total = (compat: 'fixed' | 'original', options = {}) => {
      using router = routerWith('shared-v3', goldenLogits(5), { experts: 5, topK: 2, compat }, options);
      const { weights } = read(router, () => oneHot(6));
      return weights[0]! + weights[1]!;
    };
    expect(total('fixed')).toBeCloseTo(1, 9);
    expect(total('original')).toBeCloseTo(2.5, 9);
    expect(total('original', { scaling: 1.5 })).toBeCloseTo(1.5, 9);
  });

  it('has the gradients, sequences and groups included', () => {
    using sequenceOffsets = tensor(Int32Array.from([0, 4, 7]));
    for (const compat of ['fixed', 'libmoe', 'original'] as const) {
      using router = made(
        'shared-v3',
        { experts: 6, topK: 2, compat },
        { zCoefficient: 0.1, init: { std: 0.5 } },
      );
      checkGradients(router, waves(7), { sequenceOffsets });
    }
    using grouped = made('shared-v3', { experts: 6, topK: 2 }, { groups: { count: 3, kept: 2 } });
    checkGradients(grouped, waves(7));
  });

  it('takes one token, all experts, a single expert, and repeats choices given to it', () => {
    using all = made('shared-v3', { experts: 3, topK: 3 });
    expect([...read(all, waves(1)).experts].sort()).toEqual([0, 1, 2]);
    using one = made('shared-v3', { experts: 1, topK: 1 });
    expect(read(one, waves(2)).weights).toEqual([1, 1]);
    pass(all, waves(1), { training: false }, (_, __, given) => {
      const replayed = tensor(Int32Array.from([2, 0, 1]), [1, 3]);
      const x = tensor(waves(1), [1, 5], { dtype: 'f64' });
      const routing = all.route(x, { ...given, replayed });
      expect('experts' in routing && routing.experts.toArray()).toEqual([2, 0, 1]);
    });
  });

  it('refuses what it does not have', () => {
    let code: string | undefined;
    try {
      made('shared-v3', { experts: 4, topK: 2, shared: false });
    } catch (error) {
      code = codeOf(error);
    }
    expect(code).toBe('ERR_LIBMOE_CONFIG');
    expect(() => made('shared-v3', { experts: 4, topK: 2 }, { activationAfterTopK: true })).toThrow(
      /unknown key/,
    );
  });
});
