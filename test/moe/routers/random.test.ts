import { describe, expect, it } from 'vitest';
import { tensor } from '../../../ts/tensor/index.ts';
import { rowsOf, waves } from './plain-numbers.ts';
import { made, pass, read, tokensOf } from './routed.ts';

describe('random', () => {
  const place = { experts: 4, topK: 2 };
  const count = 6000;
  const x = waves(count);

  it('takes every pair of experts equally often, weights 1/topK', () => {
    using router = made('random', place);
    const { experts, weights, losses } = read(router, x);
    const pairs = new Map<string, number>();
    for (const row of rowsOf(experts, 2)) {
      expect(row[0]).not.toBe(row[1]);
      pairs.set(row.join(), (pairs.get(row.join()) ?? 0) + 1);
    }
    // 12 ordered pairs of 500 each, standard deviation 21.
    expect(pairs.size).toBe(12);
    for (const n of pairs.values()) expect(Math.abs(n - count / 12)).toBeLessThan(110);
    expect(weights.every((w) => w === 0.5)).toBe(true);
    expect(losses).toEqual({});
    expect(router.parameterCount()).toBe(0);
  });

  it('draws anew for every step and seed, and the same again when asked again', () => {
    using router = made('random', place);
    const at = (step: number, seed = 0) =>
      read(router, x.slice(0, 100), { step, seed, training: true }).experts;
    expect(at(1)).toEqual(at(1));
    expect(at(1)).not.toEqual(at(2));
    expect(at(1)).not.toEqual(at(1, 1));
  });

  it('leaves masked tokens out, and repeats choices given to it', () => {
    using router = made('random', place);
    using tokenMask = tensor([1, 0, 1], [3], { dtype: 'bool' });
    const got = read(router, waves(3), { training: false, tokenMask });
    expect(got.experts.slice(2, 4)).toEqual([-1, -1]);
    expect(got.counts!.reduce((a, c) => a + c, 0)).toBe(4);
    const same = () => tokensOf(waves(3));
    pass(router, same, { training: false }, (_, __, given) => {
      const replayed = tensor(Int32Array.from([0, 1, 2, 3, 1, 0]), [3, 2]);
      const routing = router.route(same(), { ...given, replayed });
      expect('experts' in routing && routing.experts.toArray()).toEqual([0, 1, 2, 3, 1, 0]);
    });
  });

  it('takes one token, all experts and a single expert', () => {
    using all = made('random', { experts: 3, topK: 3 });
    expect([...read(all, waves(1)).experts].sort()).toEqual([0, 1, 2]);
    using one = made('random', { experts: 1, topK: 1 });
    expect(read(one, waves(2))).toMatchObject({ experts: [0, 0], weights: [1, 1] });
  });

  it('refuses what it does not have', () => {
    expect(() => made('random', { ...place, compat: 'libmoe' })).toThrow(/no compat/);
    expect(() => made('random', place, { balance: 'switch' })).toThrow(/takes no balance/);
  });
});
