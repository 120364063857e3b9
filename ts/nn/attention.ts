import { fail } from '../native/index.ts';
import { attention, attentionCached, type CachePlacement, cacheWrite } from '../tensor/attention.ts';
import { cast, multiply } from '../tensor/elementwise.ts';
import { full, type Tensor, tensor } from '../tensor/index.ts';
import { rmsNorm } from '../tensor/norm.ts';
import { reshape } from '../tensor/shape.ts';
import { normal, startWith } from './initialisers.ts';
import {
  firstValues,
  type LayerOptions,
  Linear,
  newParameter,
  partOptions,
  requirePositive,
} from './linear.ts';
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
  /** The pieces of the sequences, each with the blocks that hold it, for layers that see no further. */
  pieces?: CachePlacement | undefined;
}

/** Where the tokens of a packed batch stand. */
export interface AttentionStep {
  /** i32 `[tokens]`: rows of the rotary table, as `Rotary.rows` gives them; for what turns. */
  positions?: Tensor;
  /** i32 `[sequences + 1]`: where each sequence begins in the batch, and the number of tokens. */
  sequenceOffsets: Tensor;
  rotary?: Rotary;
  /** Where each piece of a sequence begins, and the number of tokens, for layers that see no further. */
  pieceOffsets?: Int32Array | undefined;
  /** `[tokens]`: factors on the queries of layers that do not turn. */
  queryFactors?: Float64Array | undefined;
  cache?: LayerCache;
}

interface AttendOptions {
  scale: number;
  /** Default true. */
  causal?: boolean;
  window: number | undefined;
  chunked?: boolean;
  /** `[heads]`. */
  sinks?: Tensor | undefined;
}

/**
 * Attention of the batch's tokens, over what the cache holds of their sequences too (causal then); their keys and values are written into it.
 * @param query `[tokens, heads, width]`
 * @param key `[tokens, keyValueHeads, width]`
 * @param value `[tokens, keyValueHeads, valueWidth]`
 * @returns `[tokens, heads, valueWidth]`
 */
export function attend(
  query: Tensor,
  key: Tensor,
  value: Tensor,
  { sequenceOffsets, pieceOffsets, cache }: AttentionStep,
  { chunked = false, causal = true, ...options }: AttendOptions,
): Tensor {
  if (cache === undefined) {
    const pieces = chunked && tensor(pieceOffsets!, undefined, { device: query.device });
    return attention(query, key, value, { ...options, causal, sequenceOffsets: pieces || sequenceOffsets });
  }
  const { keys, values, blockTable, keyLengths } = cache;
  const placement = { blockTable, queryOffsets: sequenceOffsets, keyLengths };
  cacheWrite(keys, key, placement);
  cacheWrite(values, value, placement);
  return attentionCached(query, keys, values, chunked ? cache.pieces! : placement, options);
}

/** x `[tokens, heads, width]` times a number per token, rounded once. */
function scaled(x: Tensor, factors: Float64Array): Tensor {
  const dtype = x.dtype === 'f64' ? 'f64' : 'f32';
  const column = tensor(factors, [factors.length, 1, 1], { dtype, device: x.device });
  return x.dtype === dtype ? multiply(x, column) : cast(multiply(cast(x, dtype), column), x.dtype);
}

export interface SelfAttentionOptions extends LayerOptions {
  heads: number;
  keyValueHeads: number;
  headDim: number;
  /** Biases of query, key and value. */
  bias: boolean;
  outputBias: boolean;
  /** A token sees none after it; default true. */
  causal?: boolean;
  /** Tokens that each token sees, itself included; default: all before it. */
  window?: number;
  /** See a token's own piece of its sequence alone, as the step cuts them. */
  chunked?: boolean;
  /** Whether queries and keys turn with their positions; default true. Otherwise the step's factors, if any, multiply queries. */
  turns?: boolean;
  /**
   * RMS norms of queries and keys: before they turn of each head by itself, or of all heads as one vector; or `turned`, of each head after it has
   * turned, without a weight.
   */
  qkNorm?: 'head' | 'projection' | 'turned';
  /** Of those norms; default 1e-5. */
  eps?: number;
  /** A learnt logit per head that takes its share of the softmax and gives nothing (gpt-oss, arXiv 2508.10925). */
  sinks?: boolean;
}

/** Self-attention over packed sequences, causal unless told otherwise, with grouped key/value heads (Ainslie et al. 2023), rotary positions and a paged cache. */
export class SelfAttention extends Module {
  readonly heads: number;
  readonly keyValueHeads: number;
  readonly headDim: number;
  readonly causal: boolean;
  readonly window: number | undefined;
  readonly chunked: boolean;
  readonly turns: boolean;
  /** Of the norm of heads that have turned, where there is one. */
  readonly turnedEps: number | undefined;
  readonly query: Linear;
  readonly key: Linear;
  readonly value: Linear;
  readonly output: Linear;
  readonly queryNorm?: RmsNorm;
  readonly keyNorm?: RmsNorm;
  /** `[heads]`. */
  sinks?: Tensor;

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
    this.causal = options.causal ?? true;
    this.window = options.window;
    this.chunked = options.chunked ?? false;
    this.turns = options.turns ?? true;
    this.turnedEps = options.qkNorm === 'turned' ? (options.eps ?? 1e-5) : undefined;
    const layer = (name: string, inputs: number, outputs: number, withBias: boolean): Linear =>
      new Linear(inputs, outputs, { ...partOptions(options, name), bias: withBias });
    this.query = layer('query', width, heads * headDim, bias);
    this.key = layer('key', width, keyValueHeads * headDim, bias);
    this.value = layer('value', width, keyValueHeads * headDim, bias);
    this.output = layer('output', heads * headDim, width, outputBias);
    if (options.sinks) {
      this.sinks = newParameter([heads], options);
      startWith(this.sinks, options.values ?? firstValues, 'sinks', normal(0.02));
    }
    if (options.qkNorm !== undefined && options.qkNorm !== 'turned') {
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
    if (this.turns) {
      query = this.#turned(query, step);
      key = this.#turned(key, step);
    } else if (step.queryFactors) query = scaled(query, step.queryFactors);
    const { causal, window, chunked, sinks } = this;
    const options = { scale: this.headDim ** -0.5, causal, window, chunked, sinks };
    const mixed = attend(query, key, value, step, options);
    return this.output.forward(reshape(mixed, [tokens, this.heads * this.headDim]));
  }

  #turned(x: Tensor, { rotary, positions }: AttentionStep): Tensor {
    const turned = rotary?.apply(x, positions!) ?? x;
    if (this.turnedEps === undefined) return turned;
    const ones = full([this.headDim], 1, { dtype: x.dtype, device: x.device });
    return rmsNorm(turned, ones, this.turnedEps);
  }
}
