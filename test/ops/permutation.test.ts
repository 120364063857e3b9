import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { codeOf } from '../../ts/native/index.ts';
import { defaultDevice, scope, setThreads, synchronise, tensor, threads } from '../../ts/tensor/index.ts';
import { type DispatchOptions, type DropPolicy, dispatchPlan } from '../../ts/tensor/permutation.ts';

interface Case {
  tokens: number;
  k: number;
  experts: number;
  ids: number[];
  weights: number[];
  capacity: number | number[] | undefined;
  order: 'token' | 'slot';
}

const cases: fc.Arbitrary<Case> = fc
  .record({
    tokens: fc.integer({ min: 1, max: 40 }),
    k: fc.integer({ min: 1, max: 4 }),
    experts: fc.integer({ min: 1, max: 9 }),
  })
  .chain(({ tokens, k, experts }) =>
    fc.record({
      tokens: fc.constant(tokens),
      k: fc.constant(k),
      experts: fc.constant(experts),
      ids: fc.array(fc.integer({ min: -1, max: experts - 1 }), {
        minLength: tokens * k,
        maxLength: tokens * k,
      }),
      // Few distinct values, so that ties are common; signed.
      weights: fc.array(
        fc.integer({ min: -4, max: 4 }).map((x) => x / 4),
        { minLength: tokens * k, maxLength: tokens * k },
      ),
      capacity: fc.oneof(
        fc.constant(undefined),
        fc.integer({ min: 0, max: 12 }),
        fc.array(fc.integer({ min: 0, max: 12 }), { minLength: experts, maxLength: experts }),
      ),
      order: fc.constantFrom('token' as const, 'slot' as const),
    }),
  );

function run(c: Case, policy: DropPolicy, seed = 0, onDevice = false) {
  return scope(() => {
    const { capacity } = c;
    const plan = dispatchPlan(tensor(Int32Array.from(c.ids), [c.tokens, c.k]), {
      experts: c.experts,
      capacity: onDevice ? tensor(Int32Array.from([capacity ?? []].flat())) : capacity,
      dropPolicy: policy,
      order: c.order,
      weights: tensor(c.weights, [c.tokens, c.k]),
      seed,
    });
    return {
      rows: plan.rows.toArray(),
      offsets: plan.offsets.toArray(),
      inverse: plan.inverse.toArray(),
      dropped: plan.dropped.toArray(),
      kept: plan.kept(),
    };
  });
}

const limitOf = (c: Case, e: number): number =>
  c.capacity === undefined
    ? Number.POSITIVE_INFINITY
    : typeof c.capacity === 'number'
      ? c.capacity
      : c.capacity[e]!;

/** The kept slots of every expert by sorting all its candidates; `rank` is compared element by element. */
function naive(c: Case, rank: (slot: number) => number[]): number[][] {
  return Array.from({ length: c.experts }, (_, e) => {
    const mine = c.ids.flatMap((id, slot) => (id === e ? [slot] : []));
    const order = mine.map((slot) => [...rank(slot), slot]);
    order.sort((a, b) => {
      const i = a.findIndex((x, j) => x !== b[j]);
      return i < 0 ? 0 : a[i]! - b[i]!;
    });
    return order
      .slice(0, limitOf(c, e))
      .map((key) => key.at(-1)!)
      .sort((a, b) => a - b);
  });
}

const keptOf = (r: ReturnType<typeof run>): number[][] =>
  r.offsets.slice(0, -1).map((begin, e) => r.rows.slice(begin, r.offsets[e + 1]));

const policies: DropPolicy[] = ['position', 'probability', 'random', 'batch-prioritised'];

describe('dispatchPlan', () => {
  it.each(policies)('%s: offsets, inverse, order and capacity hold for any input', (policy) => {
    fc.assert(
      fc.property(cases, (c) => {
        const r = run(c, policy);
        const chosen = c.ids.filter((id) => id >= 0).length;
        if (c.capacity !== undefined) expect(run(c, policy, 0, true)).toEqual(r);
        expect(r.kept).toBe(r.offsets.at(-1));
        expect(r.kept + r.dropped.reduce((a, b) => a + b, 0)).toBe(chosen);
        expect(r.rows.slice(r.kept).every((slot) => slot === -1)).toBe(true);
        expect(r.rows.slice(0, r.kept).map((slot) => r.inverse[slot])).toEqual(
          Array.from({ length: r.kept }, (_, row) => row),
        );
        expect(r.inverse.filter((row) => row >= 0).length).toBe(r.kept);
        keptOf(r).forEach((slots, e) => {
          const wanted = c.ids.filter((id) => id === e).length;
          expect(slots.length).toBe(Math.min(wanted, limitOf(c, e)));
          expect(slots.every((slot, i) => c.ids[slot] === e && (i === 0 || slots[i - 1]! < slot))).toBe(true);
        });
      }),
    );
  });

  it('position keeps the first in token or slot order', () => {
    fc.assert(
      fc.property(cases, (c) => {
        const expected = naive(c, (slot) => (c.order === 'slot' ? [slot % c.k] : []));
        expect(keptOf(run(c, 'position'))).toEqual(expected);
      }),
    );
  });

  it('probability keeps the largest |weight|, ties to the lower slot', () => {
    fc.assert(
      fc.property(cases, (c) => {
        expect(keptOf(run(c, 'probability'))).toEqual(naive(c, (slot) => [-Math.abs(c.weights[slot]!)]));
      }),
    );
  });

  it('batch-prioritised orders tokens by their top weight', () => {
    fc.assert(
      fc.property(cases, (c) => {
        const top = (token: number): number =>
          Math.max(
            0,
            ...Array.from({ length: c.k }, (_, j) => token * c.k + j).map((s) =>
              c.ids[s]! < 0 ? 0 : Math.abs(c.weights[s]!),
            ),
          );
        const expected = naive(c, (slot) => {
          const byWeight = -top(Math.floor(slot / c.k));
          return c.order === 'slot' ? [slot % c.k, byWeight] : [byWeight];
        });
        expect(keptOf(run(c, 'batch-prioritised'))).toEqual(expected);
      }),
    );
  });

  it('random follows the seed, and every slot has its chance', () => {
    const c: Case = {
      tokens: 60,
      k: 1,
      experts: 1,
      ids: new Array(60).fill(0),
      weights: new Array(60).fill(1),
      capacity: 20,
      order: 'token',
    };
    expect(keptOf(run(c, 'random', 5))).toEqual(keptOf(run(c, 'random', 5)));
    expect(keptOf(run(c, 'random', 5))).not.toEqual(keptOf(run(c, 'random', 6)));
    const times = new Array<number>(60).fill(0);
    for (let seed = 0; seed < 300; seed += 1)
      for (const slot of keptOf(run(c, 'random', seed))[0]!) times[slot]! += 1;
    // Binomial(300, 1/3): 100 with a standard deviation of 8.2.
    expect(Math.min(...times)).toBeGreaterThan(60);
    expect(Math.max(...times)).toBeLessThan(140);
  });

  it('is the same for any number of threads, over many chunks', () => {
    const tokens = 30_000;
    const ids = Array.from({ length: tokens * 2 }, (_, i) => ((i * 7919) % 67) - 1);
    const weights = ids.map((_, i) => ((i * 104729) % 1009) / 1009);
    const before = threads();
    try {
      for (const policy of policies) {
        const c: Case = { tokens, k: 2, experts: 66, ids, weights, capacity: 700, order: 'slot' };
        const results = [1, 2, 3].map((count) => {
          setThreads(count);
          return run(c, policy);
        });
        expect(results[1]).toEqual(results[0]);
        expect(results[2]).toEqual(results[0]);
      }
    } finally {
      setThreads(before);
    }
  });

  it('rejects what it cannot sort', () => {
    const attempt = (ids: number[], shape: number[], options: Partial<DispatchOptions>, weights?: number[]) =>
      scope(() => {
        try {
          dispatchPlan(tensor(Int32Array.from(ids), shape), {
            experts: 4,
            ...options,
            weights: weights && tensor(weights, shape),
          });
          synchronise(); // a device learns of bad values when it is waited for
          return 'accepted';
        } catch (error) {
          return `${codeOf(error)} ${(error as Error).message}`;
        }
      });
    const cpu = defaultDevice() === 'cpu';
    expect(attempt([0, 1, 4, 2], [2, 2], {})).toMatch(
      cpu
        ? /ERR_LIBMOE_ARGUMENT.*got 4 for choice 0 of token 1/
        : /ERR_LIBMOE_ARGUMENT.*from -1 to 3; the value at slot .* 2 is not/,
    );
    expect(attempt([0, -2], [1, 2], {})).toMatch(/ERR_LIBMOE_ARGUMENT.*(got -2| 1 is not)/);
    expect(attempt([], [0, 2], {})).toMatch(/ERR_LIBMOE_SHAPE.*at least one token/);
    expect(attempt([0], [1, 1], { experts: 0 })).toMatch(/ERR_LIBMOE_ARGUMENT/);
    expect(attempt([0], [1, 1], { capacity: -1 })).toMatch(/ERR_LIBMOE_ARGUMENT.*-1/);
    expect(attempt([0], [1, 1], { capacity: 1.5 })).toMatch(/ERR_LIBMOE_ARGUMENT/);
    expect(attempt([0], [1, 1], { capacity: [1, 1] })).toMatch(/ERR_LIBMOE_SHAPE/);
    expect(attempt([0], [1, 1], { capacity: 1, dropPolicy: 'probability' })).toMatch(
      /ERR_LIBMOE_ARGUMENT.*weights/,
    );
    expect(attempt([0], [1, 1], { dropPolicy: 'nearest' as DropPolicy })).toMatch(
      /ERR_LIBMOE_ARGUMENT.*position/,
    );
    expect(attempt([0, 0], [2, 1], { capacity: 1, dropPolicy: 'probability' }, [1, Number.NaN])).toMatch(
      cpu ? /ERR_LIBMOE_NOT_FINITE.*token 1/ : /ERR_LIBMOE_NOT_FINITE.*slot .* 1/,
    );
    expect(attempt([0, 0], [2, 1], { capacity: 0 })).toBe('accepted');
  });
});
