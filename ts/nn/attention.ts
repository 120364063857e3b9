import { fail } from '../native/index.ts';
import { attention, attentionCached, cacheWrite } from '../tensor/attention.ts';
import type { Tensor } from '../tensor/index.ts';
import { reshape } from '../tensor/shape.ts';
import { type LayerOptions, Linear, partOptions, requirePositive } from './linear.ts';
import { Module } from './module.ts';
import { RmsNorm } from './norm.ts';
import type { Rotary } from './rotary.ts';

/** One layer's part of a paged key/value cache for one forward pass. */
export interface LayerCache {
  /** Pools `[blocks, blockSize, keyValueHeads, headDim]`, those of values as wide as a value. */
  keys: Tensor;
  values: Tensor;
  /** i32 `[sequences, blocks]`. */
  blockTable: Tensor;
  /** i32 `[sequences]`: tokens in the cache, the new ones included. */
  keyLengths: Tensor;
}

/** Where the tokens of a packed batch stand. */
export interface AttentionStep {
  /** i32 `[tokens]`: rows of the rotary table, as `Rotary.rows` gives them. */
  positions: Tensor;
  /** i32 `[sequences + 1]`: where each sequence begins in the batch, and the number of tokens. */
  sequenceOffsets: Tensor;
  rotary?: Rotary;
  cache?: LayerCache;
}

/**
 * Causal attention of the batch's tokens, over what the cache holds of their sequences too; their keys and values are written into it.
 * @param query `[tokens, heads, width]`
 * @param key `[tokens, keyValueHeads, width]`
 * @param value `[tokens, keyValueHeads, valueWidth]`
 * @returns `[tokens, heads, valueWidth]`
 */
export function attend(
  query: Tensor,
  key: Tensor,
  value: Tensor,
  { sequenceOffsets, cache }: AttentionStep,
  options: { scale: number; window: number | undefined },
): Tensor {
  if (cache === undefined) return attention(query, key, value, { ...options, sequenceOffsets });
  const { keys, values, blockTable, keyLengths } = cache;
  const placement = { blockTable, queryOffsets: sequenceOffsets, keyLengths };
  cacheWrite(keys, key, placement);
  cacheWrite(values, value, placement);
  return attentionCached(query, keys, values, placement, options);
}

export interface SelfAttentionOptions extends LayerOptions {
  heads: number;
  keyValueHeads: number;
  headDim: number;
  /** Biases of query, key and value. */
  bias: boolean;
  outputBias: boolean;
  /** Tokens that each token sees, itself included; default: all before it. */
  window?: number;
  /** RMS norms of queries and keys before they turn: of each head by itself, or of all heads as one vector. */
  qkNorm?: 'head' | 'projection';
  /** Of those norms; default 1e-5. */
  eps?: number;
}

/** Causal self-attention over packed sequences, with grouped key/value heads (Ainslie et al. 2023), rotary positions and a paged cache. */
export class SelfAttention extends Module {
  readonly heads: number;
  readonly keyValueHeads: number;
  readonly headDim: number;
  readonly window: number | undefined;
  readonly query: Linear;
  readonly key: Linear;
  readonly value: Linear;
  readonly output: Linear;
  readonly queryNorm?: RmsNorm;
  readonly keyNorm?: RmsNorm;

  constructor(width: number, options: SelfAttentionOptions) {
    super();
    const { heads, keyValueHeads, headDim, bias, outputBias } = options;
    requirePositive('SelfAttention', { width, heads, keyValueHeads, headDim });
    if (heads % keyValueHeads !== 0) {
      fail('ERR_LIBMOE_ARGUMENT', `heads ${heads} must be a multiple of keyValueHeads ${keyValueHeads}`);
    }
    this.heads = heads;
    this.keyValueHeads = keyValueHeads;
    this.headDim = headDim;
    this.window = options.window;
    const layer = (name: string, inputs: number, outputs: number, withBias: boolean): Linear =>
      new Linear(inputs, outputs, { ...partOptions(options, name), bias: withBias });
    this.query = layer('query', width, heads * headDim, bias);
    this.key = layer('key', width, keyValueHeads * headDim, bias);
    this.value = layer('value', width, keyValueHeads * headDim, bias);
    this.output = layer('output', heads * headDim, width, outputBias);
    if (options.qkNorm !== undefined) {
      const { qkNorm, eps } = options;
      const normOf = (count: number): RmsNorm =>
        new RmsNorm(qkNorm === 'head' ? headDim : count * headDim, { ...options, eps });
      this.queryNorm = normOf(heads);
      this.keyNorm = normOf(keyValueHeads);
    }
  }

  /** @param x `[tokens, width]` @returns `[tokens, width]` */
  forward(x: Tensor, step: AttentionStep): Tensor {
    const tokens = x.shape[0]!;
    const byHead = (t: Tensor, heads: number): Tensor => reshape(t, [tokens, heads, this.headDim]);
    const normed = (t: Tensor, norm: RmsNorm | undefined, heads: number): Tensor => {
      if (norm === undefined) return byHead(t, heads);
      // A norm over the last axis is one of each head when that axis is a head.
      return norm.width === this.headDim ? norm.forward(byHead(t, heads)) : byHead(norm.forward(t), heads);
    };
    let query = normed(this.query.forward(x), this.queryNorm, this.heads);
    let key = normed(this.key.forward(x), this.keyNorm, this.keyValueHeads);
    const value = byHead(this.value.forward(x), this.keyValueHeads);
    if (step.rotary !== undefined) {
      query = step.rotary.apply(query, step.positions);
      key = step.rotary.apply(key, step.positions);
    }
    const mixed = attend(query, key, value, step, { scale: this.headDim ** -0.5, window: this.window });
    return this.output.forward(reshape(mixed, [tokens, this.heads * this.headDim]));
  }
}
