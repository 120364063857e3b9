import { describe, expect, it } from 'vitest';
import { type GateOptions, gate, noisyLogits } from '../../ts/tensor/gating.ts';
import { cheapExperts } from '../../ts/tensor/grouped_ffn.ts';
import {
  defaultDevice,
  noGrad,
  parameter,
  record,
  scope,
  type Tensor,
  tensor,
} from '../../ts/tensor/index.ts';
import { type DropPolicy, dispatchPlan, dropPolicies } from '../../ts/tensor/permutation.ts';

// A device has a kernel for each range of expert counts in f32, and one for any count in f64: both must agree, at the borders of the ranges too.

/** Multiples of 1/64, exact in f32, no two of a row alike. */
function logitsOf(tokens: number, experts: number, salt = 0): number[] {
  const all: number[] = [];
  for (let t = 0; t < tokens; t += 1) {
    const order = Array.from({ length: experts }, (_, e) => e);
    let state = 1 + t * 7919 + salt;
    for (let i = experts - 1; i > 0; i -= 1) {
      state = (state * 48271) % 2147483647;
      const j = state % (i + 1);
      [order[i], order[j]] = [order[j]!, order[i]!];
    }
    all.push(...order.map((rank) => (rank - experts / 2) / 64));
  }
  return all;
}
const wave = (n: number): number[] => Array.from({ length: n }, (_, i) => Math.sin(1 + 2.3 * i));

function closeTo(actual: number[], expected: number[], tolerance: number, what: string): void {
  expect(actual.length, what).toBe(expected.length);
  actual.forEach((x, i) => {
    if (!(Math.abs(x - expected[i]!) <= tolerance * Math.max(1, Math.abs(expected[i]!))))
      expect(x, `${what}, element ${i}`).toBe(expected[i]);
  });
}

/** Everything that gating gives, and the gradient of a linear form of it. */
function gated(logits: number[], experts: number, dtype: 'f32' | 'f64', o: GateOptions, offsets: number[]) {
  return scope(() => {
    const x = parameter(tensor(logits, [logits.length / experts, experts], { dtype }));
    const g = gate(x, {
      ...o,
      selectionBias:
        o.score === 'sigmoid'
          ? tensor(
              logitsOf(1, experts, 5).map((v) => v / 16),
              [experts],
              { dtype },
            )
          : undefined,
      sequenceOffsets: tensor(Int32Array.from(offsets)),
      probabilities: true,
      entropy: true,
    });
    const parts = [g.weights, g.logSumExp, g.probabilitySums, g.probabilities!, g.entropy!];
    const form = tensor([0], [], { dtype });
    record({
      name: 'linear form',
      inputs: parts,
      outputs: [form],
      backward: () => parts.map((t) => tensor(wave(t.size), t.shape, { dtype })),
    });
    form.backward();
    const values = (t: Tensor | undefined) => t!.toArray();
    const out = {
      experts: values(g.experts),
      counts: [...values(g.counts), ...values(g.firstCounts)],
      weights: values(g.weights),
      lse: values(g.logSumExp),
      sums: values(g.probabilitySums),
      summary: values(g.summary),
      probabilities: values(g.probabilities),
      entropy: values(g.entropy),
      gradient: x.grad!.toArray(),
    };
    x.grad!.dispose();
    x.dispose();
    return out;
  });
}

describe('gating for every number of experts', () => {
  const sizes = [1, 7, 8, 9, 32, 33, 64, 66, 72, 73, 128, 129, 256, 257, 512, 1024];
  it.each(sizes)('%i experts: f32 agrees with f64, the choice with a sort', (experts) => {
    for (const tokens of [1, experts > 128 ? 5 : 70]) {
      const logits = logitsOf(tokens, experts);
      // The second sequence is empty where there is more than one token.
      const offsets = tokens === 1 ? [0, 1] : [0, 3, 3, tokens];
      const groups = experts % 8 === 0 && experts >= 64 ? { count: 8, kept: 3 } : undefined;
      const most = experts > 72 ? 20 : experts;
      for (const o of [
        { topK: Math.min(8, experts) },
        { topK: most, weights: 'scores' as const, probability: 'normalised-sigmoid' as const },
        { topK: Math.min(6, experts), score: 'sigmoid' as const, groups },
      ]) {
        const narrow = gated(logits, experts, 'f32', o, offsets);
        const wide = gated(logits, experts, 'f64', o, offsets);
        expect(narrow.experts).toEqual(wide.experts);
        expect(narrow.counts).toEqual(wide.counts);
        if (!('score' in o)) {
          const sorted = Array.from({ length: tokens }, (_, t) => {
            const row = logits.slice(t * experts, (t + 1) * experts);
            return row
              .map((_, e) => e)
              .sort((a, b) => row[b]! - row[a]!)
              .slice(0, o.topK);
          });
          expect(narrow.experts).toEqual(sorted.flat());
        }
        for (const key of [
          'weights',
          'lse',
          'sums',
          'summary',
          'probabilities',
          'entropy',
          'gradient',
        ] as const)
          closeTo(narrow[key], wide[key], 3e-5, key);
      }
    }
  });

  // Their counts alone are 240 KB for a block: more than any card's shared memory.
  it('30000 experts, in groups too', () => {
    const [tokens, experts] = [3, 30_000];
    const logits = logitsOf(tokens, experts).map((v) => v / 64);
    for (const o of [{ topK: 5 }, { topK: 4, score: 'sigmoid' as const, groups: { count: 100, kept: 60 } }]) {
      const narrow = gated(logits, experts, 'f32', o, [0, 1, tokens]);
      const wide = gated(logits, experts, 'f64', o, [0, 1, tokens]);
      expect(narrow.experts).toEqual(wide.experts);
      const counts = Array(4 * experts).fill(0); // [sequence, expert], then of first choices
      narrow.experts.forEach((e, slot) => {
        const sequence = slot < o.topK ? 0 : 1;
        counts[sequence * experts + e] += 1;
        if (slot % o.topK === 0) counts[(2 + sequence) * experts + e] += 1;
      });
      for (const found of [narrow.counts, wide.counts])
        expect(found.findIndex((n, i) => n !== counts[i])).toBe(-1);
      for (const key of ['weights', 'lse', 'sums', 'summary', 'gradient'] as const)
        closeTo(narrow[key], wide[key], 3e-5, key);
      if (!('score' in o))
        for (let t = 0; t < tokens; t += 1) {
          const row = logits.slice(t * experts, (t + 1) * experts);
          const best = row.indexOf(Math.max(...row));
          expect(narrow.experts[t * o.topK]).toBe(best);
        }
    }
  });

  it.each([2, 7, 66, 200])('%i experts: noisy logits agree in f32 and f64', (experts) => {
    const tokens = 67;
    const run = (dtype: 'f32' | 'f64') =>
      scope(() => {
        const x = parameter(tensor(logitsOf(tokens, 2 * experts), [tokens, 2 * experts], { dtype }));
        const noise = tensor(wave(tokens * experts).map(Math.fround), [tokens, experts], { dtype });
        const { logits, load } = noisyLogits(x, noise, { topK: Math.min(3, experts - 1) });
        load.backward(tensor(wave(experts), [experts], { dtype }));
        const out = [logits.toArray(), load.toArray(), x.grad!.toArray()];
        x.grad!.dispose();
        x.dispose();
        return out;
      });
    const [narrow, wide] = [run('f32'), run('f64')];
    narrow.forEach((values, i) => {
      closeTo(values, wide[i]!, 2e-3, `output ${i}`);
    });
  });
});

/** The plan in the most direct form. */
function naivePlan(ids: number[], experts: number, keep: (e: number, slots: number[]) => number[]) {
  const rows: number[] = [];
  const offsets = [0];
  const dropped: number[] = [];
  const inverse = ids.map(() => -1);
  for (let e = 0; e < experts; e += 1) {
    const slots = ids.flatMap((id, slot) => (id === e ? [slot] : []));
    const kept = keep(e, slots).sort((a, b) => a - b);
    for (const slot of kept) {
      inverse[slot] = rows.length;
      rows.push(slot);
    }
    dropped.push(slots.length - kept.length);
    offsets.push(rows.length);
  }
  while (rows.length < ids.length) rows.push(-1);
  return { rows, offsets, inverse, dropped };
}

describe('plans for every number of experts', () => {
  const made = (
    ids: number[],
    k: number,
    experts: number,
    more: { capacity?: number; dropPolicy?: DropPolicy; weights?: number[]; order?: 'slot' } = {},
  ) =>
    scope(() => {
      const tokens = ids.length / k;
      const plan = dispatchPlan(tensor(Int32Array.from(ids), [tokens, k]), {
        ...more,
        experts,
        weights: more.weights && tensor(more.weights, [tokens, k], { dtype: 'f64' }),
      });
      return {
        rows: plan.rows.toArray(),
        offsets: plan.offsets.toArray(),
        inverse: plan.inverse.toArray(),
        dropped: plan.dropped.toArray(),
      };
    });

  it.each([1, 7, 64, 66, 257, 1024, 5000])('%i experts, some of them empty', (experts) => {
    for (const [tokens, k] of [
      [1, 1],
      [1, Math.min(experts, 1024)], // one token takes all
      [700, 4], // several chunks
    ] as const) {
      const ids = Array.from({ length: tokens * k }, (_, i) =>
        tokens === 1 ? i : i % 13 === 0 ? -1 : (((i * 7919) % 4801) * 2) % experts,
      );
      expect(made(ids, k, experts)).toEqual(naivePlan(ids, experts, (_, slots) => slots));
      const capacity = 2;
      expect(made(ids, k, experts, { capacity })).toEqual(
        naivePlan(ids, experts, (_, slots) => slots.slice(0, capacity)),
      );
    }
  });

  it('every policy on one expert that has all slots, ties among the last', () => {
    const tokens = 900;
    const k = 2;
    const ids = Array.from({ length: tokens * k }, (_, i) => (i % 17 === 0 ? 0 : 2));
    const weights = ids.map((_, i) => (((i * 31) % 7) - 3) / 4);
    const capacity = 611;
    const top = (slot: number) =>
      Math.max(...[0, 1].map((j) => Math.abs(weights[Math.floor(slot / k) * k + j]!)));
    for (const dropPolicy of dropPolicies) {
      if (dropPolicy === 'random') continue; // follows a hash: that of the CPU, test/ops/permutation.test.ts
      const worth: Record<string, (slot: number) => number[]> = {
        position: (slot) => [slot % k],
        probability: (slot) => [-Math.abs(weights[slot]!)],
        'batch-prioritised': (slot) => [slot % k, -top(slot)],
      };
      const key = worth[dropPolicy]!;
      const expected = naivePlan(ids, 4, (_, slots) =>
        [...slots]
          .sort((a, b) => {
            const [x, y] = [key(a), key(b)];
            const at = x.findIndex((v, i) => v !== y[i]);
            return at < 0 ? a - b : x[at]! - y[at]!;
          })
          .slice(0, capacity),
      );
      expect(made(ids, k, 4, { capacity, dropPolicy, weights, order: 'slot' }), dropPolicy).toEqual(expected);
    }
  });

  it('random drops follow the same hash on every device', () => {
    // From the CPU: slots of 24 that stay with seed 0 and a capacity of 6.
    const kept = made(new Array<number>(24).fill(0), 1, 1, { capacity: 6, dropPolicy: 'random' });
    expect(kept.rows.slice(0, 6)).toEqual(keptBySeed0);
  });
});

/** What `random` keeps of 24 slots with seed 0 and a capacity of 6, on the CPU. */
const keptBySeed0 = [2, 8, 13, 14, 18, 20];

describe('cheap experts on rows of whole packs', () => {
  it.each(['f32', 'bf16'] as const)('agree with f64 in %s', (dtype) => {
    const [tokens, d, k] = [70, 64, 3];
    const choices = Array.from({ length: tokens * k }, (_, i) => ((i * i + (i >> 2)) % 6) - 1);
    const round = (values: number[]) => values.map((v) => Math.round(v * 16) / 16); // exact in bf16
    const run = (as: 'f32' | 'bf16' | 'f64') =>
      scope(() => {
        const wide = as === 'bf16' ? 'f32' : as;
        const x = parameter(tensor(round(wave(tokens * d)), [tokens, d], { dtype: as }));
        const weights = parameter(tensor(round(wave(tokens * k)), [tokens, k], { dtype: wide }));
        const mix = parameter(tensor(round(wave(tokens * 4)), [tokens, 4], { dtype: wide }));
        const vectors = parameter(tensor(round(wave(2 * d)), [2, d], { dtype: wide }));
        const out = cheapExperts(x, {
          choices: tensor(Int32Array.from(choices), [tokens, k]),
          weights,
          first: 2,
          copies: 1,
          constants: { mix, vectors },
        });
        out.backward(tensor(round(wave(tokens * d).reverse()), [tokens, d], { dtype: as }));
        const results = [noGrad(() => out.toArray())];
        for (const t of [x, weights, mix, vectors]) {
          results.push(t.grad!.toArray());
          t.grad!.dispose();
          t.dispose();
        }
        return results;
      });
    const [narrow, wide] = [run(dtype), run('f64')];
    narrow.forEach((values, i) => {
      closeTo(
        values,
        wide[i]!,
        dtype === 'f32' ? 1e-5 : i < 2 ? 1e-2 : 1e-4,
        `${defaultDevice()}: output ${i}`,
      );
    });
  });
});
