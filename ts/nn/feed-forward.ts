import { fail } from '../native/index.ts';
import { gelu, multiply, quickGelu, relu, silu } from '../tensor/elementwise.ts';
import { linear } from '../tensor/gemm.ts';
import type { Tensor } from '../tensor/index.ts';
import { slice } from '../tensor/shape.ts';
import { kaimingUniform, startWith } from './initialisers.ts';
import { firstValues, type LayerOptions, newParameter, requirePositive } from './linear.ts';
import { Module } from './module.ts';

/** The activations of feed-forward layers and experts; `gelu` is the exact one (erf). */
export const activationNames = ['relu', 'silu', 'gelu', 'geluTanh', 'quickGelu', 'identity'] as const;
/** One of {@link activationNames}. */
export type ActivationName = (typeof activationNames)[number];

/** Applies an activation by name. @throws ERR_LIBMOE_ARGUMENT for an unknown name */
export function activate(x: Tensor, name: ActivationName): Tensor {
  switch (name) {
    case 'relu':
      return relu(x);
    case 'silu':
      return silu(x);
    case 'gelu':
      return gelu(x, 'erf');
    case 'geluTanh':
      return gelu(x, 'tanh');
    case 'quickGelu':
      return quickGelu(x);
    case 'identity':
      return x;
    default:
      return fail(
        'ERR_LIBMOE_ARGUMENT',
        `unknown activation "${String(name)}"; one of ${activationNames.join(', ')}`,
      );
  }
}

export interface FeedForwardOptions extends LayerOptions {
  hidden: number;
  activation: ActivationName;
  /** Gated (SwiGLU and kin): down(activation(gate x) ∘ (up x)). */
  gated: boolean;
  bias: boolean;
}

/**
 * The dense feed-forward layer, laid out as one expert of a MoE layer so that upcycling is a plain copy:
 * `up [hidden, width]`, or `[2·hidden, width]` when gated (first the gate's rows, then those of up); `down [width, hidden]`.
 */
export class FeedForward extends Module {
  readonly width: number;
  readonly hidden: number;
  readonly activation: ActivationName;
  readonly gated: boolean;
  up: Tensor;
  upBias?: Tensor;
  down: Tensor;
  downBias?: Tensor;

  constructor(width: number, options: FeedForwardOptions) {
    super();
    requirePositive('FeedForward', { width, hidden: options.hidden });
    this.width = width;
    this.hidden = options.hidden;
    this.activation = options.activation;
    this.gated = options.gated;
    const values = options.values ?? firstValues;
    const rows = options.gated ? 2 * options.hidden : options.hidden;
    this.up = newParameter([rows, width], options);
    startWith(this.up, values, 'up', kaimingUniform());
    if (options.bias) {
      this.upBias = newParameter([rows], options);
      startWith(this.upBias, values, 'upBias', kaimingUniform(width));
    }
    this.down = newParameter([width, options.hidden], options);
    startWith(this.down, values, 'down', kaimingUniform());
    if (options.bias) {
      this.downBias = newParameter([width], options);
      startWith(this.downBias, values, 'downBias', kaimingUniform(options.hidden));
    }
  }

  /** @param x `[tokens, width]` @returns `[tokens, width]` */
  forward(x: Tensor): Tensor {
    const projected = linear(x, this.up, this.upBias);
    if (!this.gated) return linear(activate(projected, this.activation), this.down, this.downBias);
    const gate = slice(projected, -1, 0, this.hidden);
    const value = slice(projected, -1, this.hidden, 2 * this.hidden);
    return linear(multiply(activate(gate, this.activation), value), this.down, this.downBias);
  }
}
