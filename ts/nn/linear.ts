import { fail } from '../native/index.ts';
import { linear } from '../tensor/gemm.ts';
import type { Tensor } from '../tensor/index.ts';
import { kaimingUniform, startWith } from './initialisers.ts';
import { firstValues, type LayerOptions, newParameter, requirePositive } from './linear-options.ts';
import { type LowRank, withBeside } from './low-rank.ts';
import { Module } from './module.ts';

export {
  firstValues,
  type LayerOptions,
  newParameter,
  partOptions,
  requirePositive,
} from './linear-options.ts';

/** y = x Wᵀ + b. `weight [outputs, inputs]`, `bias [outputs]`; starts as PyTorch's Linear does. */
export class Linear extends Module {
  readonly inputs: number;
  readonly outputs: number;
  weight: Tensor;
  bias?: Tensor;
  /** Learnt beside the weight: see addLowRank(). */
  beside?: LowRank | undefined;

  /** @throws ERR_LIBMOE_ARGUMENT when a size is not a positive integer */
  constructor(inputs: number, outputs: number, options: LayerOptions & { bias?: boolean } = {}) {
    super();
    requirePositive('Linear', { inputs, outputs });
    this.inputs = inputs;
    this.outputs = outputs;
    const values = options.values ?? firstValues;
    this.weight = newParameter([outputs, inputs], options);
    startWith(this.weight, values, 'weight', kaimingUniform());
    if (options.bias ?? true) {
      this.bias = newParameter([outputs], options);
      startWith(this.bias, values, 'bias', kaimingUniform(inputs));
    }
  }

  /** @param x `[..., inputs]` @returns `[..., outputs]` */
  forward(x: Tensor): Tensor {
    if (x.shape.at(-1) !== this.inputs) {
      fail('ERR_LIBMOE_SHAPE', `Linear expects [..., ${this.inputs}], got [${x.shape.join(', ')}]`);
    }
    return withBeside(this.beside, x, () => linear(x, this.weight, this.bias));
  }
}
