import { describe, expect, it } from 'vitest';
import { codeOf } from '../../ts/native/index.ts';
import { expertLists, gate, noisyLogits, take } from '../../ts/tensor/gating.ts';
import { cheapExperts } from '../../ts/tensor/grouped_ffn.ts';
import {
  defaultDevice,
  noGrad,
  parameter,
  scope,
  setThreads,
  synchronise,
  type Tensor,
  tensor,
  threads,
} from '../../ts/tensor/index.ts';
import { inverseNorms } from '../../ts/tensor/norm.ts';
import { cat, reshape } from '../../ts/tensor/shape.ts';
import { gradientCheck } from './gradient-check.ts';

const wave = (n: number, shift = 0): number[] =>
  Array.from({ length: n }, (_, i) => 1.5 * Math.sin(1.7 * i + 0.3 * shift) + 0.2 * Math.cos(5.1 * i * i));
const f64 = (values: readonly number[], shape: number[]): Tensor =>
  tensor([...values], shape, { dtype: 'f64' });
const leaf = (values: readonly number[], shape: number[]): Tensor =>
  tensor([...values], shape, { dtype: 'f64', requiresGrad: true });
const rows = (values: readonly number[], width: number): number[][] =>
  Array.from({ length: values.length / width }, (_, r) => values.slice(r * width, (r + 1) * width));
const sum = (values: readonly number[]): number => values.reduce((a, b) => a + b, 0);
const flat = (t: Tensor): Tensor => reshape(t, [t.size]);
const code = (fn: () => unknown): string | undefined => {
  try {
    noGrad(fn); // a graph of what failed later would stay
    synchronise(); // a device learns of bad values when it is waited for
    return undefined;
  } catch (error) {
    return codeOf(error);
  }
};

/** The error function by its series. */
function erf(x: number): number {
  let term = x;
  let total = x;
  for (let n = 1; n < 200; n += 1) {
    term *= -(x * x) / n;
    total += term / (2 * n + 1);
  }
  return (2 / Math.sqrt(Math.PI)) * total;
}

/** The same bits with one and with three threads. */
function sameOnThreads(run: () => number[][]): void {
  const before = threads();
  try {
    setThreads(1);
    const one = scope(run);
    setThreads(3);
    expect(scope(run)).toEqual(one);
  } finally {
    setThreads(before);
  }
}

describe('noisyLogits', () => {
  const tokens = 7;
  const experts = 5;
  const scores = wave(tokens * 2 * experts).map((v) => v / 2);
  const noise = wave(tokens * experts, 4);
  const mask = [1, 1, 0, 1, 1, 1, 0];

  it('adds noise of the raw deviations and expects loads as the formula says', () => {
    for (const [topK, masked] of [
      [1, false],
      [2, true],
      [4, false],
    ] as const)
      scope(() => {
        const tokenMask = masked ? tensor(mask, [tokens], { dtype: 'bool' }) : undefined;
        const got = noisyLogits(f64(scores, [tokens, 2 * experts]), f64(noise, [tokens, experts]), {
          topK,
          floor: 0.05,
          tokenMask,
        });
        const load = new Array<number>(experts).fill(0);
        const expected = rows(scores, 2 * experts).flatMap((row, t) => {
          const clean = row.slice(0, experts);
          const deviation = row.slice(experts).map((r) => Math.log1p(Math.exp(r)) + 0.05);
          const logits = clean.map((c, e) => c + noise[t * experts + e]! * deviation[e]!);
          if (!masked || mask[t])
            clean.forEach((c, e) => {
              const others = logits.filter((_, o) => o !== e).sort((a, b) => b - a);
              const z = (c - others[topK - 1]!) / deviation[e]!;
              load[e]! += 0.5 * (1 + erf(z / Math.SQRT2));
            });
          return logits;
        });
        got.logits.toArray().forEach((v, i) => {
          expect(v).toBeCloseTo(expected[i]!, 12);
        });
        got.load.toArray().forEach((v, e) => {
          expect(v).toBeCloseTo(load[e]!, 8);
        });
      });
  });

  it('has the gradients', () => {
    for (const topK of [0, 1, 3]) {
      using x = leaf(scores, [tokens, 2 * experts]);
      using n = f64(noise, [tokens, experts]);
      using tokenMask = tensor(mask, [tokens], { dtype: 'bool' });
      gradientCheck(
        (given) => {
          const { logits, load } = noisyLogits(given, n, { topK, floor: 0.01, tokenMask });
          return cat([flat(logits), load]);
        },
        [x],
      );
    }
  });

  it('stays finite where the deviation vanishes and there is no floor', () => {
    for (const dtype of ['f32', 'f64'] as const)
      for (const raw of [-95, -110, -800])
        scope(() => {
          const x = parameter(tensor([1, 2, 3, 4, raw, raw, raw, raw], [1, 8], { dtype }));
          const n = tensor([0.1, -0.2, 0.3, 0.4], [1, 4], { dtype });
          const { logits, load } = noisyLogits(x, n, { topK: 2, floor: 0 });
          expect(load.toArray()).toEqual([0, 0, 1, 1]);
          cat([flat(logits), load]).backward(tensor(wave(8), [8], { dtype }));
          for (const g of x.grad!.toArray()) expect(Number.isFinite(g), `${dtype} ${raw}`).toBe(true);
          x.grad!.dispose();
          x.dispose();
        });
  });

  it('gives the same bits for any number of threads, and refuses what does not fit', () => {
    sameOnThreads(() => {
      const x = parameter(tensor(wave(300 * 14), [300, 14]));
      const { logits, load } = noisyLogits(x, tensor(wave(300 * 7), [300, 7]), { topK: 3 });
      load.backward(tensor(wave(7), [7]));
      const out = [logits.toArray(), load.toArray(), x.grad!.toArray()];
      x.grad!.dispose();
      x.dispose();
      return out;
    });
    scope(() => {
      const n = f64(noise, [tokens, experts]);
      const short = f64(wave(tokens * experts), [tokens, experts]);
      expect(code(() => noisyLogits(short, n, { topK: 1 }))).toBe('ERR_LIBMOE_SHAPE');
      const x = f64(scores, [tokens, 2 * experts]);
      expect(code(() => noisyLogits(x, n, { topK: experts }))).toBe('ERR_LIBMOE_ARGUMENT');
    });
  });
});

describe('expertLists', () => {
  it('lists positive scores, the largest first', () => {
    scope(() => {
      const scores = [0.5, -1, 2, 2, -1, 0, -3, -0.5, 1, 1, 1, 1];
      const got = expertLists(f64(scores, [3, 4]));
      expect(got.shape).toEqual([3, 4]);
      expect(got.toArray()).toEqual([2, 3, 0, -1, -1, -1, -1, -1, 0, 1, 2, 3]);
      // As wide as the longest list where that is known without waiting, else as wide as there are experts.
      const none = expertLists(f64([-1, -1], [1, 2]));
      expect([none.shape, none.toArray()]).toEqual(
        defaultDevice() === 'cpu'
          ? [[1, 1], [-1]]
          : [
              [1, 2],
              [-1, -1],
            ],
      );
    });
  });

  it('lets every expert take the tokens that score highest with it', () => {
    const tokens = 23;
    const experts = 6;
    const scores = wave(tokens * experts).map((v) => Math.round(4 * v)); // with ties
    const mask = scores.slice(0, tokens).map((_, t) => (t % 5 === 3 ? 0 : 1));
    for (const each of [1, 4, tokens])
      scope(() => {
        const tokenMask = tensor(mask, [tokens], { dtype: 'bool' });
        const got = expertLists(f64(scores, [tokens, experts]), { each, tokenMask });
        const known = tensor(Int32Array.from([each]));
        const again = expertLists(f64(scores, [tokens, experts]), { each: known, tokenMask });
        expect(again.toArray()).toEqual(got.toArray());
        const lists = rows(got.toArray(), got.shape[1]!);
        const taken = Array.from({ length: experts }, (_, e) =>
          mask
            .flatMap((m, t) => (m ? [t] : []))
            .sort((a, b) => scores[b * experts + e]! - scores[a * experts + e]! || a - b)
            .slice(0, each),
        );
        lists.forEach((list, t) => {
          const expected = taken
            .flatMap((ts, e) => (ts.includes(t) ? [e] : []))
            .sort((a, b) => scores[t * experts + b]! - scores[t * experts + a]! || a - b);
          expect(list.filter((e) => e >= 0)).toEqual(expected);
        });
      });
  });

  it('is the same for any number of threads, and names a token that is no number', () => {
    sameOnThreads(() => [
      expertLists(tensor(wave(500 * 9), [500, 9])).toArray(),
      expertLists(tensor(wave(500 * 9), [500, 9]), { each: 70 }).toArray(),
    ]);
    scope(() => {
      const bad = tensor([1, 2, Number.NaN, 1], [2, 2]);
      expect(() => expertLists(bad).toArray()).toThrow(/ERR_LIBMOE_NOT_FINITE.*token 1/);
      const tokenMask = tensor([1, 0], [2], { dtype: 'bool' });
      expect(expertLists(bad, { tokenMask }).toArray()).toEqual([1, 0, -1, -1]);
    });
  });
});

describe('take', () => {
  it('looks values up by expert and adds up the gradients of one named twice', () => {
    using values = leaf(wave(12), [3, 4]);
    using experts = tensor(Int32Array.from([3, -1, 0, 0, 2, 1]), [3, 2]);
    scope(() => {
      const all = values.toArray();
      expect(noGrad(() => take(values, experts).toArray())).toEqual([
        all[3],
        0,
        all[4],
        all[4],
        all[10],
        all[9],
      ]);
    });
    gradientCheck((v) => take(v, experts), [values]);
    scope(() => {
      const wrong = tensor(Int32Array.from([4, 0, 0]), [3, 1]);
      expect(code(() => take(values, wrong))).toBe('ERR_LIBMOE_ARGUMENT');
    });
  });
});

describe('choosing many of few', () => {
  it('is the order of a stable sort, ties and forbidden experts included', () => {
    const experts = 70;
    const values = wave(4 * experts).map((v, i) =>
      i % 11 === 0 ? Number.NEGATIVE_INFINITY : Math.round(3 * v),
    );
    for (const topK of [15, 16, 40, 70])
      scope(() => {
        const chosen = noGrad(() => gate(f64(values, [4, experts]), { topK }).experts.toArray());
        const expected = rows(values, experts).flatMap((row) => {
          const order = row
            .flatMap((v, e) => (v === Number.NEGATIVE_INFINITY ? [] : [e]))
            .sort((a, b) => row[b]! - row[a]! || a - b);
          return Array.from({ length: topK }, (_, j) => order[j] ?? -1);
        });
        expect(chosen).toEqual(expected);
      });
  });
});

describe('cheapExperts', () => {
  const d = 19;
  const tokens = 5;
  // Outputs: 0, 1 experts, 2 zero, 3 copy, 4 and 5 constants.
  const choices = [0, 3, 4, 5, 2, -1, 4, 4, 5, 3, 3, 1, 2, 5, 0];
  const weights = wave(15);
  const setup = () => ({
    x: leaf(wave(tokens * d), [tokens, d]),
    w: leaf(weights, [tokens, 3]),
    mix: leaf(wave(tokens * 4, 2), [tokens, 4]),
    vectors: leaf(wave(2 * d, 3), [2, d]),
    experts: tensor(Int32Array.from(choices), [tokens, 3]),
  });

  it('adds up tokens and constants by weight', () => {
    const { x, w, mix, vectors, experts } = setup();
    scope(() => {
      const options = { choices: experts, weights: w, first: 3, copies: 1, constants: { mix, vectors } };
      const got = rows(noGrad(() => cheapExperts(x, options)).toArray(), d);
      const [xs, vs, ms] = [rows(x.toArray(), d), rows(vectors.toArray(), d), rows(mix.toArray(), 4)];
      got.forEach((row, t) => {
        row.forEach((value, i) => {
          const parts = [0, 1, 2].map((j) => {
            const output = choices[t * 3 + j]!;
            const weight = weights[t * 3 + j]!;
            if (output === 3) return weight * xs[t]![i]!;
            if (output < 4) return 0;
            const c = output - 4;
            const [a, b] = [Math.exp(ms[t]![2 * c]!), Math.exp(ms[t]![2 * c + 1]!)];
            return (weight * (a * xs[t]![i]! + b * vs[c]![i]!)) / (a + b);
          });
          expect(value).toBeCloseTo(sum(parts), 12);
        });
      });
    });
    for (const t of [x, w, mix, vectors, experts]) t.dispose();
  });

  it('has the gradients, with constants and without', () => {
    const { x, w, mix, vectors, experts } = setup();
    gradientCheck(
      (xx, ww, mm, vv) =>
        cheapExperts(xx, {
          choices: experts,
          weights: ww,
          first: 3,
          copies: 1,
          constants: { mix: mm, vectors: vv },
        }),
      [x, w, mix, vectors],
    );
    gradientCheck(
      (xx, ww) => cheapExperts(xx, { choices: experts, weights: ww, first: 3, copies: 1 }),
      [x, w],
    );
    for (const t of [x, w, mix, vectors, experts]) t.dispose();
  });

  it('keeps bf16 and gives the same bits for any number of threads', () => {
    sameOnThreads(() => {
      const count = 200;
      const x = parameter(tensor(wave(count * d), [count, d]));
      const vectors = parameter(tensor(wave(2 * d), [2, d]));
      const experts = tensor(
        Int32Array.from({ length: count * 2 }, (_, i) => (i * i) % 4),
        [count, 2],
      );
      const out = cheapExperts(x, {
        choices: experts,
        weights: tensor(wave(count * 2), [count, 2]),
        first: 1,
        copies: 1,
        constants: { mix: tensor(wave(count * 4), [count, 4]), vectors },
      });
      out.backward(tensor(wave(count * d, 5), [count, d]));
      const all = [out.toArray(), x.grad!.toArray(), vectors.grad!.toArray()];
      for (const t of [x, vectors]) {
        t.grad!.dispose();
        t.dispose();
      }
      return all;
    });
    scope(() => {
      const x = tensor(wave(4), [2, 2], { dtype: 'bf16' });
      const experts = tensor(Int32Array.from([0, 1]), [2, 1]);
      const out = cheapExperts(x, { choices: experts, weights: tensor([1, 1], [2, 1]), first: 0, copies: 1 });
      expect(out.dtype).toBe('bf16');
      expect(out.toArray()).toEqual([...x.toArray().slice(0, 2), 0, 0]);
    });
  });
});

describe('inverseNorms', () => {
  it('is 1 / (norm + constant), with a floor that ends the gradient', () => {
    using x = leaf([3, 4, 0.3, 0.4, 0.01, 0, -5, 12], [4, 2]);
    scope(() => {
      const y = noGrad(() => inverseNorms(x, { floor: 0.1, plus: 0.5 }));
      expect(y.shape).toEqual([4, 1]);
      [1 / 5.5, 1, 1 / 0.6, 1 / 13.5].forEach((v, i) => {
        expect(y.toArray()[i]).toBeCloseTo(v, 12);
      });
    });
    gradientCheck((v) => inverseNorms(v, { floor: 0.1, plus: 0.5 }), [x]);
    gradientCheck((v) => inverseNorms(v, { floor: 1e-6 }), [x]);
    expect(code(() => inverseNorms(x, { floor: 0 }))).toBe('ERR_LIBMOE_ARGUMENT');
  });

  it('knows a row below the floor in f32, beside a constant that swallows its norm', () => {
    scope(() => {
      const x = parameter(tensor([3e-7, 4e-7, 3e-6, 4e-6], [2, 2]));
      inverseNorms(x, { floor: 1e-6, plus: 0.5 }).backward(tensor([1, 1], [2, 1]));
      const [a, b, c, d] = x.grad!.toArray();
      expect([a, b]).toEqual([0, 0]);
      expect(c! / (-0.6 / 0.25)).toBeCloseTo(1, 4);
      expect(d! / (-0.8 / 0.25)).toBeCloseTo(1, 4);
      x.grad!.dispose();
      x.dispose();
    });
  });
});
