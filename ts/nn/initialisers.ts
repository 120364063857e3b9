import { fail } from '../native/index.ts';
import { cast } from '../tensor/elementwise.ts';
import { full, noGrad, type Tensor, zeros } from '../tensor/index.ts';
import { truncatedNormal as drawTruncated, uniform as drawUniform, randn } from '../tensor/random.ts';
import type { Module } from './module.ts';

/** Where the random numbers of one tensor come from: every (seed, name) pair has its own Philox stream. */
export interface RandomSource {
  seed: number;
  name: string;
}

/**
 * Overwrites a tensor with initial values. Values are drawn in f32 and rounded once to the tensor's dtype; on the CPU, so that a model starts
 * alike on every device.
 */
export type Initialiser = (target: Tensor, source: RandomSource) => void;

/** How a layer's constructor starts its parameters: drawn from a seed and a name, or `'later'` (zeros, for a model that draws by path or loads). */
export type InitialValues = RandomSource | 'later';

/** The Philox stream of a name: 52 bits of two FNV-1a hashes, so that a parameter's values depend on the seed and its name alone. */
export function streamOf(name: string): number {
  let low = 0x811c9dc5;
  let high = 0x9747b28c;
  for (const byte of new TextEncoder().encode(name)) {
    low = Math.imul(low ^ byte, 0x01000193);
    high = Math.imul(high ^ byte, 0x01000193) ^ (low >>> 15);
  }
  return (high >>> 12) * 2 ** 32 + (low >>> 0);
}

function fill(target: Tensor, draw: () => Tensor): void {
  noGrad(() => {
    using values = draw();
    if (values.dtype === target.dtype) return target.write(values.readSync());
    using rounded = cast(values, target.dtype);
    target.write(rounded.readSync());
  });
}

/** Gaussian with the given standard deviation and mean. */
export function normal(std: number, mean = 0): Initialiser {
  return (target, { seed, name }) =>
    fill(target, () => randn(target.shape, { seed, stream: streamOf(name), mean, std, device: 'cpu' }));
}

/** Gaussian of standard deviation `std` before values beyond `bound` standard deviations are drawn anew. */
export function truncatedNormal(std: number, bound: number): Initialiser {
  return (target, { seed, name }) =>
    fill(target, () =>
      drawTruncated(target.shape, { seed, stream: streamOf(name), std, bound, device: 'cpu' }),
    );
}

/** Uniform in [-bound, bound). */
export function uniformWithin(bound: number): Initialiser {
  return (target, { seed, name }) =>
    fill(target, () =>
      drawUniform(target.shape, { seed, stream: streamOf(name), low: -bound, high: bound, device: 'cpu' }),
    );
}

/**
 * The default of PyTorch's Linear: Kaiming uniform with a = √5, which is U(−1/√fanIn, 1/√fanIn) for weights and biases alike.
 * `fanIn` defaults to the last dimension of the tensor.
 */
export function kaimingUniform(fanIn?: number): Initialiser {
  return (target, source) => uniformWithin(1 / Math.sqrt(fanIn ?? target.shape.at(-1) ?? 1))(target, source);
}

/**
 * Gaussian truncated at two standard deviations and then rescaled so that the empirical (n − 1) standard deviation of the tensor is exactly
 * `std`, as LibMoE draws the linear layers of a block.
 */
export function rescaledTruncatedNormal(std: number): Initialiser {
  return (target, { seed, name }) => {
    noGrad(() => {
      using drawn = drawTruncated(target.shape, {
        seed,
        stream: streamOf(name),
        std: 1,
        bound: 2,
        device: 'cpu',
      });
      const values = drawn.readSync() as Float32Array;
      target.write(rescaled(values, std));
    });
  };
}

function rescaled(values: Float32Array, std: number): Float32Array {
  let mean = 0;
  for (const value of values) mean += value;
  mean /= values.length;
  let squares = 0;
  for (const value of values) squares += (value - mean) ** 2;
  const empirical = Math.sqrt(squares / Math.max(1, values.length - 1));
  const factor = empirical > 0 ? std / empirical : std;
  return values.map((value) => value * factor);
}

/**
 * One of `parts` equal parts, by rows, of a matrix that is drawn whole under the name `whole`: for layers that elsewhere are one matrix.
 */
export function partOf(whole: string, part: number, parts: number, initialiser: Initialiser): Initialiser {
  return (target, { seed }) => {
    using all = zeros([target.shape[0]! * parts, ...target.shape.slice(1)], { device: 'cpu' });
    initialiser(all, { seed, name: whole });
    const values = all.readSync() as Float32Array;
    target.write(values.slice(part * target.size, (part + 1) * target.size));
  };
}

/** Every value the same. */
export function constant(value: number): Initialiser {
  return (target) => fill(target, () => full(target.shape, value, { device: 'cpu' }));
}

/** Every value 0. */
export const zerosInitialiser: Initialiser = constant(0);
/** Every value 1. */
export const onesInitialiser: Initialiser = constant(1);

/** Applies `initialiser` unless the values come later. */
export function startWith(
  target: Tensor,
  values: InitialValues,
  field: string,
  initialiser: Initialiser,
): void {
  if (values === 'later') return;
  initialiser(target, { seed: values.seed, name: values.name === '' ? field : `${values.name}.${field}` });
}

/**
 * Draws every parameter of a module anew, each from the stream of its own dotted path.
 * @param rule the initialiser of a parameter, or undefined to leave it as it is
 * @throws ERR_LIBMOE_ARGUMENT when the seed is not a safe integer ≥ 0
 */
export function initialise(
  module: Module,
  seed: number,
  rule: (path: string, parameter: Tensor) => Initialiser | undefined,
): void {
  if (!Number.isSafeInteger(seed) || seed < 0) {
    fail('ERR_LIBMOE_ARGUMENT', `a seed is an integer from 0 to 2^53 - 1, got ${seed}`);
  }
  for (const [name, parameter] of module.namedParameters())
    rule(name, parameter)?.(parameter, { seed, name });
}
