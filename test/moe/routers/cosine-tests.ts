import { expect, it } from 'vitest';
import type { CosineRouter } from '../../../ts/moe/routers/cosine-router.ts';
import { tensor } from '../../../ts/tensor/index.ts';
import { checkEdges } from './edges.ts';
import { checkGradients } from './gradients.ts';
import { dot, near, normOf, rowsOf, softmaxOf, softmaxRouting, waves } from './plain-numbers.ts';
import { made, read } from './routed.ts';

export const place = { width: 6, experts: 5, topK: 2 };
export const x = waves(7, 6, 1);

/** Cosines of every token with every row, with constants added to the norms. */
const cosines = (router: CosineRouter, plus = [0, 0]): number[][] =>
  rowsOf(x, 6).map((t) =>
    rowsOf(router.weight.toArray(), 6).map(
      (w) => dot(t, w) / ((normOf(t) + plus[0]!) * (normOf(w) + plus[1]!)),
    ),
  );

/** What both cosine routers promise; `plus`: the constants in the norms of tokens and of expert rows. */
export function cosineTests(name: string, plus: readonly number[]): void {
  it('fixed: the softmax of the cosines, the chosen divided by their sum', () => {
    using router = made<CosineRouter>(name, place, { zCoefficient: 0.1, temperature: 0.5 });
    const logits = cosines(router, [...plus]).map((row) => row.map((c) => c / 0.5));
    const want = softmaxRouting(logits, 2);
    const got = read(router, x);
    expect(got.experts).toEqual(want.experts);
    near(got.weights, want.weights);
    near(got.logits, logits.flat());
    expect(got.losses.balance).toBeCloseTo(want.balance(2), 9);
    expect(got.losses.routerZ).toBeCloseTo(want.z, 9);
    expect(router.bias).toBeUndefined();
  });

  it('libmoe: a bias beside the probabilities, a second softmax, first choices counted', () => {
    const options = { flavour: 'vision-language' };
    using router = made<CosineRouter>(name, { ...place, compat: 'libmoe' }, options);
    const bias = router.bias!.toArray();
    expect(Math.max(...bias.map(Math.abs))).toBeGreaterThan(0.01);
    const want = softmaxRouting(cosines(router, [...plus]), 2, bias);
    const got = read(router, x);
    expect(got.experts).toEqual(want.experts);
    near(got.weights, want.weights);
    expect(got.losses.balance).toBeCloseTo(want.balance(1), 9);
    expect(got.losses.routerZ).toBeCloseTo(want.z, 9);
    // The record tells the entropy of these weights, and that of p.
    const p = cosines(router, [...plus]).map(softmaxOf);
    const entropy = (rows: number[][]) =>
      rows.reduce((a, row) => a - row.reduce((s, v) => s + v * Math.log(v), 0), 0);
    near(got.summary.slice(0, 3), [7, entropy(p), entropy(rowsOf(want.weights, 2))]);
  });

  it('has right gradients', () => {
    using sequenceOffsets = tensor(Int32Array.from([0, 3, 6]));
    for (const compat of ['fixed', 'libmoe'] as const)
      for (const balance of ['standard', 'global', 'step']) {
        using router = made(
          name,
          { ...place, compat },
          { bias: true, balance, balanceCoefficient: 1, zCoefficient: 0.3, temperature: 0.4 },
        );
        checkGradients(router, waves(6, 6, 1), { sequenceOffsets });
      }
  });

  it('survives the edges', () => {
    for (const compat of ['fixed', 'libmoe'] as const) checkEdges(name, { bias: true }, compat);
  });

  it('starts from the model’s matrices; libmoe always as PyTorch’s Linear', () => {
    const values = (compat: 'fixed' | 'libmoe', options = {}) => {
      using router = made<CosineRouter>(name, { ...place, compat }, options);
      router.start((t) => t.write(new Array(t.size).fill(3)), 'weight')!(router.weight, {
        seed: 1,
        name: 'w',
      });
      return Math.max(...router.weight.toArray());
    };
    expect(values('fixed')).toBe(3);
    expect(values('libmoe')).toBeLessThan(1 / Math.sqrt(6));
    expect(values('libmoe', { init: { std: 1 } })).toBe(3);
  });
}
