import type { Tensor } from '../tensor/index.ts';
import { layerNorm, rmsNorm } from '../tensor/norm.ts';
import { onesInitialiser, startWith } from './initialisers.ts';
import { type LayerOptions, newParameter, requirePositive } from './linear.ts';
import { Module } from './module.ts';

const named = { seed: 0, name: '' };

/** Layer normalisation over the last dimension (Ba et al. 2016), with weight (1) and, unless `bias` is false, bias (0). */
export class LayerNorm extends Module {
  readonly width: number;
  readonly eps: number;
  weight: Tensor;
  bias?: Tensor;

  constructor(width: number, options: LayerOptions & { eps?: number; bias?: boolean } = {}) {
    super();
    requirePositive('LayerNorm', { width });
    this.width = width;
    this.eps = options.eps ?? 1e-5;
    this.weight = newParameter([width], options);
    startWith(this.weight, named, 'weight', onesInitialiser);
    if (options.bias ?? true) this.bias = newParameter([width], options);
  }

  /** Normalises the last axis of `x` `[..., width]`. */
  forward(x: Tensor): Tensor {
    return layerNorm(x, this.weight, this.bias, this.eps);
  }
}

/** Root-mean-square normalisation over the last dimension (Zhang & Sennrich 2019), with weight (1). */
export class RmsNorm extends Module {
  readonly width: number;
  readonly eps: number;
  weight: Tensor;

  constructor(width: number, options: LayerOptions & { eps?: number } = {}) {
    super();
    requirePositive('RmsNorm', { width });
    this.width = width;
    this.eps = options.eps ?? 1e-5;
    this.weight = newParameter([width], options);
    startWith(this.weight, named, 'weight', onesInitialiser);
  }

  /** Normalises the last axis of `x` `[..., width]`. */
  forward(x: Tensor): Tensor {
    return rmsNorm(x, this.weight, this.eps);
  }
}

/** Either norm; they are called alike. */
export type Norm = LayerNorm | RmsNorm;

/** The norm of the given kind. */
export function newNorm(
  kind: 'layernorm' | 'rmsnorm',
  width: number,
  options: LayerOptions & { eps: number },
): Norm {
  return kind === 'layernorm' ? new LayerNorm(width, options) : new RmsNorm(width, options);
}
