// Inputs that bench/peers/inputs.py makes bit for bit alike, and how results are thinned for the comparison.
import { type Dtype, type Tensor, tensor } from '../ts/tensor/index.ts';

/** 32 well-mixed bits of (index, seed): multiply and shift, as hash functions end. */
export function mixed(index: number, seed: number): number {
  let h = (index + Math.imul(seed, 0x9e3779b9)) >>> 0;
  h = Math.imul(h ^ (h >>> 16), 0x7feb352d);
  h = Math.imul(h ^ (h >>> 15), 0x846ca68b);
  return (h ^ (h >>> 16)) >>> 0;
}

/**
 * Numbers repeat after so many, the largest prime below 2²²: the inputs of a large layer are made in a moment, and no two rows of a matrix are
 * alike. The same in inputs.py.
 */
export const period = 4194301;

/** `size` elements, the first {@link period} of them made by `value`. */
export function repeated<A extends Float32Array | Int32Array>(data: A, value: (index: number) => number): A {
  const first = Math.min(data.length, period);
  for (let i = 0; i < first; i += 1) data[i] = value(i);
  for (let at = first; at < data.length; at += first)
    data.copyWithin(at, 0, Math.min(first, data.length - at));
  return data;
}

/** What an input is made of. */
export interface InputSpec {
  shape: readonly number[];
  seed: number;
  /** About the standard deviation of uniform numbers around 0; default 1. */
  scale?: number;
  /** Instead: whole numbers from 0 to below − 1, i32. */
  below?: number;
  /** Instead: these whole numbers, i32. */
  values?: readonly number[];
  /** Default: the case's. */
  dtype?: Dtype;
  /** Wants a gradient in training cases. */
  grad?: boolean;
}

export function input(spec: InputSpec, dtype: Dtype, train = false): Tensor {
  const { shape, seed, below, values, scale = 1 } = spec;
  if (values) return tensor(Int32Array.from(values), shape);
  const size = shape.reduce((a, b) => a * b, 1);
  if (below !== undefined)
    return tensor(
      repeated(new Int32Array(size), (i) => mixed(i, seed) % below),
      shape,
    );
  const factor = 1.7 * scale;
  const data = repeated(new Float32Array(size), (i) => ((mixed(i, seed) / 2 ** 32) * 2 - 1) * factor);
  return tensor(data, shape, { dtype: spec.dtype ?? dtype, requiresGrad: train && spec.grad === true });
}

const samples = 4096;

/** A few thousand elements from all over a tensor; the places are those of inputs.py. */
export function sampled(x: Tensor): number[] {
  const { size } = x;
  if (size === 0) return [];
  const raw = x.readSync();
  const wide = new Uint32Array(1);
  const asFloat = new Float32Array(wide.buffer);
  return Array.from({ length: Math.min(size, samples) }, (_, j) => {
    const value = raw[size <= samples ? j : (j * 1000003) % size]!;
    if (x.dtype !== 'bf16') return Number(value);
    wide[0] = Number(value) << 16;
    return asFloat[0]!;
  });
}

/** What other orders of summation and other intermediate roundings may make of a result, relative to its size. */
export const toleranceOf = (dtype: Dtype): number => (dtype === 'bf16' ? 3e-2 : 1e-3);
