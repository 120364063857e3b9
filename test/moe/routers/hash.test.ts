import { describe, expect, it } from 'vitest';
import { tensor } from '../../../ts/tensor/index.ts';
import { rowsOf, waves } from './plain-numbers.ts';
import { made, read } from './routed.ts';

describe('hash', () => {
  const place = { experts: 8, topK: 2 };
  const route = (router: ReturnType<typeof made>, ids: number[], options: object = {}) => {
    using tokenIds = tensor(Int32Array.from(ids));
    return read(router, waves(ids.length), { tokenIds, training: true, ...options });
  };

  it('sends equal ids to equal experts, whatever the token, its place and the step', () => {
    using router = made('hash', place);
    const first = rowsOf(route(router, [7, 3, 7, 9]).experts, 2);
    expect(first[0]).toEqual(first[2]);
    using again = made('hash', place);
    expect(rowsOf(route(again, [9, 7], { step: 5, seed: 3 }).experts, 2)).toEqual([first[3], first[0]]);
    expect(route(again, [1, 2]).weights).toEqual([0.5, 0.5, 0.5, 0.5]);
  });

  it('spreads ids evenly, in every layer differently', () => {
    const ids = Array.from({ length: 4000 }, (_, i) => i);
    using router = made('hash', place);
    const { experts, counts } = route(router, ids);
    for (const row of rowsOf(experts, 2)) expect(row[0]).not.toBe(row[1]);
    for (const n of counts!) expect(Math.abs(n - 1000)).toBeLessThan(130); // standard deviation 27
    const few = ids.slice(0, 50);
    using deeper = made('hash', { ...place, layer: 1, layers: 2 });
    expect(route(deeper, few).experts).not.toEqual(route(router, few).experts);
    using seeded = made('hash', place, { seed: 1 });
    expect(route(seeded, few).experts).not.toEqual(route(router, few).experts);
  });

  it('asks for token ids, one for each token', () => {
    using router = made('hash', place);
    expect(() => read(router, waves(2))).toThrow(/ERR_LIBMOE_ARGUMENT.*tokenIds/);
    using tokenIds = tensor(Int32Array.from([1, 2, 3]));
    expect(() => read(router, waves(2), { training: false, tokenIds })).toThrow(/ERR_LIBMOE_SHAPE/);
  });

  it('takes one token, all experts, a single expert, and leaves masked tokens out', () => {
    using all = made('hash', { experts: 3, topK: 3 });
    expect([...route(all, [5]).experts].sort()).toEqual([0, 1, 2]);
    using one = made('hash', { experts: 1, topK: 1 });
    expect(route(one, [4, 5])).toMatchObject({ experts: [0, 0], weights: [1, 1] });
    using tokenMask = tensor([0, 1], [2], { dtype: 'bool' });
    const masked = route(all, [5, 5], { tokenMask });
    expect(masked.experts.slice(0, 3)).toEqual([-1, -1, -1]);
    expect(masked.counts).toEqual([1, 1, 1]);
  });

  it('refuses what it does not have', () => {
    expect(() => made('hash', { ...place, compat: 'libmoe' })).toThrow(/no compat/);
  });
});
