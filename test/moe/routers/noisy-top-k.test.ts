import { describe, expect, it } from 'vitest';
import { ForwardContext, type Router } from '../../../ts/moe/index.ts';
import { noGrad, scope, type Tensor, tensor } from '../../../ts/tensor/index.ts';
import { checkEdges, checkRefusal } from './edges.ts';
import { checkGradients } from './gradients.ts';
import { best, dot, near, rowsOf, softmaxRouting, waves } from './plain-numbers.ts';
import { made, read } from './routed.ts';

type Noisy = Router & { weight: Tensor; noise: Tensor };

const place = { width: 6, experts: 5, topK: 2 };
const x = waves(9, 6, 1);

/** The normal distribution function, by Simpson's rule. */
function phi(z: number): number {
  const steps = 2000;
  const h = z / steps;
  const density = (t: number) => Math.exp((-t * t) / 2) / Math.sqrt(2 * Math.PI);
  let area = density(0) + density(z);
  for (let i = 1; i < steps; i += 1) area += (i % 2 === 1 ? 4 : 2) * density(i * h);
  return 0.5 + (area * h) / 3;
}

const variation = (values: readonly number[]): number => {
  const mean = values.reduce((a, v) => a + v, 0) / values.length;
  return values.reduce((a, v) => a + (v - mean) ** 2, 0) / values.length / mean ** 2;
};
const products = (matrix: Tensor): number[][] =>
  rowsOf(x, 6).map((t) => rowsOf(matrix.toArray(), 6).map((row) => dot(row, t)));

function noisyRouter(options: object = {}): Noisy {
  const router = made<Noisy>('noisy-top-k', place, { init: { std: 0.5 }, ...options });
  router.noise.write(waves(5, 6, 5).map((v) => 0.4 * v));
  return router;
}

describe('noisy-top-k', () => {
  it('is a softmax over the k best logits outside training, without losses', () => {
    using router = noisyRouter();
    const want = softmaxRouting(products(router.weight), 2);
    const got = read(router, x, { training: false });
    expect(got.experts).toEqual(want.experts);
    near(got.weights, want.weights);
    expect(got.losses).toEqual({});
  });

  it('adds noise of the learnt deviation in training', () => {
    using router = noisyRouter();
    const clean = products(router.weight).flat();
    const deviations = products(router.noise)
      .flat()
      .map((v) => Math.log1p(Math.exp(v)) + 0.01);
    const samples: number[] = [];
    for (let step = 0; step < 60; step += 1)
      read(router, x, { step }).logits.forEach((l, i) => {
        samples.push((l - clean[i]!) / deviations[i]!);
      });
    // Standard normal, from 2700 numbers.
    expect(Math.abs(samples.reduce((a, v) => a + v, 0) / samples.length)).toBeLessThan(0.08);
    expect(Math.sqrt(samples.reduce((a, v) => a + v * v, 0) / samples.length)).toBeCloseTo(1, 1);
    expect(samples.filter((v) => Math.abs(v) < 1).length / samples.length).toBeCloseTo(0.683, 1);
    expect(read(router, x, { step: 4 })).toEqual(read(router, x, { step: 4 }));
  });

  it('measures importance and expected load', () => {
    using router = noisyRouter();
    const got = read(router, x);
    const noisy = rowsOf(got.logits, 5);
    const want = softmaxRouting(noisy, 2);
    expect(got.experts).toEqual(want.experts);
    near(got.weights, want.weights);
    const clean = products(router.weight);
    const deviations = products(router.noise).map((row) => row.map((v) => Math.log1p(Math.exp(v)) + 0.01));
    const importance = [0, 1, 2, 3, 4].map((e) =>
      want.weights.reduce((a, w, i) => (want.experts[i] === e ? a + w : a), 0),
    );
    const load = [0, 1, 2, 3, 4].map((e) =>
      noisy.reduce((sum, row, t) => {
        const others = row.filter((_, i) => i !== e);
        const threshold = others[best(others, 2)[1]!]!;
        return sum + phi((clean[t]![e]! - threshold) / deviations[t]![e]!);
      }, 0),
    );
    expect(got.losses.importance).toBeCloseTo(variation(importance), 9);
    expect(got.losses.load).toBeCloseTo(variation(load), 7);
    expect(got.coefficients).toEqual({ importance: 0.1, load: 0.1 });
  });

  it('ignores masked tokens, and sums over ranks', () => {
    using router = noisyRouter();
    const values = (count: number, masked: boolean) =>
      noGrad(() =>
        scope(() => {
          const tokenMask = masked
            ? tensor(
                Array.from({ length: 9 }, (_, t) => (t < count ? 1 : 0)),
                [9],
                { dtype: 'bool' },
              )
            : undefined;
          const seen = masked ? x : x.slice(0, count * 6);
          return Object.values(read(router, seen, { tokenMask }).losses);
        }),
      );
    near(values(5, true), values(5, false));
  });

  it('may have the usual losses as well', () => {
    using router = noisyRouter({
      balance: 'standard',
      zCoefficient: 0.5,
      importanceCoefficient: 0,
      loadCoefficient: 0,
    });
    const got = read(router, x);
    expect(Object.keys(got.losses)).toEqual(['balance', 'routerZ']);
    expect(got.losses.balance).toBeCloseTo(softmaxRouting(rowsOf(got.logits, 5), 2).balance(2), 9);
  });

  it('has right gradients', () => {
    using sequenceOffsets = tensor(Int32Array.from([0, 4, 8]));
    for (const topK of [1, 2, 5]) {
      using router = made<Noisy>(
        'noisy-top-k',
        { ...place, topK },
        {
          init: { std: 0.5 },
          importanceCoefficient: 1,
          loadCoefficient: 1,
          balance: 'global',
          zCoefficient: 0.2,
        },
      );
      router.noise.write(waves(5, 6, 5).map((v) => 0.4 * v));
      checkGradients(router, waves(8, 6, 1), { sequenceOffsets, seed: 3 });
    }
  });

  it('original starts at zero, without a floor of the noise', () => {
    using router = made<Noisy>('noisy-top-k', { ...place, compat: 'original' });
    expect(new Set(router.weight.toArray())).toEqual(new Set([0]));
    expect(router.start!(() => {}, 'weight')).toBeUndefined();
    using fixed = made<Noisy>('noisy-top-k', place);
    expect(new Set(fixed.weight.toArray()).size).toBeGreaterThan(20);
    expect(fixed.start!(() => {}, 'noise')).toBeUndefined();
    using context = new ForwardContext({ training: true });
    fixed.weight.write(new Array(30).fill(0));
    // The same noise with deviations ln 2 and ln 2 + 0.01.
    const [a, b] = [router, fixed].map((r) => read(r, x, { seed: context.seed }).logits);
    near(
      a!.map((v) => v / Math.LN2),
      b!.map((v) => v / (Math.LN2 + 0.01)),
    );
  });

  it('survives the edges, and refuses what it does not have', () => {
    for (const compat of ['fixed', 'original'] as const) checkEdges('noisy-top-k', {}, compat);
    checkRefusal('noisy-top-k', ['libmoe']);
  });
});
