import { describe, expect, it } from 'vitest';
import { codeOf } from '../../ts/native/index.ts';
import { type Dtype, scope, type Tensor, tensor, zeros } from '../../ts/tensor/index.ts';
import { argmax, logSumExp, max, mean, sum, sumTo } from '../../ts/tensor/reduction.ts';
import { view } from '../../ts/tensor/tensor.ts';
import { gradientCheck } from './gradient-check.ts';
import { distance, sameBits, sample, values, withThreads } from './values.ts';

const caught = (fn: () => unknown): unknown => {
  try {
    fn();
  } catch (error) {
    return error;
  }
  return undefined;
};

/** fold over the axes of a row-major array, in f64. */
function fold(
  data: number[],
  shape: number[],
  axes: number[],
  start: number,
  f: (a: number, b: number) => number,
) {
  const kept = shape.map((s, i) => (axes.includes(i) ? 1 : s));
  const out = new Array<number>(kept.reduce((a, b) => a * b, 1)).fill(start);
  data.forEach((value, flat) => {
    let rest = flat;
    let to = 0;
    let step = 1;
    for (let i = shape.length - 1; i >= 0; i -= 1) {
      if (!axes.includes(i)) {
        to += (rest % shape[i]!) * step;
        step *= shape[i]!;
      }
      rest = Math.floor(rest / shape[i]!);
    }
    out[to] = f(out[to]!, value);
  });
  return out;
}

const cases: [number[], number[]][] = [
  [[], []],
  [[1], [0]],
  [[37], [0]],
  [[5, 33], [1]],
  [[5, 33], [0]],
  [
    [5, 33],
    [0, 1],
  ],
  [[200, 3], [0]],
  [[3, 700, 20], [1]],
  [
    [4, 5, 6],
    [0, 2],
  ],
  [[4, 5, 6], [1]],
  [
    [2, 3, 4, 5, 6],
    [0, 2, 4],
  ],
  [
    [2, 3, 4, 5, 6],
    [1, 3],
  ],
  [[2, 9001], [1]],
  [[7, 1, 5], [1]],
  [[6, 4], []],
  [[3, 0, 4], [1]],
];
const tolerance: Partial<Record<Dtype, number>> = { f64: 1e-14, f32: 2e-6, bf16: 2 ** -8 };

describe('sum, mean, max', () => {
  it.each(cases)('over %j axes %j', (shape, axes) => {
    scope(() => {
      for (const dtype of ['f64', 'f32', 'bf16'] as const) {
        const x = sample(shape, 5, dtype);
        const data = x.toArray();
        const expected = fold(data, shape, axes, 0, (a, b) => a + b);
        const y = sum(x, axes);
        expect(y.shape).toEqual(shape.filter((_, i) => !axes.includes(i)));
        expect(y.dtype).toBe(dtype);
        expect(distance(y.toArray(), expected)).toBeLessThan(tolerance[dtype]!);
        expect(sum(x, axes, { keepDims: true }).shape).toEqual(
          shape.map((s, i) => (axes.includes(i) ? 1 : s)),
        );
        if (data.length === 0) continue;
        const count = data.length / expected.length;
        expect(
          distance(
            mean(x, axes).toArray(),
            expected.map((v) => v / count),
          ),
        ).toBeLessThan(tolerance[dtype]!);
        expect(max(x, axes).toArray()).toEqual(fold(data, shape, axes, -Infinity, Math.max));
      }
    });
  });

  it.each(cases.filter(([s]) => s.reduce((a, b) => a * b, 1) <= 165))(
    'gradients over %j axes %j',
    (shape, axes) => {
      scope(() => {
        const x = sample(shape, 6, 'f64', true);
        gradientCheck((t) => sum(t, axes), [x]);
        if (x.size === 0) return;
        gradientCheck((t) => mean(t, axes, { keepDims: true }), [x]);
        gradientCheck((t) => max(t, axes), [x]);
      });
    },
  );

  it('takes negative axes, one axis, and all by default', () => {
    scope(() => {
      const x = tensor([1, 2, 3, 4, 5, 6], [2, 3]);
      expect(sum(x, -1).toArray()).toEqual([6, 15]);
      expect(sum(x, 0).toArray()).toEqual([5, 7, 9]);
      expect(sum(x).item()).toBe(21);
      expect(codeOf(caught(() => sum(x, 2)))).toBe('ERR_LIBMOE_ARGUMENT');
    });
  });

  it('keeps the error of millions of f32 terms small', () => {
    scope(() => {
      const n = 3_000_001;
      const data = new Float32Array(n).map((_, i) => 1 + (i % 7) * 0.01);
      const exact = data.reduce((a, b) => a + b, 0);
      const x = tensor(data);
      expect(Math.abs(sum(x).item() - exact) / exact).toBeLessThan(2e-7);
      const columns = tensor(data.subarray(0, 3_000_000), [1_000_000, 3]);
      const first = data.subarray(0, 3_000_000).reduce((a, b, i) => (i % 3 === 0 ? a + b : a), 0);
      expect(Math.abs(sum(columns, 0).toArray()[0]! - first) / first).toBeLessThan(2e-7);
    });
  });

  it('gives the same bits with one thread and two, and for a row alone', () => {
    scope(() => {
      const x = tensor(values(90_000, 2), [3, 30_000], { dtype: 'f32' });
      const run = () => [
        sum(x).item(),
        ...sum(x, 1).toArray(),
        ...sum(x, 0).toArray(),
        ...mean(x, 0).toArray(),
      ];
      const one = withThreads(1, run);
      const two = withThreads(2, run);
      expect(two.every((v, i) => v === one[i])).toBe(true);
      const row = tensor(values(90_000, 2).subarray(30_000, 60_000), [1, 30_000], { dtype: 'f32' });
      expect(sum(row, 1).item()).toBe(one[2]);
      const data = values(70 * 5000, 2);
      const many = tensor(data, [70, 5000], { dtype: 'f32' });
      const alone = tensor(data.subarray(5000 * 42, 5000 * 43), [1, 5000], { dtype: 'f32' });
      expect(sum(alone, 1).item()).toBe(sum(many, 1).toArray()[42]);
    });
  });

  it('lets a NaN win and shares the gradient of equal maxima', () => {
    scope(() => {
      const x = tensor([1, Number.NaN, 3, 4, 5, 5], [2, 3]);
      expect(max(x, 1).toArray()).toEqual([Number.NaN, 5]);
      expect(max(x, 0).toArray()).toEqual([4, Number.NaN, 5]);
      const y = tensor([1, 5, 5], undefined, { requiresGrad: true });
      max(y).backward();
      expect(y.grad!.toArray()).toEqual([0, 0.5, 0.5]);
      y.grad!.dispose();
    });
  });

  it('refuses mean and max of nothing', () => {
    scope(() => {
      expect(sum(zeros([0])).item()).toBe(0);
      for (const f of [mean, max]) expect(codeOf(caught(() => f(zeros([2, 0]), 1)))).toBe('ERR_LIBMOE_SHAPE');
      expect(max(zeros([0, 3]), 1).shape).toEqual([0]);
    });
  });
});

describe('sumTo', () => {
  it.each([
    [[4, 5], [5]],
    [
      [4, 5],
      [4, 1],
    ],
    [
      [2, 3, 4],
      [1, 3, 1],
    ],
    [[2, 3], []],
    [
      [2, 3],
      [2, 3],
    ],
  ])('sums %j to %j', (from, to) => {
    scope(() => {
      const x = sample(from, 3, 'f64', true);
      const y = sumTo(x, to);
      expect(y.shape).toEqual(to);
      const missing = from.length - to.length;
      const axes = from
        .map((_, i) => i)
        .filter((i) => i < missing || (to[i - missing] === 1 && from[i] !== 1));
      expect(
        distance(
          y.toArray(),
          fold(x.toArray(), from, axes, 0, (a, b) => a + b),
        ),
      ).toBeLessThan(1e-14);
      gradientCheck((t) => sumTo(t, to), [x]);
    });
  });

  it('refuses a shape that does not broadcast to it', () => {
    scope(() => expect(codeOf(caught(() => sumTo(zeros([4, 5]), [4])))).toBe('ERR_LIBMOE_SHAPE'));
  });
});

describe('argmax', () => {
  it('takes the lowest index on ties and the first NaN', () => {
    scope(() => {
      const x = tensor([1, 3, 3, Number.NaN, 9, Number.NaN, -Infinity, -Infinity, -Infinity], [3, 3]);
      const y = argmax(x);
      expect(y.dtype).toBe('i32');
      expect(y.toArray()).toEqual([1, 0, 0]);
      expect(argmax(sample([2, 3, 17])).shape).toEqual([2, 3]);
      expect(codeOf(caught(() => argmax(zeros([2, 0]))))).toBe('ERR_LIBMOE_SHAPE');
      expect(codeOf(caught(() => argmax(tensor(1))))).toBe('ERR_LIBMOE_SHAPE');
    });
  });

  it('agrees with a plain search', () => {
    scope(() => {
      const data = values(40 * 101, 8);
      for (const dtype of ['f32', 'f64', 'bf16'] as const) {
        const x = tensor(data, [40, 101], { dtype });
        const flat = x.toArray();
        const expected = Array.from({ length: 40 }, (_, r) => {
          const row = flat.slice(r * 101, r * 101 + 101);
          return row.indexOf(Math.max(...row));
        });
        expect(argmax(x).toArray()).toEqual(expected);
      }
    });
  });
});

describe('long rows and unaligned views', () => {
  it('have the same results as short, aligned ones', () => {
    scope(() => {
      for (const dtype of ['f32', 'f64', 'bf16'] as const) {
        for (const [rows, n] of [
          [3, 4801],
          [2, 2056],
          [130, 67],
        ] as const) {
          const whole = sample([rows * n + 1], 9, dtype);
          const x = view(whole, [rows, n], 1);
          const aligned = tensor(x.toArray(), [rows, n], { dtype });
          const data = x.toArray();
          const best = Array.from({ length: rows }, (_, r) => {
            const row = data.slice(r * n, r * n + n);
            return row.indexOf(Math.max(...row));
          });
          expect(argmax(x).toArray()).toEqual(best);
          expect(max(x, 1).toArray()).toEqual(best.map((at, r) => data[r * n + at]));
          for (const f of [(t: Tensor) => sum(t, 1), (t: Tensor) => mean(t, 0), logSumExp])
            expect(sameBits(f(x).readSync(), f(aligned).readSync())).toBe(true);
        }
      }
      const tied = new Float32Array(9000).fill(-2);
      for (const at of [8999, 4500, 700]) tied[at] = 5;
      expect(argmax(tensor(tied, [1, 9000])).toArray()).toEqual([700]);
      for (const at of [8000, 3001]) tied[at] = Number.NaN;
      expect(argmax(tensor(tied, [1, 9000])).toArray()).toEqual([3001]);
    });
  });
});

describe('logSumExp', () => {
  it.each(['f64', 'f32', 'bf16'] as const)('agrees with a plain computation in %s', (dtype) => {
    scope(() => {
      for (const [rows, n] of [
        [3, 1],
        [5, 37],
        [2, 9000],
      ] as const) {
        const x = sample([rows, n], 4, dtype);
        const data = x.toArray();
        const expected = Array.from({ length: rows }, (_, r) =>
          Math.log(data.slice(r * n, r * n + n).reduce((a, v) => a + Math.exp(v), 0)),
        );
        const y = logSumExp(x);
        expect(y.dtype).toBe(dtype === 'f64' ? 'f64' : 'f32');
        expect(distance(y.toArray(), expected)).toBeLessThan(dtype === 'f64' ? 1e-14 : 1e-6);
      }
    });
  });

  it('is safe for large values and infinities', () => {
    scope(() => {
      const x = tensor([1e4, 1e4, -Infinity, -Infinity, Infinity, 0, Number.NaN, 0], [4, 2]);
      const y = logSumExp(x).toArray();
      expect(y[0]).toBeCloseTo(1e4 + Math.LN2, 2);
      expect(y.slice(1)).toEqual([-Infinity, Infinity, Number.NaN]);
      expect(logSumExp(zeros([2, 0])).toArray()).toEqual([-Infinity, -Infinity]);
    });
  });

  it('has the softmax as its gradient', () => {
    scope(() => gradientCheck(logSumExp, [sample([2, 3, 7], 3, 'f64', true)]));
  });
});
