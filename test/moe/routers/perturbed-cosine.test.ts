import { describe, expect, it } from 'vitest';
import type { CosineRouter } from '../../../ts/moe/routers/cosine-router.ts';
import { tensor } from '../../../ts/tensor/index.ts';
import { cosineTests, place, x } from './cosine-tests.ts';
import { checkEdges } from './edges.ts';
import { checkGradients } from './gradients.ts';
import { dot, near, normOf, rowsOf, softmaxRouting, waves } from './plain-numbers.ts';
import { made, read } from './routed.ts';

describe('perturbed-cosine', () => {
  cosineTests('perturbed-cosine', [0.1, 0.1]);

  it('may project first and has an intercept in its original form', () => {
    using router = made<CosineRouter>(
      'perturbed-cosine',
      { ...place, compat: 'original' },
      { projection: 3, tokenConstant: 0.2, expertConstant: 0.3, balanceCoefficient: 1 },
    );
    router.bias!.write([0.5, 0, -0.5, 0.2, 0]);
    const projection = rowsOf(router.projection!.toArray(), 6);
    const logits = rowsOf(x, 6).map((t) => {
      const u = projection.map((row) => dot(row, t));
      return rowsOf(router.weight.toArray(), 3).map(
        (w, i) => dot(u, w) / ((normOf(u) + 0.2) * (normOf(w) + 0.3)) + router.bias!.toArray()[i]!,
      );
    });
    const want = softmaxRouting(logits, 2);
    const got = read(router, x);
    expect(got.experts).toEqual(want.experts);
    near(got.weights, want.weights);
    using sequenceOffsets = tensor(Int32Array.from([0, 3, 6]));
    checkGradients(router, waves(6, 6, 1), { sequenceOffsets });
  });

  it('refuses what cannot be', () => {
    checkEdges('perturbed-cosine', { projection: 3 }, 'original');
    expect(() => made('perturbed-cosine', place, { tokenConstant: 0 })).toThrow(/ERR_LIBMOE_CONFIG/);
  });
});
