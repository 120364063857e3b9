import { fail, native } from '../native/index.ts';
import { record } from './autograd.ts';
import {
  type BinaryName,
  binaryInto,
  binaryRaw,
  broadcastShape,
  expandRaw,
  filled,
  unbroadcast,
} from './broadcast.ts';
import { type Dtype, isFloat } from './dtype.ts';
import { emptyLike, full, type Tensor, view } from './tensor.ts';

/** Order of native/ops/elementwise.h. */
const unaries = [
  'negate',
  'exp',
  'log',
  'sqrt',
  'reciprocal',
  'abs',
  'square',
  'sigmoid',
  'tanh',
  'erf',
  'relu',
  'silu',
  'geluErf',
  'geluTanh',
  'quickGelu',
  'softplus',
] as const;
type UnaryName = (typeof unaries)[number];

function unary(name: UnaryName, x: Tensor): Tensor {
  const f = unaries.indexOf(name);
  const y = filled(x.shape, x, (out) => native().unary(f, x.handle, out));
  record({
    name,
    inputs: [x],
    outputs: [y],
    saved: [x],
    again: () => native().unary(f, x.handle, y.handle),
    backward: ([dy]) => {
      const dx = emptyLike(x);
      native().unaryBackward(f, x.handle, dy!.handle, dx.handle);
      return [dx];
    },
  });
  return y;
}

// One operand each: f32, bf16 (computed in f32, rounded once) or f64; the result has the operand's shape and dtype.
/** −x. */
export const negate = (x: Tensor): Tensor => unary('negate', x);
/** e^x. */
export const exp = (x: Tensor): Tensor => unary('exp', x);
/** Natural logarithm; −∞ at 0, NaN below. */
export const log = (x: Tensor): Tensor => unary('log', x);
/** Square root; its derivative at 0 is ∞. */
export const sqrt = (x: Tensor): Tensor => unary('sqrt', x);
/** 1 / x. */
export const reciprocal = (x: Tensor): Tensor => unary('reciprocal', x);
/** |x|, with derivative 0 at 0. */
export const abs = (x: Tensor): Tensor => unary('abs', x);
/** x². */
export const square = (x: Tensor): Tensor => unary('square', x);
/** 1 / (1 + e^−x). */
export const sigmoid = (x: Tensor): Tensor => unary('sigmoid', x);
/** Hyperbolic tangent. */
export const tanh = (x: Tensor): Tensor => unary('tanh', x);
/** Gauss's error function. */
export const erf = (x: Tensor): Tensor => unary('erf', x);
/** max(x, 0), with derivative 0 at 0; NaN stays NaN. */
export const relu = (x: Tensor): Tensor => unary('relu', x);
/** x · sigmoid(x) (Elfwing et al., arXiv 1702.03118), "swish". */
export const silu = (x: Tensor): Tensor => unary('silu', x);
/** x · sigmoid(1.702 x), the form CLIP uses. */
export const quickGelu = (x: Tensor): Tensor => unary('quickGelu', x);
/** log(1 + e^x). */
export const softplus = (x: Tensor): Tensor => unary('softplus', x);
/** x Φ(x) exactly ('erf'), or its tanh form (Hendrycks & Gimpel, arXiv 1606.08415). */
export const gelu = (x: Tensor, form: 'erf' | 'tanh' = 'erf'): Tensor =>
  unary(form === 'erf' ? 'geluErf' : 'geluTanh', x);

/** alpha · x + beta, rounded once. */
export function scale(x: Tensor, alpha: number, beta = 0): Tensor {
  const y = filled(x.shape, x, (out) => native().affine(x.handle, out, alpha, beta));
  record({
    name: 'scale',
    inputs: [x],
    outputs: [y],
    backward: ([dy]) => {
      const dx = emptyLike(x);
      native().affine(dy!.handle, dx.handle, alpha, 0);
      return [dx];
    },
  });
  return y;
}

/** A tensor operand, or a plain number. At least one of the two operands must be a tensor. */
export type Operand = Tensor | number;

/** Gradients of both operands before they are summed to the operands' shapes. */
type Partials = (dy: Tensor, a: Tensor, b: Tensor) => { a: () => Tensor; b: () => Tensor };

const partials: Record<'add' | 'subtract' | 'multiply' | 'divide' | 'maximum' | 'minimum', Partials> = {
  add: (dy) => ({ a: () => dy, b: () => dy }),
  subtract: (dy) => ({ a: () => dy, b: () => negated(dy) }),
  multiply: (dy, a, b) => ({ a: () => binaryRaw('multiply', dy, b), b: () => binaryRaw('multiply', dy, a) }),
  divide: (dy, a, b) => ({
    a: () => binaryRaw('divide', dy, b),
    b: () => negated(binaryRaw('multiply', dy, binaryRaw('divide', binaryRaw('divide', a, b), b))),
  }),
  maximum: (dy, a, b) => ({ a: () => winner(dy, a, b), b: () => winner(dy, b, a) }),
  minimum: (dy, a, b) => ({ a: () => winner(dy, b, a), b: () => winner(dy, a, b) }),
};

function negated(x: Tensor): Tensor {
  const y = emptyLike(x);
  native().affine(x.handle, y.handle, -1, 0);
  return y;
}

/** dy where a > b, half of it where they are equal: both operands of a tie share the gradient. */
function winner(dy: Tensor, a: Tensor, b: Tensor): Tensor {
  const factor = binaryRaw('greater', a, b);
  native().accumulate(binaryRaw('equal', a, b).handle, factor.handle, 0.5);
  return binaryRaw('multiply', dy, factor);
}

/** Runs `use` with both operands as tensors; a number becomes a scalar tensor, freed afterwards unless the tape keeps it. */
function withTensors<T>(name: string, a: Operand, b: Operand, use: (a: Tensor, b: Tensor) => T): T {
  const like = typeof a === 'number' ? b : a;
  if (typeof like === 'number')
    return fail('ERR_LIBMOE_ARGUMENT', `${name} expects at least one tensor, got two numbers`);
  const made: Tensor[] = [];
  const lift = (x: Operand): Tensor => {
    if (typeof x !== 'number') return x;
    const t = full([], x, { dtype: like.dtype, device: like.device });
    made.push(t);
    return t;
  };
  try {
    return use(lift(a), lift(b));
  } finally {
    for (const t of made) t.dispose();
  }
}

function binary(name: keyof typeof partials, a: Operand, b: Operand): Tensor {
  return withTensors(name, a, b, (a, b) => {
    const y = binaryRaw(name, a, b);
    const linear = name === 'add' || name === 'subtract';
    record({
      name,
      inputs: [a, b],
      outputs: [y],
      ...(!linear && { saved: [a, b], again: () => binaryInto(name, a, b, y.handle) }),
      backward: ([dy], sink) => {
        const of = partials[name](dy!, a, b);
        return [
          sink.needs(0) ? unbroadcast(of.a(), a.shape) : undefined,
          sink.needs(1) ? unbroadcast(of.b(), b.shape) : undefined,
        ];
      },
    });
    return y;
  });
}

// Two operands of one dtype, broadcast like NumPy's; a number takes the dtype of the other operand. Throw ERR_LIBMOE_SHAPE and ERR_LIBMOE_DTYPE.
/** a + b. */
export function add(a: Operand, b: Operand): Tensor {
  if (typeof b === 'number' && typeof a !== 'number') return scale(a, 1, b);
  if (typeof a === 'number' && typeof b !== 'number') return scale(b, 1, a);
  return binary('add', a, b);
}
/** a − b. */
export function subtract(a: Operand, b: Operand): Tensor {
  if (typeof b === 'number' && typeof a !== 'number') return scale(a, 1, -b);
  if (typeof a === 'number' && typeof b !== 'number') return scale(b, -1, a);
  return binary('subtract', a, b);
}
/** a · b. */
export function multiply(a: Operand, b: Operand): Tensor {
  if (typeof b === 'number' && typeof a !== 'number') return scale(a, b);
  if (typeof a === 'number' && typeof b !== 'number') return scale(b, a);
  return binary('multiply', a, b);
}
/** a / b. */
export const divide = (a: Operand, b: Operand): Tensor => binary('divide', a, b);
/** The larger of both; a NaN wins; equal operands share the gradient. */
export const maximum = (a: Operand, b: Operand): Tensor => binary('maximum', a, b);
/** The smaller of both; a NaN wins; equal operands share the gradient. */
export const minimum = (a: Operand, b: Operand): Tensor => binary('minimum', a, b);

function comparison(name: BinaryName, a: Operand, b: Operand): Tensor {
  return withTensors(name, a, b, (a, b) => {
    using flags = binaryRaw(name, a, b);
    return filled(flags.shape, { dtype: 'bool', device: flags.device }, (out) =>
      native().cast(flags.handle, out),
    );
  });
}

// Comparisons broadcast too and give bool; no gradient. A comparison with NaN is false.
/** a > b. */
export const greater = (a: Operand, b: Operand): Tensor => comparison('greater', a, b);
/** a >= b. */
export const greaterEqual = (a: Operand, b: Operand): Tensor => comparison('greaterEqual', a, b);
/** a = b. */
export const equal = (a: Operand, b: Operand): Tensor => comparison('equal', a, b);

/** `a` where `mask` (bool) is true, else `b`; all three broadcast together. */
export function where(mask: Tensor, a: Operand, b: Operand): Tensor {
  return withTensors('where', a, b, (a, b) => {
    const shape = broadcastShape('where', broadcastShape('where', a.shape, b.shape), mask.shape);
    const y = selectRaw(mask, a, b, shape);
    record({
      name: 'where',
      inputs: [undefined, a, b],
      outputs: [y],
      saved: [mask],
      backward: ([dy], sink) => {
        const none = full([], 0, { dtype: y.dtype, device: y.device });
        return [
          undefined,
          sink.needs(1) ? unbroadcast(selectRaw(mask, dy!, none, shape), a.shape) : undefined,
          sink.needs(2) ? unbroadcast(selectRaw(mask, none, dy!, shape), b.shape) : undefined,
        ];
      },
    });
    return y;
  });
}

function selectRaw(mask: Tensor, a: Tensor, b: Tensor, shape: readonly number[]): Tensor {
  const parts = [mask, a, b];
  const full = parts.map((t) => expandRaw(t, shape));
  try {
    const [m, x, z] = full;
    return filled(shape, a, (out) => native().where(m!.handle, x!.handle, z!.handle, out));
  } finally {
    full.forEach((t, i) => {
      if (t !== parts[i]) t.dispose();
    });
  }
}

/** Overwrites all elements of `to` by those of `from`, converted to its dtype, on the device. Throws ERR_LIBMOE_SHAPE for another shape. */
export function assign(to: Tensor, from: Tensor): void {
  if (to.shape.join() !== from.shape.join())
    fail(
      'ERR_LIBMOE_SHAPE',
      `assign() expects [${to.shape.join(', ')}], the shape of its target, got [${from.shape.join(', ')}]`,
    );
  native().cast(from.handle, to.handle);
}

/**
 * The values converted to `dtype`: floats to integers toward zero, anything to bool by x ≠ 0. Differentiable between float types.
 * Shares storage when `x` has that dtype already.
 */
export function cast(x: Tensor, dtype: Dtype): Tensor {
  const y =
    dtype === x.dtype
      ? view(x, x.shape)
      : filled(x.shape, { dtype, device: x.device }, (out) => native().cast(x.handle, out));
  if (isFloat(dtype) && isFloat(x.dtype)) {
    record({
      name: 'cast',
      inputs: [x],
      outputs: [y],
      backward: ([dy]) => [
        x.dtype === dtype ? dy : filled(x.shape, x, (out) => native().cast(dy!.handle, out)),
      ],
    });
  }
  return y;
}
