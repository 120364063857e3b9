import { describe, expect, it } from 'vitest';
import { codeOf } from '../../ts/native/index.ts';
import { linear, matmul } from '../../ts/tensor/gemm.ts';
import { type Dtype, scope, type Tensor, tensor, view } from '../../ts/tensor/index.ts';
import { gradientCheck } from './gradient-check.ts';
import { distance, sameBits, sample, withThreads } from './values.ts';

/** Plain triple loop over what the tensors hold. */
function product(a: Tensor, b: Tensor, transposeA: boolean, transposeB: boolean, bias?: Tensor): number[] {
  const batch = a.rank === 3 ? a.shape[0]! : 1;
  const [m, k] = transposeA
    ? [a.shape.at(-1)!, a.shape.at(-2)!]
    : [a.size / batch / a.shape.at(-1)!, a.shape.at(-1)!];
  const n = transposeB ? b.shape.at(-2)! : b.shape.at(-1)!;
  const [x, y, z] = [a.toArray(), b.toArray(), bias?.toArray()];
  const out: number[] = [];
  for (let q = 0; q < batch; q += 1)
    for (let i = 0; i < m; i += 1)
      for (let j = 0; j < n; j += 1) {
        let sum = z?.[j] ?? 0;
        for (let p = 0; p < k; p += 1)
          sum +=
            x[q * m * k + (transposeA ? p * m + i : i * k + p)]! *
            y[q * n * k + (transposeB ? j * k + p : p * n + j)]!;
        out.push(sum);
      }
  return out;
}

function code(fn: () => unknown): string | undefined {
  try {
    scope(() => void fn());
  } catch (e) {
    return codeOf(e);
  }
  return undefined;
}

const tolerances: [Dtype, number][] = [
  ['f64', 1e-14],
  ['f32', 2e-6],
  ['bf16', 8e-3],
];
const shapes = [
  [1, 1, 1],
  [1, 33, 65],
  [3, 7, 2],
  [14, 32, 64],
  [15, 31, 63],
  [29, 70, 129],
  [6, 16, 500],
] as const;

describe('matmul', () => {
  for (const [dtype, tolerance] of tolerances) {
    it(`is the sum of products in ${dtype}, whatever is stored transposed`, () => {
      for (const [m, n, k] of shapes)
        for (const [ta, tb] of [
          [false, false],
          [false, true],
          [true, false],
          [true, true],
        ] as const)
          scope(() => {
            const a = sample(ta ? [k, m] : [m, k], 1, dtype);
            const b = sample(tb ? [n, k] : [k, n], 2, dtype);
            const c = matmul(a, b, { transposeA: ta, transposeB: tb });
            expect(c.shape).toEqual([m, n]);
            expect(c.dtype).toBe(dtype);
            expect(distance(c.toArray(), product(a, b, ta, tb)), `${m} ${n} ${k} ${ta} ${tb}`).toBeLessThan(
              tolerance,
            );
          });
    });
  }

  it('multiplies batches and empty inner dimensions', () => {
    scope(() => {
      const a = sample([3, 5, 7]);
      const b = sample([3, 9, 7], 2);
      expect(distance(matmul(a, b, { transposeB: true }).toArray(), product(a, b, false, true))).toBeLessThan(
        1e-14,
      );
      const none = matmul(sample([2, 0]), sample([0, 3]));
      expect(none.toArray()).toEqual([0, 0, 0, 0, 0, 0]);
    });
  });

  it('has the gradients of central differences', () => {
    for (const [ta, tb] of [
      [false, false],
      [false, true],
      [true, false],
      [true, true],
    ] as const)
      scope(() => {
        const a = sample(ta ? [5, 4] : [4, 5], 1, 'f64', true);
        const b = sample(tb ? [3, 5] : [5, 3], 2, 'f64', true);
        gradientCheck((p, q) => matmul(p, q, { transposeA: ta, transposeB: tb }), [a, b]);
      });
    scope(() => {
      gradientCheck(
        (p, q) => matmul(p, q),
        [sample([2, 3, 4], 1, 'f64', true), sample([2, 4, 2], 2, 'f64', true)],
      );
      // Both operands the same leaf, and an operand that was itself computed.
      gradientCheck((p) => matmul(matmul(p, p), p, { transposeA: true }), [sample([3, 3], 4, 'f64', true)], {
        tolerance: 1e-5,
      });
    });
  });

  it('names what is wrong', () => {
    expect(code(() => matmul(sample([2, 3]), sample([4, 2])))).toBe('ERR_LIBMOE_SHAPE');
    expect(code(() => matmul(sample([2]), sample([2, 2])))).toBe('ERR_LIBMOE_SHAPE');
    expect(code(() => matmul(sample([2, 2, 2]), sample([3, 2, 2])))).toBe('ERR_LIBMOE_SHAPE');
    expect(code(() => matmul(sample([2, 2]), sample([2, 2], 1, 'f32')))).toBe('ERR_LIBMOE_DTYPE');
    expect(code(() => matmul(tensor(new Int32Array(4), [2, 2]), tensor(new Int32Array(4), [2, 2])))).toBe(
      'ERR_LIBMOE_DTYPE',
    );
  });
});

describe('linear', () => {
  it('adds the bias, over any leading dimensions, for sizes that are no multiple of a tile', () => {
    for (const [dtype, tolerance] of tolerances)
      for (const [rows, out, inner] of [
        [1, 5, 3],
        [40, 33, 70],
        [17, 64, 401],
      ] as const)
        scope(() => {
          const x = sample([rows, inner], 1, dtype);
          const w = sample([out, inner], 2, dtype);
          const b = sample([out], 3, dtype);
          const y = linear(view(x, [1, rows, inner]), w, b);
          expect(y.shape).toEqual([1, rows, out]);
          expect(distance(y.toArray(), product(x, w, false, true, b))).toBeLessThan(tolerance);
        });
  });

  it('has the gradients of central differences, bias included, and adds to what is there', () => {
    scope(() => {
      const inputs = [
        sample([2, 3, 5], 1, 'f64', true),
        sample([4, 5], 2, 'f64', true),
        sample([4], 3, 'f64', true),
      ];
      gradientCheck((x, w, b) => linear(x, w, b), inputs);
      const [x, w] = inputs as [Tensor, Tensor];
      const start = sample([2, 3, 4], 9);
      linear(x, w).backward(start);
      const once = w.grad!.toArray();
      linear(x, w).backward(start);
      expect(
        distance(
          w.grad!.toArray(),
          once.map((v) => 2 * v),
        ),
      ).toBeLessThan(1e-14);
      for (const t of inputs) t.grad?.dispose();
    });
  });

  it('keeps weight gradients of bf16 in f32', () => {
    scope(() => {
      const x = sample([600, 24], 1, 'bf16');
      const w = sample([10, 24], 2, 'bf16', true);
      const b = sample([10], 2, 'bf16', true);
      const start = sample([600, 10], 3, 'bf16');
      linear(x, w, b).backward(start);
      expect(w.grad!.dtype).toBe('f32');
      expect(distance(w.grad!.toArray(), product(start, x, true, false))).toBeLessThan(1e-5);
      const sums = b.toArray().map((_, j) =>
        start
          .toArray()
          .filter((_v, i) => i % 10 === j)
          .reduce((p, v) => p + v, 0),
      );
      expect(distance(b.grad!.toArray(), sums)).toBeLessThan(1e-5);
      w.grad!.dispose();
      b.grad!.dispose();
    });
  });

  it('gives a row the same bits alone, in a batch and for any number of threads', () => {
    for (const dtype of ['f32', 'bf16', 'f64'] as const)
      scope(() => {
        const [rows, inner, out] = [61, 900, 70];
        const x = sample([rows, inner], 1, dtype);
        const w = sample([out, inner], 2, dtype);
        const b = sample([out], 3, dtype);
        const all = linear(x, w, b);
        expect(
          sameBits(
            withThreads(1, () => linear(x, w, b)).readSync(),
            withThreads(2, () => linear(x, w, b)).readSync(),
          ),
        ).toBe(true);
        for (const row of [0, 13, 14, 60]) {
          const alone = linear(view(x, [1, inner], row * inner), w, b);
          expect(sameBits(alone.readSync(), view(all, [1, out], row * out).readSync()), `row ${row}`).toBe(
            true,
          );
        }
        // Few rows take other ways through the engine, and so do a few more.
        for (const count of [2, 14, 15, 56, 57]) {
          const few = linear(view(x, [count, inner]), w, b);
          expect(sameBits(few.readSync(), view(all, [count, out]).readSync()), `${count} rows`).toBe(true);
        }
      });
  });

  it('gives weight gradients the same bits for any number of threads', () => {
    scope(() => {
      const x = sample([1300, 40], 1, 'f32');
      const start = sample([1300, 50], 2, 'f32');
      const run = () => {
        const w = sample([50, 40], 3, 'f32', true);
        const b = sample([50], 3, 'f32', true);
        linear(x, w, b).backward(start);
        const bits = [w.grad!.readSync(), b.grad!.readSync()] as const;
        w.grad!.dispose();
        b.grad!.dispose();
        return bits;
      };
      const [one, two] = [withThreads(1, run), withThreads(2, run)];
      expect(sameBits(one[0], two[0])).toBe(true);
      expect(sameBits(one[1], two[1])).toBe(true);
    });
  });

  it('names what is wrong', () => {
    expect(code(() => linear(sample([2, 3]), sample([4, 2])))).toBe('ERR_LIBMOE_SHAPE');
    expect(code(() => linear(sample([2, 3]), sample([4, 3]), sample([5])))).toBe('ERR_LIBMOE_SHAPE');
    expect(code(() => linear(sample([2, 3]), sample([4, 3], 1, 'f32')))).toBe('ERR_LIBMOE_DTYPE');
    const gone = sample([4, 3]);
    gone.dispose();
    expect(code(() => linear(sample([2, 3]), gone))).toBe('ERR_LIBMOE_DISPOSED');
  });
});
