import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { codeOf } from '../../ts/native/index.ts';
import { type GateOptions, gate } from '../../ts/tensor/gating.ts';
import {
  defaultDevice,
  record,
  scope,
  setThreads,
  synchronise,
  type Tensor,
  tensor,
  threads,
} from '../../ts/tensor/index.ts';

/** The logits behind the golden numbers of LibMoE's routers: [tokens, experts]. */
const golden = (experts: number, tokens = 6, shift = 0): number[] =>
  Array.from({ length: tokens * experts }, (_, n) => {
    const t = Math.floor(n / experts);
    const i = n % experts;
    return 2 * Math.sin(1.3 * t + 0.7 * i + 0.1 * t * i + shift);
  });

interface Expected {
  experts: number[];
  weights: number[];
  lse: number[];
  sums: number[];
  probabilities: number[];
  entropy: number[];
}

type PlainOptions = Omit<GateOptions, 'selectionBias' | 'tokenMask' | 'sequenceOffsets'> & {
  bias?: number[];
  mask?: boolean[];
  offsets?: number[];
};

/** The same as the native operation, token by token, in the most direct form. */
function naive(logits: number[], experts: number, o: PlainOptions): Expected {
  const tokens = logits.length / experts;
  const r: Expected = { experts: [], weights: [], lse: [], sums: [], probabilities: [], entropy: [] };
  const offsets = o.offsets ?? [0, tokens];
  r.sums = new Array<number>((offsets.length - 1) * experts).fill(0);
  for (let t = 0; t < tokens; t += 1) {
    const row = logits.slice(t * experts, (t + 1) * experts);
    if (o.mask && !o.mask[t]) {
      r.experts.push(...new Array<number>(o.topK).fill(-1));
      r.weights.push(...new Array<number>(o.topK).fill(0));
      r.lse.push(0);
      r.entropy.push(0);
      r.probabilities.push(...row.map(() => 0));
      continue;
    }
    const lse = Math.log(row.reduce((a, x) => a + Math.exp(x), 0));
    const p = row.map((x) => Math.exp(x - lse));
    const s = row.map((x) => 1 / (1 + Math.exp(-x)));
    const score = o.score === 'sigmoid' ? s : p;
    let value = score.map((x, i) => x + (o.bias?.[i] ?? 0));
    if (o.groups) {
      const size = experts / o.groups.count;
      const worth = Array.from({ length: o.groups.count }, (_, g) =>
        value
          .slice(g * size, (g + 1) * size)
          .sort((a, b) => b - a)
          .slice(0, o.groups!.top ?? 2)
          .reduce((a, b) => a + b, 0),
      );
      const best = worth.map((w, g) => ({ w, g })).sort((a, b) => b.w - a.w || a.g - b.g);
      const kept = new Set(best.slice(0, o.groups.kept).map(({ g }) => g));
      value = value.map((v, i) => (kept.has(Math.floor(i / size)) ? v : Number.NEGATIVE_INFINITY));
    }
    const chosen = value
      .map((v, i) => ({ v, i }))
      .sort((a, b) => b.v - a.v || a.i - b.i)
      .slice(0, o.topK)
      .map(({ i }) => i);
    let w = chosen.map((i) => score[i]!);
    const rule = o.weights ?? 'renormalise';
    if (rule === 'renormalise') {
      const sum = w.reduce((a, b) => a + b, 0) + (o.epsilon ?? 0);
      w = w.map((x) => x / sum);
    } else if (rule === 'activation' && o.score !== 'sigmoid') {
      const sum = chosen.reduce((a, i) => a + Math.exp(row[i]!), 0);
      w = chosen.map((i) => Math.exp(row[i]!) / sum);
    }
    const total = s.reduce((a, b) => a + b, 0);
    const q =
      o.probability === 'sigmoid' ? s : o.probability === 'normalised-sigmoid' ? s.map((x) => x / total) : p;
    const sequence = offsets.findLastIndex(
      (begin, i) => begin <= t && i < offsets.length - 1 && offsets[i + 1]! > t,
    );
    q.forEach((x, i) => {
      r.sums[sequence * experts + i]! += x;
    });
    r.experts.push(...chosen);
    r.weights.push(...w);
    r.lse.push(lse);
    r.probabilities.push(...q);
    r.entropy.push(-p.reduce((a, x) => a + x * Math.log(x), 0));
  }
  return r;
}

function options(o: PlainOptions, dtype: 'f32' | 'f64'): GateOptions {
  const { bias, mask, offsets, ...rest } = o;
  return {
    ...rest,
    selectionBias: bias && tensor(bias, [bias.length], { dtype }),
    tokenMask: mask && tensor(mask.map(Number), [mask.length], { dtype: 'bool' }),
    sequenceOffsets: offsets && tensor(Int32Array.from(offsets)),
  };
}

// Logits on a grid of 1/64, off its centre, and biases on one of 1/1024: exact in f32, ties are real ties, and no other scores (or pairs like
// σ(x) + σ(−x)) tie by rounding, as two biases do that are neighbouring doubles.
const variants: fc.Arbitrary<{ logits: number[]; experts: number; o: PlainOptions }> = fc
  .record({
    tokens: fc.oneof(fc.integer({ min: 1, max: 9 }), fc.integer({ min: 60, max: 70 })),
    groups: fc.constantFrom(1, 1, 2, 4),
    size: fc.integer({ min: 1, max: 20 }),
  })
  .chain(({ tokens, groups, size }) => {
    const experts = groups * size;
    return fc
      .record({
        logits: fc.array(
          fc.integer({ min: -384, max: 384 }).map((x) => x / 64 + 1 / 256),
          {
            minLength: tokens * experts,
            maxLength: tokens * experts,
          },
        ),
        topK: fc.integer({ min: 1, max: Math.min(8, size) }),
        score: fc.constantFrom('softmax' as const, 'sigmoid' as const),
        weights: fc.constantFrom('scores' as const, 'renormalise' as const, 'activation' as const),
        epsilon: fc.constantFrom(0, 1e-20, 0.1),
        probability: fc.constantFrom('softmax' as const, 'sigmoid' as const, 'normalised-sigmoid' as const),
        bias: fc.option(
          fc.array(
            fc.integer({ min: -1000, max: 1000 }).map((x) => x / 1024),
            { minLength: experts, maxLength: experts },
          ),
          { nil: undefined },
        ),
        mask: fc.option(fc.array(fc.boolean(), { minLength: tokens, maxLength: tokens }), { nil: undefined }),
        cut: fc.option(fc.array(fc.integer({ min: 0, max: tokens }), { maxLength: 3 }), { nil: undefined }),
        kept: fc.integer({ min: 1, max: groups }),
      })
      .map(({ logits, cut, kept, bias, mask, ...o }) => ({
        logits,
        experts,
        o: {
          ...o,
          ...(bias && { bias }),
          ...(mask && { mask }),
          ...(cut && { offsets: [0, ...cut.sort((a, b) => a - b), tokens] }),
          ...(groups > 1 && { groups: { count: groups, kept, top: 2 } }),
        } as PlainOptions,
      }));
  });

const close = (actual: number[], expected: number[], tolerance: number) => {
  expect(actual.length).toBe(expected.length);
  actual.forEach((x, i) => {
    if (Math.abs(x - expected[i]!) > tolerance * Math.max(1, Math.abs(expected[i]!)))
      expect(x, `element ${i}`).toBe(expected[i]);
  });
};

describe('gate', () => {
  it('gives the golden SMoE and σ-MoE choices and weights', () => {
    scope(() => {
      const logits = tensor(golden(6), [6, 6]);
      const soft = gate(logits, { topK: 3 });
      expect(soft.experts.toArray()).toEqual([2, 3, 1, 0, 1, 2, 5, 0, 4, 4, 3, 5, 2, 3, 1, 1, 2, 0]);
      const w = [0.436971, 0.342197, 0.220832, 0.487079, 0.398509, 0.114412, 0.54066, 0.352784, 0.106556];
      close(
        soft.weights.toArray(),
        [...w, 0.555343, 0.239507, 0.205151, 0.502572, 0.41129, 0.086138, 0.628719, 0.237315, 0.133966],
        1e-6,
      );
      const sigmoid = gate(logits, { topK: 3, score: 'sigmoid' });
      expect(sigmoid.experts.toArray()).toEqual(soft.experts.toArray());
      const s = [0.349609, 0.338155, 0.312236, 0.373162, 0.362913, 0.263925, 0.404218, 0.367292, 0.22849];
      close(
        sigmoid.weights.toArray(),
        [...s, 0.371112, 0.320619, 0.308269, 0.390309, 0.37837, 0.231321, 0.396397, 0.330129, 0.273474],
        1e-6,
      );
      expect(soft.counts.toArray()).toEqual([3, 4, 4, 3, 2, 2]);
      expect(soft.firstCounts.toArray()).toEqual([1, 1, 2, 0, 1, 1]);
      expect(soft.logSumExp.toArray().reduce((a, x) => a + x * x, 0) / 6).toBeCloseTo(6.836032, 5);
    });
  });

  it.each(['f64', 'f32'] as const)('agrees with a direct computation in %s for any options', (dtype) => {
    fc.assert(
      fc.property(variants, ({ logits, experts, o }) => {
        const rounded = dtype === 'f32' ? logits.map(Math.fround) : logits;
        const bias = dtype === 'f32' && o.bias ? o.bias.map(Math.fround) : o.bias;
        const plain = bias ? { ...o, bias } : o;
        const expected = naive(rounded, experts, plain);
        scope(() => {
          const x = tensor(rounded, [logits.length / experts, experts], { dtype });
          const g = gate(x, { ...options(plain, dtype), probabilities: true, entropy: true });
          // In f32 a rounding of the scores may swap near ties, then values differ too: only f64 is compared choice by choice.
          const tolerance = dtype === 'f64' ? 1e-12 : 2e-5;
          close(g.logSumExp.toArray(), expected.lse, tolerance);
          close(g.probabilities!.toArray(), expected.probabilities, tolerance);
          close(g.probabilitySums.toArray(), expected.sums, tolerance);
          close(g.entropy!.toArray(), expected.entropy, tolerance);
          if (dtype === 'f64') expect(g.experts.toArray()).toEqual(expected.experts);
          if (dtype === 'f64') close(g.weights.toArray(), expected.weights, tolerance);
          checkCounts(g, plain, experts);
        });
      }),
      { numRuns: 60 },
    );
  });

  function checkCounts(g: ReturnType<typeof gate>, o: PlainOptions, experts: number): void {
    const chosen = g.experts.toArray();
    const tokens = chosen.length / o.topK;
    const offsets = o.offsets ?? [0, tokens];
    const all = new Array<number>((offsets.length - 1) * experts).fill(0);
    const first = [...all];
    for (let s = 0; s + 1 < offsets.length; s += 1)
      for (let t = offsets[s]!; t < offsets[s + 1]!; t += 1)
        for (let j = 0; j < o.topK; j += 1) {
          const e = chosen[t * o.topK + j]!;
          if (e < 0) continue;
          all[s * experts + e]! += 1;
          if (j === 0) first[s * experts + e]! += 1;
        }
    expect(g.counts.toArray()).toEqual(all);
    expect(g.firstCounts.toArray()).toEqual(first);
    const summary = g.summary.toArray();
    const counted = summary.filter((_, i) => i % 5 === 0).reduce((a, b) => a + b, 0);
    expect(counted).toBe(o.mask ? o.mask.filter(Boolean).length : tokens);
  }

  it('has the gradient of its outputs (finite differences, f64)', () => {
    fc.assert(
      fc.property(variants, ({ logits, experts, o }) => {
        const tokens = logits.length / experts;
        const mixed = (n: number, salt: number) =>
          Array.from({ length: n }, (_, i) => Math.sin(1 + 2.3 * i + salt));
        /** A fixed linear form of every differentiable output. */
        const value = (x: number[], gradients?: (g: number[]) => void): number =>
          scope(() => {
            const leaf = tensor(x, [tokens, experts], { dtype: 'f64' });
            leaf.requiresGrad = gradients !== undefined;
            const g = gate(leaf, { ...options(o, 'f64'), probabilities: true, entropy: true });
            const parts: Tensor[] = [g.weights, g.logSumExp, g.probabilitySums, g.probabilities!, g.entropy!];
            const factors = parts.map((t, i) => mixed(t.size, i));
            if (gradients) {
              const total = tensor([0], [], { dtype: 'f64' });
              record({
                name: 'linear form',
                inputs: parts,
                outputs: [total],
                backward: () => parts.map((t, i) => tensor(factors[i]!, t.shape, { dtype: 'f64' })),
              });
              total.backward();
              gradients(leaf.grad!.toArray());
              leaf.grad!.dispose();
            }
            return parts.reduce(
              (sum, t, i) => sum + t.toArray().reduce((a, v, n) => a + v * factors[i]![n]!, 0),
              0,
            );
          });
        let analytic: number[] = [];
        value(logits, (g) => {
          analytic = g;
        });
        const base = naive(logits, experts, o).experts.join();
        const h = 1e-5;
        for (let probe = 0; probe < 6; probe += 1) {
          const at = (probe * 7919 + logits.length * 31) % logits.length;
          const moved = (by: number) => logits.map((x, i) => (i === at ? x + by : x));
          // Where the step changes a choice the function jumps: nothing to compare.
          if (
            naive(moved(h), experts, o).experts.join() !== base ||
            naive(moved(-h), experts, o).experts.join() !== base
          )
            continue;
          const numeric = (value(moved(h)) - value(moved(-h))) / (2 * h);
          expect(Math.abs(numeric - analytic[at]!)).toBeLessThan(1e-6 * Math.max(1, Math.abs(numeric)));
        }
      }),
      // The emulated device takes about a second for each.
      { numRuns: defaultDevice() === 'cpu' ? 30 : 8 },
    );
  });

  it('takes the lower index at ties, and leaves forbidden experts out', () => {
    scope(() => {
      const infinity = Number.POSITIVE_INFINITY;
      const logits = tensor([1, 1, 1, 1, 0, 2, -infinity, 2, -infinity, -infinity, 5, -infinity], [3, 4]);
      const g = gate(logits, { topK: 2, probabilities: true });
      expect(g.experts.toArray()).toEqual([0, 1, 1, 3, 2, -1]);
      expect(g.weights.toArray()).toEqual([0.5, 0.5, 0.5, 0.5, 1, 0]);
      expect(g.probabilities!.toArray().slice(8)).toEqual([0, 0, 1, 0]);
      expect(g.summary.toArray().every(Number.isFinite)).toBe(true);
      expect(
        gate(logits, { topK: 2, score: 'sigmoid', groups: { count: 2, kept: 1 } }).experts.toArray(),
      ).toEqual([0, 1, 1, 0, 2, -1]);
    });
  });

  it('keeps weights where single precision saturates', () => {
    scope(() => {
      const logits = tensor([30, 40, 35, -200, -300, -250], [2, 3]);
      const sigmoid = gate(logits, { topK: 2, score: 'sigmoid' });
      expect(sigmoid.experts.toArray()).toEqual([1, 2, 0, 2]);
      expect(sigmoid.weights.toArray()).toEqual([0.5, 0.5, 0.5, 0.5]);
      const biased = gate(logits, { topK: 2, selectionBias: tensor([5, -5, 5]) });
      expect(biased.experts.toArray()).toEqual([2, 0, 0, 2]);
      expect(biased.weights.toArray()[0]).toBeCloseTo(1 / (1 + Math.exp(-5)), 6);
    });
  });

  it('weighs given experts as it weighs its own choice', () => {
    scope(() => {
      const logits = tensor(golden(6), [6, 6]);
      const own = gate(logits, { topK: 3 });
      const again = gate(logits, { topK: 3, experts: own.experts });
      for (const key of [
        'experts',
        'weights',
        'counts',
        'firstCounts',
        'probabilitySums',
        'summary',
      ] as const)
        expect(again[key].toArray(), key).toEqual(own[key].toArray());
      const given = tensor(Int32Array.from([-1, 4, 0]), [1, 3]);
      const one = gate(tensor([1, 2, 3, 4, 2], [1, 5]), { topK: 3, experts: given });
      expect(one.weights.toArray()[0]).toBe(0);
      expect(one.weights.toArray()[1]).toBeCloseTo(1 / (1 + Math.exp(-1)), 6);
      expect(() => gate(tensor([1, 2], [1, 2]), { topK: 3, experts: given })).toThrow(/topK/);
      expect(() => {
        gate(tensor([1, 2, 3, 4], [1, 4]), { topK: 3, experts: given });
        synchronise(); // a device learns of it when it is waited for
      }).toThrow(
        defaultDevice() === 'cpu' ? /got 4 for token 0/ : /from -1 to 3; the value at token 0 is not/,
      );
    });
  });

  it('summarises entropy and margins', () => {
    scope(() => {
      const g = gate(tensor([Math.log(0.6), Math.log(0.3), Math.log(0.1)], [1, 3]), { topK: 2 });
      const [tokens, entropy, weightEntropy, weightMargin, margin] = g.summary.toArray();
      expect(tokens).toBe(1);
      expect(entropy).toBeCloseTo(-(0.6 * Math.log(0.6) + 0.3 * Math.log(0.3) + 0.1 * Math.log(0.1)), 6);
      expect(weightEntropy).toBeCloseTo(-((2 / 3) * Math.log(2 / 3) + (1 / 3) * Math.log(1 / 3)), 6);
      expect(weightMargin).toBeCloseTo(1 / 3, 6);
      expect(margin).toBeCloseTo(0.3, 6);
    });
  });

  it('has the same bits for any number of threads, and per token whatever surrounds it', () => {
    const logits = Array.from({ length: 1000 * 66 }, (_, i) => Math.sin(i * 1.7) * 3);
    const run = () =>
      scope(() => {
        const offsets = tensor(Int32Array.from([0, 333, 1000]));
        const g = gate(tensor(logits, [1000, 66]), { topK: 8, sequenceOffsets: offsets });
        return [g.experts, g.weights, g.probabilitySums, g.counts, g.summary].map((t) => t.toArray());
      });
    const before = threads();
    try {
      setThreads(1);
      const one = run();
      setThreads(3);
      expect(run()).toEqual(one);
      scope(() => {
        const alone = gate(tensor(logits.slice(333 * 66), [667, 66]), { topK: 8 });
        expect(alone.weights.toArray()).toEqual(one[1]!.slice(333 * 8));
        expect(alone.probabilitySums.toArray()).toEqual(one[2]!.slice(66));
      });
    } finally {
      setThreads(before);
    }
  });

  it('rejects what it cannot gate', () => {
    const attempt = (data: number[], shape: number[], o: PlainOptions) =>
      scope(() => {
        try {
          gate(tensor(data, shape), options(o, 'f32'));
          synchronise();
          return 'accepted';
        } catch (error) {
          return `${codeOf(error)} ${(error as Error).message}`;
        }
      });
    expect(attempt([1, 2, Number.NaN, 4], [2, 2], { topK: 1 })).toMatch(/ERR_LIBMOE_NOT_FINITE.*token 1/);
    expect(attempt([1, Number.POSITIVE_INFINITY], [1, 2], { topK: 1 })).toMatch(
      /ERR_LIBMOE_NOT_FINITE.*token 0/,
    );
    expect(attempt([Number.NEGATIVE_INFINITY], [1, 1], { topK: 1 })).toMatch(/ERR_LIBMOE_NOT_FINITE/);
    expect(attempt([1, 2], [1, 2], { topK: 3 })).toMatch(/ERR_LIBMOE_ARGUMENT.*topK.*3/);
    expect(attempt([1, 2], [1, 2], { topK: 0 })).toMatch(/ERR_LIBMOE_ARGUMENT/);
    expect(attempt([], [0, 4], { topK: 1 })).toMatch(/ERR_LIBMOE_SHAPE/);
    expect(attempt([1, 2], [1, 2], { topK: 1, offsets: [0, 2] })).toMatch(/ERR_LIBMOE_ARGUMENT.*ascend/);
    expect(attempt([1, 2, 3], [1, 3], { topK: 1, groups: { count: 2, kept: 1 } })).toMatch(
      /ERR_LIBMOE_ARGUMENT.*divide/,
    );
    expect(attempt([1, 2, 3, 4], [1, 4], { topK: 3, groups: { count: 2, kept: 1 } })).toMatch(
      /ERR_LIBMOE_ARGUMENT.*kept groups/,
    );
    expect(attempt([1, 2], [1, 2], { topK: 1, score: 'relu' as 'softmax' })).toMatch(
      /ERR_LIBMOE_ARGUMENT.*softmax, sigmoid/,
    );
    expect(attempt([1, Number.NaN, 1, 2], [2, 2], { topK: 1, mask: [false, true] })).toBe('accepted');
  });

  it('refuses a selection bias that is NaN or +infinity; −infinity forbids an expert', () => {
    scope(() => {
      const logits = tensor([1, 2, 3], [1, 3]);
      const chosen = (bias: number[], extra: object = {}) =>
        gate(logits, { topK: 2, selectionBias: tensor(bias), ...extra }).experts.toArray();
      for (const bad of [Number.NaN, Number.POSITIVE_INFINITY]) {
        expect(() => chosen([0, bad, 0])).toThrow(/ERR_LIBMOE_NOT_FINITE: .*selection bias.* expert 1/);
        expect(() => chosen([0, 0, bad], { score: 'sigmoid', groups: { count: 3, kept: 2 } })).toThrow(
          /ERR_LIBMOE_NOT_FINITE: .*expert 2/,
        );
      }
      expect(chosen([0, 0, Number.NEGATIVE_INFINITY])).toEqual([1, 0]);
    });
  });
});
