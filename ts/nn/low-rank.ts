import { fail } from '../native/index.ts';
import { add, cast, scale } from '../tensor/elementwise.ts';
import { linear } from '../tensor/gemm.ts';
import { keep, noGrad, scope, type Tensor } from '../tensor/index.ts';
import { transpose } from '../tensor/shape.ts';
import { type InitialValues, kaimingUniform, startWith } from './initialisers.ts';
import { newParameter } from './linear-options.ts';
import { Module } from './module.ts';

/** How large a {@link LowRank} is. */
export interface LowRankOptions {
  /** Rank of what is added to a matrix. */
  rank: number;
  /** The product is multiplied by alpha / rank. */
  alpha: number;
}

/**
 * What is learnt beside a matrix that stays as it is (LoRA, Hu et al. 2021, arXiv 2106.09685): alpha / rank · up · down. `up` starts as zeros, so
 * nothing is added at first.
 */
export class LowRank extends Module {
  /** alpha / rank. */
  readonly factor: number;
  /** `[rank, inputs]` */
  down: Tensor;
  /** `[outputs, rank]` */
  up: Tensor;

  /** @param weight the matrix `[outputs, inputs]` @throws ERR_LIBMOE_ARGUMENT for a rank that is no positive integer, or an alpha that is not positive */
  constructor(weight: Tensor, { rank, alpha }: LowRankOptions, values: InitialValues) {
    super();
    if (!(Number.isInteger(rank) && rank > 0 && alpha > 0))
      fail(
        'ERR_LIBMOE_ARGUMENT',
        `LowRank: rank must be a positive integer and alpha positive, got ${rank} and ${alpha}`,
      );
    const [outputs = 0, inputs = 0] = weight.shape;
    const { dtype, device } = weight;
    this.factor = alpha / rank;
    this.down = newParameter([rank, inputs], { dtype, device });
    startWith(this.down, values, 'down', kaimingUniform());
    this.up = newParameter([outputs, rank], { dtype, device });
  }

  /** @param x `[..., inputs]` @returns `[..., outputs]` */
  forward(x: Tensor): Tensor {
    return scale(linear(linear(x, this.down), this.up), this.factor);
  }

  /** The matrix with what was learnt in it, computed in f32 at least and rounded once; the caller's. */
  merged(weight: Tensor): Tensor {
    const dtype = weight.dtype === 'f64' ? 'f64' : 'f32';
    return noGrad(() =>
      scope(() => {
        const [up, down, base] = [this.up, this.down, weight].map((t) =>
          t.dtype === dtype ? t : cast(t, dtype),
        ) as [Tensor, Tensor, Tensor];
        const sum = add(base, scale(linear(up, transpose(down)), this.factor));
        return keep(sum.dtype === weight.dtype ? sum : cast(sum, weight.dtype));
      }),
    );
  }
}

/** What a layer gives for x, with what is learnt beside its matrix; nothing in between outlives this. */
export const withBeside = (beside: LowRank | undefined, x: Tensor, layer: () => Tensor): Tensor =>
  beside === undefined ? layer() : scope(() => add(layer(), beside.forward(x)));
