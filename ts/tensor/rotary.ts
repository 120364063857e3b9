import { fail, native } from '../native/index.ts';
import { record } from './autograd.ts';
import { defaultDevice } from './default-device.ts';
import type { DeviceName } from './dtype.ts';
import { emptyLike, type Tensor, tensor } from './tensor.ts';

/** Angles of a rotary embedding. */
export interface RotaryTableOptions {
  /** Channels per head that are turned: even, at least 2; half of them are pairs. */
  dims: number;
  /** Pair j turns by base^(−2j / dims) per position. Default 10000. */
  base?: number;
  /** Rows of the table: one more than the largest position that will be asked for. */
  positions: number;
  /** Angle per position of each pair [dims / 2], instead of the powers of `base`: what context-extension methods compute. */
  inverseFrequencies?: readonly number[];
  /** Factor on every cosine and sine; default 1. */
  amplitude?: number;
  /** f32, or f64 for f64 tensors. Default f32. */
  dtype?: 'f32' | 'f64';
  device?: DeviceName;
}

/** Cosine and sine of every position's angles, both [positions, dims / 2]. */
export interface RotaryTable {
  readonly cos: Tensor;
  readonly sin: Tensor;
}

/**
 * The angles of rotary position embedding (Su et al., arXiv 2104.09864): position m turns pair j by m · base^(−2j / dims).
 * Computed in f64 and rounded once. Throws ERR_LIBMOE_ARGUMENT.
 */
export function rotaryTable(options: RotaryTableOptions): RotaryTable {
  const { dims, base = 10000, positions, amplitude = 1, dtype = 'f32', device = defaultDevice() } = options;
  if (!Number.isInteger(dims) || dims < 2 || dims % 2 !== 0)
    fail('ERR_LIBMOE_ARGUMENT', `rotaryTable expects an even number of dims from 2 on, got ${dims}`);
  if (!Number.isInteger(positions) || positions < 1)
    fail('ERR_LIBMOE_ARGUMENT', `rotaryTable expects a positive number of positions, got ${positions}`);
  if (!(base > 0) || !Number.isFinite(base))
    fail('ERR_LIBMOE_ARGUMENT', `rotaryTable expects a positive base, got ${base}`);
  if (!Number.isFinite(amplitude))
    fail('ERR_LIBMOE_ARGUMENT', `rotaryTable expects a finite amplitude, got ${amplitude}`);
  const pairs = dims / 2;
  const frequencies =
    options.inverseFrequencies ?? Array.from({ length: pairs }, (_, j) => base ** ((-2 * j) / dims));
  if (frequencies.length !== pairs || !frequencies.every(Number.isFinite)) {
    fail(
      'ERR_LIBMOE_ARGUMENT',
      `rotaryTable expects ${pairs} finite inverse frequencies, got ${frequencies.length} values`,
    );
  }
  const cos = new Float64Array(positions * pairs);
  const sin = new Float64Array(positions * pairs);
  for (let m = 0; m < positions; m += 1) {
    for (let j = 0; j < pairs; j += 1) {
      const angle = m * frequencies[j]!;
      cos[m * pairs + j] = amplitude * Math.cos(angle);
      sin[m * pairs + j] = amplitude * Math.sin(angle);
    }
  }
  const shape = [positions, pairs];
  return { cos: tensor(cos, shape, { dtype, device }), sin: tensor(sin, shape, { dtype, device }) };
}

/** Which channels of a head form a pair. */
export interface RotaryOptions {
  /** Pairs are neighbouring channels (2j, 2j + 1), as in GPT-J and llama2.c, instead of (j, j + dims / 2). Default false. */
  interleaved?: boolean;
}

/**
 * Turns the first dims channels of every head by the angles of its token's position; the other channels pass unchanged.
 * x [tokens, heads, headDim] f32, bf16 or f64; positions i32 [tokens]; table in f32 (f64 for f64). Differentiable in x.
 * Throws ERR_LIBMOE_ARGUMENT for a position outside the table, ERR_LIBMOE_SHAPE, ERR_LIBMOE_DTYPE.
 */
export function rotary(
  x: Tensor,
  table: RotaryTable,
  positions: Tensor,
  options: RotaryOptions = {},
): Tensor {
  const { interleaved = false } = options;
  const turn = (from: Tensor, inverse: boolean): Tensor => {
    const to = emptyLike(from);
    native().rotary(
      from.handle,
      table.cos.handle,
      table.sin.handle,
      positions.handle,
      to.handle,
      interleaved,
      inverse,
    );
    return to;
  };
  const y = turn(x, false);
  record({
    name: 'rotary',
    inputs: [x],
    outputs: [y],
    saved: [table.cos, table.sin, positions],
    backward: ([dy]) => [turn(dy!, true)],
  });
  return y;
}
