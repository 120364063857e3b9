import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { codeOf } from '../../ts/native/index.ts';
import { type Dtype, defaultDevice, scope, synchronise, tensor, zeros } from '../../ts/tensor/index.ts';
import {
  cat,
  expand,
  gatherRows,
  pad,
  permute,
  repeat,
  reshape,
  scatterAddRows,
  slice,
  split,
  transpose,
} from '../../ts/tensor/shape.ts';
import { view } from '../../ts/tensor/tensor.ts';
import { gradientCheck } from './gradient-check.ts';
import { distance, sameBits, sample, values, withThreads } from './values.ts';

const dtypes: Dtype[] = ['f32', 'bf16', 'f64', 'f16', 'i32', 'i64', 'u8', 'bool'];
const caught = (fn: () => unknown): unknown => {
  try {
    fn();
  } catch (error) {
    return error;
  }
  return undefined;
};

/** 0, 1, 2 … in a dtype that can hold them (bool: odd or even). */
const counting = (shape: readonly number[], dtype: Dtype) => {
  const n = shape.reduce((a, b) => a * b, 1);
  return tensor(
    Array.from({ length: n }, (_, i) => (dtype === 'bool' ? i % 2 : i % 200)),
    shape,
    { dtype },
  );
};

const positions = (shape: readonly number[]): number[][] =>
  shape.reduce<number[][]>(
    (all, size) => all.flatMap((head) => Array.from({ length: size }, (_, i) => [...head, i])),
    [[]],
  );
const flatten = (index: readonly number[], shape: readonly number[]) =>
  index.reduce((flat, i, axis) => flat * shape[axis]! + i, 0);

const shapeOf = (rank: number, most = 6) =>
  fc.array(fc.integer({ min: 0, max: most }), { minLength: rank, maxLength: rank });
const anyShape = fc.integer({ min: 1, max: 4 }).chain((rank) => shapeOf(rank));
const anyDtype = fc.constantFrom(...dtypes);

describe('permute', () => {
  it('moves every element to its place', () => {
    fc.assert(
      fc.property(
        anyShape.chain((shape) =>
          fc.tuple(
            fc.constant(shape),
            fc.shuffledSubarray(
              shape.map((_, i) => i),
              { minLength: shape.length, maxLength: shape.length },
            ),
            anyDtype,
          ),
        ),
        ([shape, order, dtype]) =>
          scope(() => {
            const x = counting(shape, dtype);
            const data = x.toArray();
            const y = permute(x, order);
            const result = order.map((axis) => shape[axis]!);
            expect(y.shape).toEqual(result);
            const expected = positions(result).map((index) => {
              const source = new Array<number>(shape.length);
              order.forEach((axis, i) => {
                source[axis] = index[i]!;
              });
              return data[flatten(source, shape)]!;
            });
            expect(y.toArray()).toEqual(expected);
          }),
      ),
    );
  });

  it('transposes large matrices of ragged size the same with any number of threads', () => {
    scope(() => {
      const x = tensor(values(301 * 517), [301, 517], { dtype: 'f32' });
      const data = x.toArray();
      const one = withThreads(1, () => transpose(x).toArray());
      const two = withThreads(2, () => transpose(x).toArray());
      expect(two.every((v, i) => v === one[i])).toBe(true);
      for (let i = 0; i < one.length; i += 97)
        expect(one[i]).toBe(data[(i % 301) * 517 + Math.floor(i / 301)]);
    });
  });

  it('turns axes of every element size, from views of any alignment', () => {
    scope(() => {
      for (const dtype of ['u8', 'bf16', 'f32', 'f64'] as const) {
        for (const offset of [0, 1]) {
          const shape = [2, 70, 2, 69];
          const size = 2 * 70 * 2 * 69;
          const x = view(counting([size + offset], dtype), shape, offset);
          const data = x.toArray();
          for (const order of [
            [3, 0, 2, 1],
            [0, 3, 1, 2],
            [2, 1, 0, 3],
          ]) {
            const result = order.map((axis) => shape[axis]!);
            const y = permute(x, order).toArray();
            const wrong = positions(result).findIndex((index, flat) => {
              const source = [0, 0, 0, 0];
              order.forEach((axis, i) => {
                source[axis] = index[i]!;
              });
              return y[flat] !== data[flatten(source, shape)];
            });
            expect(wrong).toBe(-1);
          }
        }
      }
    });
  });

  it('has a gradient, and refuses a bad order', () => {
    scope(() => {
      const x = sample([2, 3, 4], 1, 'f64', true);
      gradientCheck((t) => permute(t, [2, 0, 1]), [x]);
      gradientCheck((t) => transpose(t, 0, -1), [x]);
      for (const order of [
        [0, 1],
        [0, 1, 1],
        [0, 1, 3],
      ])
        expect(codeOf(caught(() => permute(x, order)))).toBe('ERR_LIBMOE_ARGUMENT');
    });
  });
});

describe('reshape', () => {
  it('keeps the elements, infers one size and has a gradient', () => {
    scope(() => {
      const x = sample([2, 6], 1, 'f64', true);
      const y = reshape(x, [3, -1]);
      expect(y.shape).toEqual([3, 4]);
      expect(y.toArray()).toEqual(x.toArray());
      gradientCheck((t) => reshape(t, [12]), [x]);
      expect(reshape(zeros([0, 3]), [-1, 3]).shape).toEqual([0, 3]);
      for (const shape of [[5], [-1, 5], [-1, -1]])
        expect(codeOf(caught(() => reshape(x, shape)))).toBe('ERR_LIBMOE_SHAPE');
    });
  });
});

describe('cat, slice and split', () => {
  it('split undoes cat, and slice takes the same pieces', () => {
    fc.assert(
      fc.property(
        anyShape.chain((shape) =>
          fc.tuple(
            fc.constant(shape),
            fc.nat(shape.length - 1),
            fc.array(fc.nat(5), { minLength: 1, maxLength: 4 }),
            anyDtype,
          ),
        ),
        ([shape, axis, sizes, dtype]) =>
          scope(() => {
            const parts = sizes.map((size) =>
              counting(
                shape.map((s, i) => (i === axis ? size : s)),
                dtype,
              ),
            );
            const whole = cat(parts, axis);
            expect(whole.shape[axis]).toBe(sizes.reduce((a, b) => a + b, 0));
            const pieces = split(whole, sizes, axis);
            let start = 0;
            parts.forEach((part, i) => {
              expect(pieces[i]!.shape).toEqual(part.shape);
              expect(pieces[i]!.toArray()).toEqual(part.toArray());
              expect(slice(whole, axis, start, start + sizes[i]!).toArray()).toEqual(part.toArray());
              start += sizes[i]!;
            });
          }),
      ),
    );
  });

  it('have gradients', () => {
    scope(() => {
      const a = sample([2, 3], 1, 'f64', true);
      const b = sample([2, 2], 2, 'f64', true);
      gradientCheck((x, y) => cat([x, y], 1), [a, b]);
      gradientCheck((x) => slice(x, 1, 1), [a]);
      gradientCheck((x) => slice(x, -1, -2, -1), [a]);
      gradientCheck((x) => split(x, [1, 2], 1)[1]!, [a]);
      gradientCheck((x) => cat([...split(x, [1, 2], 1)].reverse(), 1), [a]);
    });
  });

  it('refuse what does not fit', () => {
    scope(() => {
      const a = zeros([2, 3]);
      expect(codeOf(caught(() => cat([])))).toBe('ERR_LIBMOE_ARGUMENT');
      expect(codeOf(caught(() => cat([a, zeros([2, 4])], 0)))).toBe('ERR_LIBMOE_SHAPE');
      expect(codeOf(caught(() => cat([a, zeros([2, 3], { dtype: 'f64' })])))).toBe('ERR_LIBMOE_DTYPE');
      expect(codeOf(caught(() => slice(a, 0, 1, 3)))).toBe('ERR_LIBMOE_ARGUMENT');
      expect(codeOf(caught(() => slice(a, 0, 2, 1)))).toBe('ERR_LIBMOE_ARGUMENT');
      expect(codeOf(caught(() => slice(a, 2, 0)))).toBe('ERR_LIBMOE_ARGUMENT');
      expect(codeOf(caught(() => split(a, [1, 1], 1)))).toBe('ERR_LIBMOE_SHAPE');
    });
  });
});

describe('gatherRows and scatterAddRows', () => {
  it('gather takes rows of any dtype', () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 9 }),
        fc.nat(20),
        anyDtype,
        fc.array(fc.nat(), { maxLength: 30 }),
        (rows, width, dtype, picks) =>
          scope(() => {
            const index = picks.map((p) => p % rows);
            const x = counting([rows, width], dtype);
            const data = x.toArray();
            const y = gatherRows(x, tensor(Int32Array.from(index)));
            expect(y.shape).toEqual([index.length, width]);
            expect(y.toArray()).toEqual(index.flatMap((r) => data.slice(r * width, r * width + width)));
          }),
      ),
    );
  });

  it('scatter adds duplicates in ascending order, in f32 rounded once', () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 5 }),
        fc.nat(35),
        fc.array(fc.nat(), { maxLength: 40 }),
        fc.constantFrom<Dtype>('f32', 'f64', 'bf16'),
        (rows, width, picks, dtype) =>
          scope(() => {
            const index = picks.map((p) => p % rows);
            const x = sample([index.length, width], 7, dtype);
            const base = sample([rows, width], 8, dtype);
            const data = x.toArray();
            const expected = base.toArray();
            const narrow = dtype === 'f64' ? (v: number) => v : Math.fround;
            index.forEach((r, i) => {
              for (let c = 0; c < width; c += 1)
                expected[r * width + c] = narrow(expected[r * width + c]! + data[i * width + c]!);
            });
            const before = base.toArray();
            const y = scatterAddRows(base, tensor(Int32Array.from(index)), x);
            expect(y.toArray()).toEqual(tensor(expected, undefined, { dtype }).toArray());
            expect(base.toArray()).toEqual(before);
          }),
      ),
    );
  });

  it('take index tensors and rows of more axes', () => {
    scope(() => {
      const x = counting([4, 2, 3], 'i32');
      const y = gatherRows(x, tensor(Int32Array.from([3, 0]), [2, 1]));
      expect(y.shape).toEqual([2, 1, 2, 3]);
      expect(y.toArray()).toEqual([18, 19, 20, 21, 22, 23, 0, 1, 2, 3, 4, 5]);
    });
  });

  it('give the same bits with one thread and two', () => {
    scope(() => {
      const index = tensor(Int32Array.from({ length: 5000 }, (_, i) => (i % 3 === 0 ? 7 : (i * 31) % 100)));
      const x = sample([5000, 300], 1, 'f32');
      const run = () => Buffer.from(scatterAddRows([100, 300], index, x).readSync().buffer);
      expect(withThreads(2, run).equals(withThreads(1, run))).toBe(true);
    });
  });

  it('sort positions of many rows, with one that is named often, beside rows that nothing names', () => {
    scope(() => {
      const [n, rows, width] = [9001, 70_003, 3];
      const index = Int32Array.from({ length: n }, (_, i) => (i % 5 === 0 ? 65_536 : (i * 7919) % rows));
      const x = sample([n, width], 3, 'f32');
      const data = x.toArray();
      const expected = new Float32Array(rows * width);
      index.forEach((r, i) => {
        for (let c = 0; c < width; c += 1) expected[r * width + c]! += data[i * width + c]!;
      });
      expect(sameBits(scatterAddRows([rows, width], tensor(index), x).readSync(), expected)).toBe(true);
    });
  });

  it('take unaligned views and rows longer than a block', () => {
    scope(() => {
      for (const dtype of ['bf16', 'f32', 'f64', 'u8'] as const) {
        for (const [offset, width] of [
          [0, 4800],
          [1, 4800],
          [3, 801],
        ] as const) {
          const whole = counting([3 * width + offset], dtype);
          const x = view(whole, [3, width], offset);
          const data = x.toArray();
          const list = [2, 0, 2, 1];
          expect(gatherRows(x, tensor(Int32Array.from(list))).toArray()).toEqual(
            list.flatMap((r) => data.slice(r * width, r * width + width)),
          );
          if (dtype === 'u8') continue;
          const sums = scatterAddRows([2, width], tensor(Int32Array.of(1, 1, 0)), x).toArray();
          expect(sums.slice(0, width)).toEqual(data.slice(2 * width));
          const both = tensor(
            data.slice(0, width).map((v, i) => v + data[width + i]!),
            [width],
            { dtype },
          );
          expect(sums.slice(width)).toEqual(both.toArray());
        }
      }
    });
  });

  it('have gradients', () => {
    scope(() => {
      const index = tensor(Int32Array.from([2, 0, 2]));
      gradientCheck((x) => gatherRows(x, index), [sample([3, 2], 1, 'f64', true)]);
      gradientCheck(
        (base, rows) => scatterAddRows(base, index, rows),
        [sample([3, 2], 1, 'f64', true), sample([3, 2], 2, 'f64', true)],
      );
    });
  });

  it('name an index out of range', () => {
    scope(() => {
      const bad = tensor(Int32Array.from([0, 5]));
      // A device learns of it when it is waited for.
      const waited = (fn: () => unknown) =>
        caught(() => {
          fn();
          synchronise();
        });
      const error = waited(() => gatherRows(zeros([5, 2]), bad));
      expect(codeOf(error)).toBe('ERR_LIBMOE_ARGUMENT');
      expect(String(error)).toMatch(
        defaultDevice() === 'cpu'
          ? /from 0 to 4, got 5 at position 1/
          : /from 0 to 4; the value at position 1 is/,
      );
      const negative = tensor(Int32Array.from([-1, 0]));
      expect(codeOf(waited(() => scatterAddRows([5, 2], negative, zeros([2, 2]))))).toBe(
        'ERR_LIBMOE_ARGUMENT',
      );
      // Work goes on after it.
      expect(gatherRows(tensor([1, 2, 3, 4], [2, 2]), tensor(Int32Array.of(1))).toArray()).toEqual([3, 4]);
      expect(codeOf(caught(() => scatterAddRows([5, 2], negative, zeros([3, 2]))))).toBe('ERR_LIBMOE_SHAPE');
      expect(codeOf(caught(() => gatherRows(zeros([5, 2]), zeros([2]))))).toBe('ERR_LIBMOE_DTYPE');
    });
  });
});

describe('pad, expand and repeat', () => {
  it('pad surrounds, any dtype', () => {
    scope(() => {
      for (const dtype of dtypes) {
        const y = pad(tensor([1, 1, 1, 1], [2, 2], { dtype }), [
          [1, 0],
          [0, 1],
        ]);
        expect(y.toArray()).toEqual([0, 0, 0, 1, 1, 0, 1, 1, 0]);
      }
      expect(pad(tensor([5]), [[0, 2]], -1).toArray()).toEqual([5, -1, -1]);
      gradientCheck((x) => pad(x, [[1, 2]], 3), [sample([2, 3], 1, 'f64', true)]);
      expect(codeOf(caught(() => pad(tensor([5]), [[-1, 0]])))).toBe('ERR_LIBMOE_ARGUMENT');
    });
  });

  it('repeat lays copies side by side', () => {
    fc.assert(
      fc.property(
        fc
          .integer({ min: 1, max: 3 })
          .chain((rank) => fc.tuple(shapeOf(rank, 4), shapeOf(rank, 3), anyDtype)),
        ([shape, times, dtype]) =>
          scope(() => {
            const x = counting(shape, dtype);
            const data = x.toArray();
            const y = repeat(x, times);
            const result = shape.map((s, i) => s * times[i]!);
            expect(y.shape).toEqual(result);
            expect(y.toArray()).toEqual(
              positions(result).map(
                (index) =>
                  data[
                    flatten(
                      index.map((v, i) => v % shape[i]!),
                      shape,
                    )
                  ]!,
              ),
            );
          }),
      ),
    );
  });

  it('have gradients', () => {
    scope(() => {
      gradientCheck((x) => repeat(x, [2, 3]), [sample([2, 3], 1, 'f64', true)]);
      gradientCheck((x) => expand(x, [4, 2, 3]), [sample([2, 1], 1, 'f64', true)]);
      expect(codeOf(caught(() => expand(zeros([2]), [3])))).toBe('ERR_LIBMOE_SHAPE');
      expect(distance(expand(tensor([1, 2]), [2, 2]).toArray(), [1, 2, 1, 2])).toBe(0);
    });
  });
});
