import { fail } from '../native/index.ts';
import { gelu, quickGelu, relu, silu } from '../tensor/elementwise.ts';
import { gated } from '../tensor/gated.ts';
import { linear } from '../tensor/gemm.ts';
import type { ExpertActivation } from '../tensor/grouped_ffn.ts';
import type { Tensor } from '../tensor/index.ts';
import { kaimingUniform, startWith } from './initialisers.ts';
import { firstValues, type LayerOptions, newParameter, requirePositive } from './linear.ts';
import { type LowRank, withBeside } from './low-rank.ts';
import { Module } from './module.ts';

/**
 * The activations of feed-forward layers and experts; `gelu` is the exact one (erf). `clampedSwiglu` is for gated ones only and says all that lies
 * between the matrices: quickGelu(min(gate, 7)) · (clamp(up, ±7) + 1) (gpt-oss, arXiv 2508.10925).
 */
export const activationNames = [
  'relu',
  'silu',
  'gelu',
  'geluTanh',
  'quickGelu',
  'identity',
  'clampedSwiglu',
] as const;
/** One of {@link activationNames}. */
export type ActivationName = (typeof activationNames)[number];

/** Applies an activation by name. @throws ERR_LIBMOE_ARGUMENT for an unknown name, and for clampedSwiglu, which takes two: see {@link FeedForward} */
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
    case 'clampedSwiglu':
      return fail('ERR_LIBMOE_ARGUMENT', 'clampedSwiglu is for gated layers: set gated: true');
    default:
      return fail(
        'ERR_LIBMOE_ARGUMENT',
        `unknown activation "${String(name)}"; one of ${activationNames.join(', ')}`,
      );
  }
}

/** What the engine calls them. */
export const engineActivations: Record<ActivationName, ExpertActivation> = {
  identity: 'identity',
  relu: 'relu',
  silu: 'silu',
  gelu: 'gelu_erf',
  geluTanh: 'gelu_tanh',
  quickGelu: 'quick_gelu',
  clampedSwiglu: 'clamped_swiglu',
};

/** Refuses an activation that only gated layers have. @throws ERR_LIBMOE_ARGUMENT */
export function requireGated(layer: string, options: { activation: ActivationName; gated: boolean }): void {
  if (options.activation === 'clampedSwiglu' && !options.gated)
    fail('ERR_LIBMOE_ARGUMENT', `${layer}: the activation clampedSwiglu needs gated: true`);
}

export interface FeedForwardOptions extends LayerOptions {
  hidden: number;
  /** Width of the result; default that of the input. */
  outputs?: number | undefined;
  activation: ActivationName;
  /** Gated (SwiGLU and kin): down(activation(gate x) ∘ (up x)). */
  gated: boolean;
  bias: boolean;
}

/**
 * The dense feed-forward layer, laid out as one expert of a MoE layer so that upcycling is a plain copy:
 * `up [hidden, width]`, or `[2·hidden, width]` when gated (first the gate's rows, then those of up); `down [outputs, hidden]`.
 */
export class FeedForward extends Module {
  readonly width: number;
  readonly outputs: number;
  readonly hidden: number;
  readonly activation: ActivationName;
  readonly gated: boolean;
  up: Tensor;
  upBias?: Tensor;
  down: Tensor;
  downBias?: Tensor;
  /** Learnt beside the matrices: see addLowRank(). */
  besideUp?: LowRank | undefined;
  besideDown?: LowRank | undefined;

  constructor(width: number, options: FeedForwardOptions) {
    super();
    const { outputs = width } = options;
    requirePositive('FeedForward', { width, outputs, hidden: options.hidden });
    requireGated('FeedForward', options);
    this.width = width;
    this.outputs = outputs;
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
    this.down = newParameter([outputs, options.hidden], options);
    startWith(this.down, values, 'down', kaimingUniform());
    if (options.bias) {
      this.downBias = newParameter([outputs], options);
      startWith(this.downBias, values, 'downBias', kaimingUniform(options.hidden));
    }
  }

  /** @param x `[tokens, width]` @returns `[tokens, outputs]` */
  forward(x: Tensor): Tensor {
    const projected = withBeside(this.besideUp, x, () => linear(x, this.up, this.upBias));
    const hidden = this.#activated(projected);
    return withBeside(this.besideDown, hidden, () => linear(hidden, this.down, this.downBias));
  }

  #activated(projected: Tensor): Tensor {
    return this.gated
      ? gated(projected, engineActivations[this.activation])
      : activate(projected, this.activation);
  }
}
