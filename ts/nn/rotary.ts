import { fail } from '../native/index.ts';
import { type DeviceName, type Dtype, keep, type Tensor } from '../tensor/index.ts';
import { type RotaryTable, rotary, rotaryTable } from '../tensor/rotary.ts';

/** Settings of the rotary position embedding: the first `dims` channels of a head turn, pair (j, j + dims/2) by position · base^(−2j/dims). */
export interface RotaryOptions {
  dims: number;
  base: number;
}

/**
 * The cosines and sines of rotary position embedding (Su et al. 2021, arXiv 2104.09864), shared by all layers of a model. Not a module:
 * the table follows from its options, so it is in no checkpoint. It grows when a later position is asked for.
 */
export class Rotary {
  readonly dims: number;
  readonly base: number;
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
  }

  /** Makes sure that the table for such tensors reaches `positions` positions. Call before {@link apply}; cheap when it already does. */
  reserve(positions: number, like: { device: DeviceName; dtype: Dtype }): void {
    const key = keyOf(like);
    const known = this.#tables.get(key);
    if (known !== undefined && known.positions >= positions) return;
    const size = Math.max(64, 2 ** Math.ceil(Math.log2(Math.max(1, positions))));
    const dtype = like.dtype === 'f64' ? 'f64' : 'f32';
    const table = rotaryTable({
      dims: this.dims,
      base: this.base,
      positions: size,
      dtype,
      device: like.device,
    });
    keep(table.cos);
    keep(table.sin);
    this.#tables.set(key, { positions: size, table });
    known?.table.cos.dispose();
    known?.table.sin.dispose();
  }

  /**
   * @param x `[tokens, heads, headDim]`
   * @param positions i32 `[tokens]`, each below what was reserved
   * @returns `[tokens, heads, headDim]`
   */
  apply(x: Tensor, positions: Tensor): Tensor {
    const known = this.#tables.get(keyOf(x));
    if (known === undefined) {
      return fail(
        'ERR_LIBMOE_STATE',
        `rotary: no table for ${x.dtype} on ${x.device}; call reserve(positions, tensor) first`,
      );
    }
    return rotary(x, known.table, positions);
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
