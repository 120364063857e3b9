import { type Dtype, setThreads, type Tensor, tensor, threads } from '../../ts/tensor/index.ts';

/** Pseudo-random numbers, about standard normal, from the index and a seed alone. */
export function values(n: number, seed = 1): Float64Array {
  let state = (seed * 2654435761 + 12345) >>> 0;
  const next = () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 32;
  };
  return Float64Array.from({ length: n }, () => next() + next() + next() + next() + next() + next() - 3);
}

/** A tensor of {@link values}. */
export function sample(
  shape: readonly number[],
  seed = 1,
  dtype: Dtype = 'f64',
  requiresGrad = false,
): Tensor {
  const n = shape.reduce((a, b) => a * b, 1);
  return tensor(values(n, seed), shape, { dtype, requiresGrad });
}

/** Largest |a − b| relative to 1 + the largest |b|. */
export function distance(a: ArrayLike<number>, b: ArrayLike<number>): number {
  if (a.length !== b.length) return Number.POSITIVE_INFINITY;
  let largest = 1;
  let worst = 0;
  for (let i = 0; i < b.length; i += 1) {
    const d = Math.abs(a[i]! - b[i]!);
    if (!(d <= worst)) worst = Number.isNaN(d) && Object.is(a[i], b[i]) ? worst : d;
    largest = Math.max(largest, Math.abs(b[i]!));
  }
  return worst / largest;
}

/** Runs `fn` with that many threads of the native pool. */
export function withThreads<T>(count: number, fn: () => T): T {
  const before = threads();
  setThreads(count);
  try {
    return fn();
  } finally {
    setThreads(before);
  }
}

/** Whether two reads hold the same bits (−0 differs from 0, a NaN equals its own bits). */
export function sameBits(a: NodeJS.TypedArray, b: NodeJS.TypedArray): boolean {
  const bytes = (x: NodeJS.TypedArray) => Buffer.from(x.buffer, x.byteOffset, x.byteLength);
  return bytes(a).equals(bytes(b));
}
