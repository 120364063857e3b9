import { fail } from '../native/index.ts';
import { type DeviceName, type Dtype, keep, noGrad, scope, type Tensor } from '../tensor/index.ts';
import { type RotaryTable, rotary, rotaryTable } from '../tensor/rotary.ts';
import { cat, reshape } from '../tensor/shape.ts';
import { type RotaryFrequencies, type RotaryScaling, rotaryFrequencies } from './rotary-scaling.ts';

/** Settings of the rotary position embedding: the first `dims` channels of a head turn, pair (j, j + dims/2) by position · base^(−2j/dims). */
export interface RotaryOptions {
  dims: number;
  base: number;
  /** Pair j is (2j, 2j + 1) instead. */
  interleaved?: boolean | undefined;
  scaling?: RotaryScaling;
}

/**
 * The cosines and sines of rotary position embedding (Su et al. 2021, arXiv 2104.09864), shared by all layers of a model. Not a module:
 * the table follows from its options, so it is in no checkpoint. It grows when a later position is asked for.
 */
export class Rotary {
  readonly dims: number;
  readonly base: number;
  readonly interleaved: boolean;
  /** Sequences of more tokens than this turn all of their tokens otherwise than shorter ones: no cached key stays valid beyond it. */
  readonly turningPoint: number | undefined;
  readonly #frequencies: RotaryFrequencies;
  readonly #tables = new Map<string, { positions: number; table: RotaryTable }>();

  /** @throws ERR_LIBMOE_ARGUMENT unless dims is even and positive and base is more than 1 */
  constructor(options: RotaryOptions) {
    if (!Number.isInteger(options.dims) || options.dims < 2 || options.dims % 2 !== 0) {
      fail('ERR_LIBMOE_ARGUMENT', `rotary dims must be even and at least 2, got ${options.dims}`);
    }
    if (!(options.base > 1))
      fail('ERR_LIBMOE_ARGUMENT', `rotary base must be more than 1, got ${options.base}`);
    this.dims = options.dims;
    this.base = options.base;
    this.interleaved = options.interleaved ?? false;
    const { scaling } = options;
    this.#frequencies = rotaryFrequencies(options.dims, options.base, scaling);
    this.turningPoint = scaling?.kind === 'longrope' ? scaling.originalPositions : undefined;
  }

  /**
   * The rows of the table for packed tokens, which {@link apply} takes: their positions, unless a long sequence turns otherwise than a short one.
   * @param positions `[tokens]`, those of a sequence ascending
   * @param offsets where each sequence begins, and the number of tokens
   */
  rows(positions: Int32Array, offsets: Int32Array): Int32Array {
    const limit = this.turningPoint;
    if (limit === undefined) return positions;
    const rows = positions.map((position) => 2 * position);
    for (let sequence = 0; sequence + 1 < offsets.length; sequence++) {
      const end = offsets[sequence + 1]!;
      if (end === offsets[sequence]! || positions[end - 1]! < limit) continue;
      for (let token = offsets[sequence]!; token < end; token++) rows[token]! += 1;
    }
    return rows;
  }

  /** Makes sure that the table for such tensors reaches `positions` positions. Call before {@link apply}; cheap when it already does. */
  reserve(positions: number, like: { device: DeviceName; dtype: Dtype }): void {
    const key = keyOf(like);
    const known = this.#tables.get(key);
    if (known !== undefined && known.positions >= positions) return;
    const size = Math.max(64, 2 ** Math.ceil(Math.log2(Math.max(1, positions))));
    const dtype = like.dtype === 'f64' ? 'f64' : 'f32';
    const table = this.#table(size, dtype, like.device);
    this.#tables.set(key, { positions: size, table });
    known?.table.cos.dispose();
    known?.table.sin.dispose();
  }

  /** Where short and long sequences differ, row 2m is position m of a short one, row 2m + 1 of a long one. */
  #table(positions: number, dtype: 'f32' | 'f64', device: DeviceName): RotaryTable {
    const { frequencies, longFrequencies, attentionFactor } = this.#frequencies;
    const make = (inverseFrequencies: number[]): RotaryTable =>
      rotaryTable({
        dims: this.dims,
        inverseFrequencies,
        amplitude: attentionFactor,
        positions,
        dtype,
        device,
      });
    return noGrad(() =>
      scope(() => {
        const short = make(frequencies);
        const long = longFrequencies && make(longFrequencies);
        const joined = (rows: Tensor, between?: Tensor): Tensor =>
          keep(between ? reshape(cat([rows, between], 1), [2 * positions, this.dims / 2]) : rows);
        return { cos: joined(short.cos, long?.cos), sin: joined(short.sin, long?.sin) };
      }),
    );
  }

  /**
   * @param x `[tokens, heads, headDim]`
   * @param rows i32 `[tokens]`: what {@link rows} gives, for positions below what was reserved
   * @returns `[tokens, heads, headDim]`
   */
  apply(x: Tensor, rows: Tensor): Tensor {
    const known = this.#tables.get(keyOf(x));
    if (known === undefined) {
      return fail(
        'ERR_LIBMOE_STATE',
        `rotary: no table for ${x.dtype} on ${x.device}; call reserve(positions, tensor) first`,
      );
    }
    return rotary(x, known.table, rows, { interleaved: this.interleaved });
  }

  /** Frees the table of angles. */
  dispose(): void {
    for (const { table } of this.#tables.values()) {
      table.cos.dispose();
      table.sin.dispose();
    }
    this.#tables.clear();
  }
}

const keyOf = (like: { device: DeviceName; dtype: Dtype }): string =>
  `${like.device}/${like.dtype === 'f64' ? 'f64' : 'f32'}`;
