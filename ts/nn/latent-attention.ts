import type { Tensor } from '../tensor/index.ts';
import { cat, expand, reshape } from '../tensor/shape.ts';
import { type AttentionStep, attend } from './attention.ts';
import { type LayerOptions, Linear, partOptions, requirePositive } from './linear.ts';
import { Module } from './module.ts';
import { RmsNorm } from './norm.ts';

/** Sizes of a {@link LatentAttention}. */
export interface LatentAttentionOptions extends LayerOptions {
  heads: number;
  /** Width of the latent that queries are made from; default: they are made from the input itself. */
  queryRank?: number | undefined;
  /** Width of the latent that keys and values are made from. */
  keyValueRank: number;
  /** Channels of a query and key that do not turn. */
  contentDim: number;
  /** Channels that turn; the keys of all heads have them in common. */
  rotaryDim: number;
  /** Channels of a value. */
  valueDim: number;
  /** Biases of what leads into the latents and to the common key. */
  bias: boolean;
  outputBias: boolean;
  /** Factor on scores beside 1 / √(contentDim + rotaryDim); default 1. */
  scoreFactor?: number;
  /** Tokens that each token sees, itself included; default: all before it. */
  window?: number | undefined;
  /** Of the norms of both latents; default 1e-6. */
  eps?: number;
}

/**
 * Multi-head latent attention (DeepSeek-V2, arXiv 2405.04434 §2.1): keys and values of all heads come from one narrow normalised latent per token, and
 * positions are told by channels of their own, which all keys have in common. Queries and keys are laid out with the channels that turn first.
 * The cache takes keys and values of every head, not the latent.
 */
export class LatentAttention extends Module {
  readonly heads: number;
  readonly contentDim: number;
  readonly rotaryDim: number;
  readonly valueDim: number;
  readonly scale: number;
  readonly window: number | undefined;
  readonly queryDown?: Linear;
  readonly queryNorm?: RmsNorm;
  readonly query: Linear;
  readonly keyValueDown: Linear;
  readonly keyValueNorm: RmsNorm;
  /** To the channels of each head's key that do not turn. */
  readonly key: Linear;
  readonly value: Linear;
  /** To those that turn. */
  readonly rotaryKey: Linear;
  readonly output: Linear;

  /** @throws ERR_LIBMOE_ARGUMENT when a size is not a positive integer */
  constructor(width: number, options: LatentAttentionOptions) {
    super();
    const { heads, queryRank, keyValueRank, contentDim, rotaryDim, valueDim, bias, outputBias } = options;
    requirePositive('LatentAttention', { width, heads, keyValueRank, contentDim, rotaryDim, valueDim });
    this.heads = heads;
    this.contentDim = contentDim;
    this.rotaryDim = rotaryDim;
    this.valueDim = valueDim;
    this.scale = (contentDim + rotaryDim) ** -0.5 * (options.scoreFactor ?? 1);
    this.window = options.window;
    const layer = (name: string, inputs: number, outputs: number, withBias = false): Linear =>
      new Linear(inputs, outputs, { ...partOptions(options, name), bias: withBias });
    const norm = (size: number): RmsNorm => new RmsNorm(size, { ...options, eps: options.eps ?? 1e-6 });
    if (queryRank !== undefined) {
      this.queryDown = layer('queryDown', width, queryRank, bias);
      this.queryNorm = norm(queryRank);
    }
    this.query = layer('query', queryRank ?? width, heads * (rotaryDim + contentDim));
    this.keyValueDown = layer('keyValueDown', width, keyValueRank, bias);
    this.keyValueNorm = norm(keyValueRank);
    this.key = layer('key', keyValueRank, heads * contentDim);
    this.value = layer('value', keyValueRank, heads * valueDim);
    this.rotaryKey = layer('rotaryKey', width, rotaryDim, bias);
    this.output = layer('output', heads * valueDim, width, outputBias);
  }

  /** @param x `[tokens, width]` @returns `[tokens, width]` */
  forward(x: Tensor, step: AttentionStep): Tensor {
    const tokens = x.shape[0]!;
    const { heads, contentDim, rotaryDim, valueDim } = this;
    const turned = (t: Tensor): Tensor => step.rotary?.apply(t, step.positions!) ?? t;
    const source = this.queryDown ? this.queryNorm!.forward(this.queryDown.forward(x)) : x;
    const query = turned(reshape(this.query.forward(source), [tokens, heads, rotaryDim + contentDim]));
    const latent = this.keyValueNorm.forward(this.keyValueDown.forward(x));
    const common = turned(reshape(this.rotaryKey.forward(x), [tokens, 1, rotaryDim]));
    const content = reshape(this.key.forward(latent), [tokens, heads, contentDim]);
    const key = cat([expand(common, [tokens, heads, rotaryDim]), content], 2);
    const value = reshape(this.value.forward(latent), [tokens, heads, valueDim]);
    const mixed = attend(query, key, value, step, { scale: this.scale, window: this.window });
    return this.output.forward(reshape(mixed, [tokens, heads * valueDim]));
  }
}
