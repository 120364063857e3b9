import { describe, expect, it } from 'vitest';
import { codeOf } from '../../ts/native/index.ts';
import * as ops from '../../ts/tensor/elementwise.ts';
import { type Dtype, full, noGrad, scope, type Tensor, tensor } from '../../ts/tensor/index.ts';
import { cat } from '../../ts/tensor/shape.ts';
import { gradientCheck } from './gradient-check.ts';
import { distance, sample, values, withThreads } from './values.ts';

const sigmoid = (x: number) => 1 / (1 + Math.exp(-x));
/** A series of positive terms below 3, continued fraction above. */
function erf(x: number): number {
  const a = Math.abs(x);
  if (a > 3) {
    let f = a;
    for (let k = 60; k >= 1; k -= 1) f = a + k / 2 / f;
    return Math.sign(x) * (1 - Math.exp(-a * a) / Math.sqrt(Math.PI) / f);
  }
  let term = x;
  let sum = x;
  for (let n = 1; n < 100; n += 1) {
    term *= (2 * x * x) / (2 * n + 1);
    sum += term;
  }
  return (2 / Math.sqrt(Math.PI)) * Math.exp(-x * x) * sum;
}

const unaries: Record<string, [(x: Tensor) => Tensor, (x: number) => number, positive?: boolean]> = {
  negate: [ops.negate, (x) => -x],
  exp: [ops.exp, Math.exp],
  log: [ops.log, Math.log, true],
  sqrt: [ops.sqrt, Math.sqrt, true],
  reciprocal: [ops.reciprocal, (x) => 1 / x, true],
  abs: [ops.abs, Math.abs],
  square: [ops.square, (x) => x * x],
  sigmoid: [ops.sigmoid, sigmoid],
  tanh: [ops.tanh, Math.tanh],
  erf: [ops.erf, erf],
  relu: [ops.relu, (x) => Math.max(x, 0)],
  silu: [ops.silu, (x) => x * sigmoid(x)],
  geluErf: [(x) => ops.gelu(x), (x) => 0.5 * x * (1 + erf(x / Math.SQRT2))],
  geluTanh: [
    (x) => ops.gelu(x, 'tanh'),
    (x) => 0.5 * x * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (x + 0.044715 * x ** 3))),
  ],
  quickGelu: [ops.quickGelu, (x) => x * sigmoid(1.702 * x)],
  softplus: [ops.softplus, (x) => Math.max(x, 0) + Math.log1p(Math.exp(-Math.abs(x)))],
};

const tolerance: Partial<Record<Dtype, number>> = { f64: 2e-14, f32: 1e-6, bf16: 2 ** -8 };

/** Inputs in the range where each function is interesting; positive ones away from zero. */
const inputs = (n: number, positive = false) =>
  values(n, 3).map((v) => (positive ? Math.abs(v) + 0.2 : 3 * v));

describe.each(Object.entries(unaries))('%s', (_, [op, reference, positive]) => {
  it.each(['f64', 'f32', 'bf16'] as const)('agrees with a plain computation in %s', (dtype) => {
    scope(() => {
      for (const n of [0, 1, 7, 16, 33, 1000]) {
        const x = tensor(inputs(n, positive), [n], { dtype });
        const expected = x.toArray().map(reference);
        const actual = op(x).toArray();
        expected.forEach((e, i) => {
          expect(Math.abs(actual[i]! - e)).toBeLessThanOrEqual(tolerance[dtype]! * Math.max(1, Math.abs(e)));
        });
      }
    });
  });

  it('has the gradient of central differences', () => {
    scope(() => {
      const x = tensor(inputs(19, positive), [19], { dtype: 'f64', requiresGrad: true });
      gradientCheck(op, [x], { tolerance: 1e-6 });
    });
  });

  it('keeps a NaN and does not depend on threads or neighbours', () => {
    scope(() => {
      expect(op(full([3], Number.NaN)).toArray()).toEqual([Number.NaN, Number.NaN, Number.NaN]);
      const data = inputs(40_003, positive);
      const one = withThreads(1, () => op(tensor(data, undefined, { dtype: 'f32' })).toArray());
      const two = withThreads(2, () => op(tensor(data, undefined, { dtype: 'f32' })).toArray());
      expect(two.every((v, i) => v === one[i])).toBe(true);
      const tail = op(tensor(data.slice(40_000), undefined, { dtype: 'f32' })).toArray();
      expect(tail).toEqual(one.slice(40_000));
    });
  });
});

type Operator = (a: number, b: number) => number;
const binaries: Record<string, [typeof ops.add, Operator]> = {
  add: [ops.add, (a, b) => a + b],
  subtract: [ops.subtract, (a, b) => a - b],
  multiply: [ops.multiply, (a, b) => a * b],
  divide: [ops.divide, (a, b) => a / b],
  maximum: [ops.maximum, Math.max],
  minimum: [ops.minimum, Math.min],
};

const shapes: [number[], number[], number[]][] = [
  [[5], [5], [5]],
  [[], [3], [3]],
  [
    [2, 3, 5],
    [3, 1],
    [2, 3, 5],
  ],
  [
    [4, 1],
    [1, 17],
    [4, 17],
  ],
  [
    [2, 1, 3],
    [5, 1],
    [2, 5, 3],
  ],
  [[0, 3], [3], [0, 3]],
  [[1, 3], [3], [1, 3]],
  [
    [33, 70],
    [33, 70],
    [33, 70],
  ],
];

/** Element of `t` (flat values, shape) that meets element `index` of the broadcast shape. */
function at(data: number[], shape: number[], index: number[]): number {
  let flat = 0;
  shape.forEach((size, i) => {
    flat = flat * size + (size === 1 ? 0 : index[index.length - shape.length + i]!);
  });
  return data[flat]!;
}

function indices(shape: number[]): number[][] {
  return shape.reduce<number[][]>(
    (all, size) => all.flatMap((head) => Array.from({ length: size }, (_, i) => [...head, i])),
    [[]],
  );
}

describe.each(Object.entries(binaries))('%s', (_, [op, reference]) => {
  it.each(shapes)('broadcasts %j with %j', (a, b, out) => {
    scope(() => {
      for (const dtype of ['f64', 'f32', 'bf16'] as const) {
        const ta = sample(a, 1, dtype);
        const tb = sample(b, 2, dtype);
        const va = ta.toArray();
        const vb = tb.toArray();
        const y = op(ta, tb);
        expect(y.shape).toEqual(out);
        const expected = indices(out).map((i) => reference(at(va, a, i), at(vb, b, i)));
        expect(distance(y.toArray(), expected)).toBeLessThan(tolerance[dtype]!);
      }
    });
  });

  it.each(shapes.filter(([a]) => !a.includes(33)))('has the gradients of %j with %j', (a, b) => {
    scope(() => {
      gradientCheck(op, [sample(a, 1, 'f64', true), sample(b, 2, 'f64', true)], { tolerance: 1e-5 });
    });
  });

  it('takes numbers on either side', () => {
    scope(() => {
      const x = sample([7], 4, 'f64', true);
      const v = x.toArray();
      expect(
        distance(
          noGrad(() => op(x, 1.5)).toArray(),
          v.map((e) => reference(e, 1.5)),
        ),
      ).toBeLessThan(1e-15);
      expect(
        distance(
          noGrad(() => op(-0.5, x)).toArray(),
          v.map((e) => reference(-0.5, e)),
        ),
      ).toBeLessThan(1e-15);
      gradientCheck((t) => op(t, 1.5), [x]);
      gradientCheck((t) => op(-0.5, t), [x], { tolerance: 1e-4 });
      expect(() => op(1, 2)).toThrow(/at least one tensor/);
    });
  });

  it('rejects shapes that do not fit and mixed dtypes', () => {
    scope(() => {
      expect(codeOf(caught(() => op(sample([2]), sample([3]))))).toBe('ERR_LIBMOE_SHAPE');
      expect(codeOf(caught(() => op(sample([2]), sample([2], 1, 'f32'))))).toBe('ERR_LIBMOE_DTYPE');
    });
  });
});

function caught(fn: () => unknown): unknown {
  try {
    fn();
  } catch (error) {
    return error;
  }
  return undefined;
}

it('a gradient has the shape of its operand, also where only axes of size 1 are missing', () => {
  const inputs = [
    sample([1, 3, 2], 1, 'f64', true),
    sample([1, 2], 2, 'f64', true),
    sample([2, 2], 3, 'f64', true),
  ];
  gradientCheck((x, y, z) => ops.add(x!, cat([y!, z!], 0)), inputs);
  for (const t of inputs) t.dispose();
});

describe('maximum and minimum', () => {
  it('let a NaN win on either side and share the gradient of a tie', () => {
    scope(() => {
      const a = tensor([Number.NaN, 1, 2]);
      const b = tensor([0, Number.NaN, 2]);
      expect(ops.maximum(a, b).toArray()).toEqual([Number.NaN, Number.NaN, 2]);
      expect(ops.minimum(a, b).toArray()).toEqual([Number.NaN, Number.NaN, 2]);
      const x = tensor([2, 3], undefined, { requiresGrad: true });
      const y = tensor([2, 4], undefined, { requiresGrad: true });
      ops.maximum(x, y).backward(tensor([1, 1]));
      expect(x.grad!.toArray()).toEqual([0.5, 0]);
      expect(y.grad!.toArray()).toEqual([0.5, 1]);
      x.grad!.dispose();
      y.grad!.dispose();
    });
  });
});

describe('comparisons, where, cast, scale', () => {
  it('compares to bool', () => {
    scope(() => {
      const a = tensor([1, 2, Number.NaN]);
      expect(ops.greater(a, 1.5).dtype).toBe('bool');
      expect(ops.greater(a, 1.5).toArray()).toEqual([0, 1, 0]);
      expect(ops.greaterEqual(a, tensor([1, 3, 0])).toArray()).toEqual([1, 0, 0]);
      expect(ops.equal(2, a).toArray()).toEqual([0, 1, 0]);
    });
  });

  it('where selects, broadcasts and passes gradients to what was selected', () => {
    scope(() => {
      const mask = tensor([1, 0, 1], [3], { dtype: 'bool' });
      const a = sample([2, 3], 1, 'f64', true);
      const b = sample([2, 1], 2, 'f64', true);
      const [va, vb] = [a.toArray(), b.toArray()];
      expect(noGrad(() => ops.where(mask, a, b)).toArray()).toEqual(
        va.map((v, i) => (i % 3 === 1 ? vb[Math.floor(i / 3)] : v)),
      );
      expect(noGrad(() => ops.where(mask, a, 0)).toArray()).toEqual(va.map((v, i) => (i % 3 === 1 ? 0 : v)));
      gradientCheck((x, y) => ops.where(mask, x, y), [a, b]);
      expect(codeOf(caught(() => ops.where(a, a, b)))).toBe('ERR_LIBMOE_DTYPE');
    });
  });

  it('cast converts both ways and its gradient returns to the first dtype', () => {
    scope(() => {
      const x = tensor([1.75, -2.5, 3.0001], undefined, { dtype: 'f32', requiresGrad: true });
      expect(ops.cast(x, 'i32').toArray()).toEqual([1, -2, 3]);
      expect(ops.cast(x, 'bool').toArray()).toEqual([1, 1, 1]);
      const y = ops.cast(x, 'bf16');
      expect(y.toArray()).toEqual([1.75, -2.5, 3]);
      y.backward(tensor([1, 2, 3], undefined, { dtype: 'bf16' }));
      expect(x.grad!.dtype).toBe('f32');
      expect(x.grad!.toArray()).toEqual([1, 2, 3]);
      x.grad!.dispose();
    });
  });

  it('bf16 conversion rounds to nearest even for every length', () => {
    scope(() => {
      for (const n of [1, 15, 16, 17, 100]) {
        const x = tensor(values(n, 9), [n], { dtype: 'f32' });
        const bits = new Uint32Array((x.readSync() as Float32Array).buffer);
        const expected = Array.from(bits, (b) => ((b + 0x7fff + ((b >>> 16) & 1)) >>> 16) & 0xffff);
        expect(Array.from(ops.cast(x, 'bf16').readSync() as Uint16Array)).toEqual(expected);
      }
      const special = ops.cast(tensor([Number.NaN, Infinity, -Infinity, 3.4e38, -0]), 'bf16').toArray();
      expect(special).toEqual([Number.NaN, Infinity, -Infinity, Infinity, -0]);
    });
  });

  it('scale is alpha x + beta', () => {
    scope(() => {
      const x = sample([9], 1, 'f64', true);
      expect(
        distance(
          ops.scale(x, 2, -1).toArray(),
          x.toArray().map((v) => 2 * v - 1),
        ),
      ).toBeLessThan(1e-15);
      gradientCheck((t) => ops.scale(t, -3, 0.5), [x]);
    });
  });
});
