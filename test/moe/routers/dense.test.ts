import { describe, expect, it } from 'vitest';
import { tensor } from '../../../ts/tensor/index.ts';
import { goldenLogits, oneHot, routerWith } from '../golden-logits.ts';
import { checkGradients } from './gradients.ts';
import { best, near, rowsOf, softmaxOf, waves } from './plain-numbers.ts';
import { made, read } from './routed.ts';

describe('dense', () => {
  const place = { experts: 6, topK: 2 };

  it('weighs all experts by the softmax', () => {
    using router = routerWith('dense', goldenLogits(6), place);
    const { experts, weights, losses } = read(router, () => oneHot(6));
    const p = rowsOf(goldenLogits(6), 6).map(softmaxOf);
    expect(experts).toEqual(p.flatMap((row) => best(row, 6)));
    near(
      weights,
      experts.map((e, slot) => p[Math.floor(slot / 6)]![e]!),
    );
    expect(losses).toEqual({});
  });

  it('has the gradients, of losses that are asked for too', () => {
    using sequenceOffsets = tensor(Int32Array.from([0, 4, 7]));
    for (const balance of ['none', 'switch', 'global']) {
      using router = made('dense', place, { balance, zCoefficient: 0.1, init: { std: 0.5 } });
      checkGradients(router, waves(7), { sequenceOffsets });
    }
  });

  it('takes one token and a single expert', () => {
    using all = made('dense', { experts: 3, topK: 3 });
    expect(read(all, waves(1)).weights.reduce((a, w) => a + w, 0)).toBeCloseTo(1, 12);
    using one = made('dense', { experts: 1, topK: 1 });
    expect(read(one, waves(2)).weights).toEqual([1, 1]);
  });

  it('refuses what it does not have', () => {
    expect(() => made('dense', { ...place, compat: 'original' })).toThrow(/no compat "original"/);
    expect(() => made('dense', place, { expertDropout: 0.1 })).toThrow(/unknown key/);
  });
});
