import { fail, native } from '../native/index.ts';
import { filled } from './broadcast.ts';
import { defaultDevice } from './default-device.ts';
import type { Tensor, TensorOptions } from './tensor.ts';

/**
 * Where random numbers come from: a value depends on seed, stream and the element's index alone (Philox4x32-10, Salmon et al., SC 2011), never on
 * threads or on what was drawn before. Both are integers from 0 to 2^53 - 1.
 */
export interface RandomSeed extends TensorOptions {
  seed: number;
  /** Default 0; streams of one seed are independent. */
  stream?: number;
}

export interface NormalOptions extends RandomSeed {
  mean?: number;
  std?: number;
}

export interface UniformOptions extends RandomSeed {
  low?: number;
  high?: number;
}

export interface TruncatedNormalOptions extends RandomSeed {
  std?: number;
  /** In standard deviations; default 2. */
  bound?: number;
}

function drawn(
  shape: readonly number[],
  options: RandomSeed,
  fill: (y: number, stream: number) => void,
): Tensor {
  const { stream = 0, dtype = 'f32', device = defaultDevice(), requiresGrad = false } = options;
  const y = filled(shape, { dtype, device }, (handle) => fill(handle, stream));
  y.requiresGrad = requiresGrad;
  return y;
}

/** Normal numbers (f32, bf16 = the rounded f32, f64). Throws ERR_LIBMOE_ARGUMENT for a bad seed, stream or std. */
export function randn(shape: readonly number[], options: NormalOptions): Tensor {
  const { mean = 0, std = 1 } = options;
  return drawn(shape, options, (y, stream) => native().randomNormal(y, options.seed, stream, mean, std));
}

/** Uniform numbers in [low, high), default [0, 1); in bf16 rounding may reach `high`. */
export function uniform(shape: readonly number[], options: UniformOptions): Tensor {
  const { low = 0, high = 1 } = options;
  return drawn(shape, options, (y, stream) => native().randomUniform(y, options.seed, stream, low, high));
}

/** [rows, n]: each row as {@link uniform} gives [n] for the stream that `streams` (i32 [rows], on the device of the result) names for it. */
export function uniformRows(
  streams: Tensor,
  n: number,
  options: Omit<UniformOptions, 'stream' | 'device'>,
): Tensor {
  const { low = 0, high = 1, seed } = options;
  return drawn([streams.size, n], { ...options, device: streams.device }, (y) =>
    native().randomUniformRows(y, streams.handle, seed, low, high),
  );
}

/** Normal numbers of mean 0 and the given `std` before truncation, conditioned on |x| <= bound · std. */
export function truncatedNormal(shape: readonly number[], options: TruncatedNormalOptions): Tensor {
  const { std = 1, bound = 2 } = options;
  return drawn(shape, options, (y, stream) =>
    native().randomTruncatedNormal(y, options.seed, stream, std, bound),
  );
}

/** 1 with probability `p`, else 0. dtype f32 (default), bf16, f64, bool or u8. */
export function bernoulli(shape: readonly number[], p: number, options: RandomSeed): Tensor {
  return drawn(shape, options, (y, stream) => native().randomBernoulli(y, options.seed, stream, p));
}

/** A random order of 0 … n−1, i32 [n]. */
export function randomPermutation(n: number, options: Omit<RandomSeed, 'dtype' | 'requiresGrad'>): Tensor {
  if (!Number.isInteger(n) || n < 0 || n > 2 ** 31 - 1)
    fail('ERR_LIBMOE_ARGUMENT', `randomPermutation expects a count from 0 to 2^31 - 1, got ${n}`);
  return drawn([n], { ...options, dtype: 'i32' }, (y, stream) =>
    native().randomPermutation(y, options.seed, stream),
  );
}
