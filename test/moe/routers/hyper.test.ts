import { describe, expect, it } from 'vitest';
import type { Router } from '../../../ts/moe/index.ts';
import { roundHalfEven } from '../../../ts/moe/routers/hyper.ts';
import { type Tensor, tensor } from '../../../ts/tensor/index.ts';
import { checkEdges } from './edges.ts';
import { checkGradients } from './gradients.ts';
import { dot, near, rowsOf, softmaxRouting, waves } from './plain-numbers.ts';
import { made, read } from './routed.ts';

type Hyper = Router & Record<'code' | 'inWeight' | 'inBias' | 'outWeight' | 'outBias', Tensor>;

const place = { width: 8, experts: 5, topK: 3 };
const x = waves(7, 8, 1);

describe('hyper', () => {
  it('makes matrix and bias of the code, and weighs by the softmax of the chosen logits', () => {
    using router = made<Hyper>('hyper', place, { std: 0.5, balance: 'standard', zCoefficient: 1 });
    router.inBias.write([0.3, -0.2]);
    router.outBias.write(waves(5, 9, 4));
    const code = router.code.toArray();
    const hidden = rowsOf(router.inWeight.toArray(), 8).map((row, i) =>
      Math.max(0, dot(row, code) + [0.3, -0.2][i]!),
    );
    const generated = rowsOf(router.outWeight.toArray(), 2).map(
      (row, i) => dot(row, hidden) + waves(5, 9, 4)[i]!,
    );
    const logits = rowsOf(x, 8).map((t) =>
      rowsOf(generated, 9).map((row) => dot(row.slice(0, 8), t) + row[8]!),
    );
    for (const training of [true, false]) {
      const got = read(router, x, { training });
      const want = softmaxRouting(logits, 3);
      near(got.logits, logits.flat());
      expect(got.experts).toEqual(want.experts);
      near(got.weights, want.weights);
      if (!training) continue;
      expect(got.losses.balance).toBeCloseTo(want.balance(3), 9);
      expect(got.losses.routerZ).toBeCloseTo(want.z, 9);
    }
  });

  it('trains the code alone; the hypernetwork is a buffer and in the state', () => {
    using router = made<Hyper>('hyper', place);
    expect([...router.namedParameters().keys()]).toEqual(['code']);
    expect([...router.stateDict().keys()]).toEqual(['code', 'inWeight', 'inBias', 'outWeight', 'outBias']);
    using other = made<Hyper>('hyper', { ...place, layer: 1 });
    expect(read(other, x).logits).not.toEqual(read(router, x).logits);
    // Loaded, it routes as the one it was saved from.
    other.loadStateDict(router.stateDict());
    expect(read(other, x, { training: false })).toEqual(read(router, x, { training: false }));
    expect(read(router, x).losses).toEqual({});
  });

  it('goes through its numbers of choices in training, and uses topK otherwise', () => {
    const counts = (compat: 'fixed' | 'libmoe' | 'original', options = {}) => {
      using router = made<Hyper>('hyper', { ...place, compat }, options);
      const at = (step: number, training = true) => read(router, x, { training, step, totalSteps: 8 }).slots;
      return [...[0, 1, 2, 3, 4, 6, 8, 9].map((step) => at(step)), at(0, false)];
    };
    expect(counts('fixed')).toEqual([1, 1, 1, 2, 2, 3, 3, 3, 3]);
    expect(counts('libmoe')).toEqual([1, 1, 1, 1, 1, 2, 2, 2, 3]);
    expect(counts('original')).toEqual([5, 5, 5, 4, 4, 3, 3, 3, 3]);
    expect(counts('fixed', { firstTopK: 4, lastTopK: 4 })).toEqual([4, 4, 4, 4, 4, 4, 4, 4, 3]);
    using router = made<Hyper>('hyper', place);
    expect(read(router, x, { step: 3 }).slots).toBe(3); // nobody knows how far that is
  });

  it('rounds halves to even', () => {
    expect([0.5, 1.5, 2.5, -0.5, -1.5, 1.2, 1.7].map(roundHalfEven)).toEqual([0, 2, 2, 0, -2, 1, 2]);
  });

  it('has right gradients', () => {
    using sequenceOffsets = tensor(Int32Array.from([0, 3, 6]));
    for (const balance of ['standard', 'global']) {
      using router = made<Hyper>('hyper', place, {
        std: 0.6,
        hidden: 6,
        balance,
        balanceCoefficient: 1,
        zCoefficient: 0.3,
      });
      checkGradients(router, waves(6, 8, 1), { sequenceOffsets, step: 3, totalSteps: 8 });
    }
  });

  it('survives the edges, and refuses what cannot be', () => {
    for (const compat of ['fixed', 'libmoe', 'original'] as const) checkEdges('hyper', {}, compat);
    expect(() => made('hyper', place, { lastTopK: 6 })).toThrow(/ERR_LIBMOE_CONFIG.*lastTopK.*at most 5/);
  });
});
