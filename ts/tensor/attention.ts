import { fail, native } from '../native/index.ts';
import { record } from './autograd.ts';
import { gradientDtype } from './dtype.ts';
import { isGradEnabled } from './lifetime.ts';
import { empty, emptyLike, type Tensor } from './tensor.ts';

/** How packed sequences attend: where they begin, and which keys a query sees. */
export interface AttentionOptions {
  /** i32 [sequences + 1]: sequence s owns the tokens from offsets[s] to offsets[s + 1]. Sequences may be empty. */
  sequenceOffsets: Tensor;
  /** A query sees the keys up to its own position only. Default true. */
  causal?: boolean;
  /** Factor on q·k. Default 1 / √(query width). */
  scale?: number;
  /** A query at position p sees no key before p − window + 1. Default unlimited. */
  window?: number;
  /**
   * [queryHeads], dtype of q: a logit per head that joins the softmax's sum and adds nothing to the output (attention sinks, Xiao et al.,
   * arXiv 2309.17453, learnt as in gpt-oss, arXiv 2508.10925). Differentiable.
   */
  sinks?: Tensor | undefined;
}

function checked(name: string, q: Tensor, window: number | undefined, scale: number | undefined) {
  if (q.rank !== 3)
    fail('ERR_LIBMOE_SHAPE', `${name} expects q [tokens, heads, width], got [${q.shape.join(', ')}]`);
  if (window !== undefined && (!Number.isInteger(window) || window < 1))
    fail('ERR_LIBMOE_ARGUMENT', `${name}: window must be a positive integer or left out, got ${window}`);
  if (scale !== undefined && !Number.isFinite(scale))
    fail('ERR_LIBMOE_ARGUMENT', `${name}: scale must be finite, got ${scale}`);
  return { window: window ?? 0, scale: scale ?? 1 / Math.sqrt(q.shape[2]!) };
}

/**
 * Scaled dot-product attention (Vaswani et al., 2017) over packed sequences, blocked so that no matrix of scores is stored (Dao et al.,
 * "FlashAttention", arXiv 2205.14135). q [tokens, queryHeads, width], k [tokens, heads, width], v [tokens, heads, valueWidth] of one dtype
 * (f32, bf16, f64), queryHeads a multiple of heads (grouped-query attention, Ainslie et al., arXiv 2305.13245); returns
 * [tokens, queryHeads, valueWidth]. Softmax and sums run in f32 (f64 for f64). A token's result depends on its own sequence alone.
 * Throws ERR_LIBMOE_SHAPE, ERR_LIBMOE_DTYPE, ERR_LIBMOE_ARGUMENT (offsets that do not split the tokens, window < 1).
 */
export function attention(q: Tensor, k: Tensor, v: Tensor, options: AttentionOptions): Tensor {
  const { sequenceOffsets, causal = true, sinks } = options;
  const { window, scale } = checked('attention', q, options.window, options.scale);
  if (v.rank !== 3)
    fail('ERR_LIBMOE_SHAPE', `attention expects v [tokens, heads, valueWidth], got [${v.shape.join(', ')}]`);
  const heads = q.shape.slice(0, 2);
  const out = empty([...heads, v.shape[2]!], { dtype: q.dtype, device: q.device });
  const differentiable = isGradEnabled() && [q, k, v, sinks].some((t) => t?.requiresGrad);
  const logSum = differentiable
    ? empty(heads, { dtype: gradientDtype(q.dtype), device: q.device })
    : undefined;
  native().attention(
    q.handle,
    k.handle,
    v.handle,
    sequenceOffsets.handle,
    sinks?.handle,
    out.handle,
    logSum?.handle,
    causal,
    window,
    scale,
  );
  record({
    name: 'attention',
    inputs: [q, k, v, sinks],
    outputs: [out],
    saved: [q, k, v, sequenceOffsets, out, sinks, logSum].filter((t) => t !== undefined),
    backward: ([dOut], sink) => {
      const gradients = [emptyLike(q), emptyLike(k), emptyLike(v)] as const;
      const [dq, dk, dv] = gradients;
      const dSinks = sinks && sink.into(3);
      native().attentionBackward(
        q.handle,
        k.handle,
        v.handle,
        sequenceOffsets.handle,
        sinks?.handle,
        out.handle,
        logSum!.handle,
        dOut!.handle,
        dq.handle,
        dk.handle,
        dv.handle,
        dSinks?.tensor.handle,
        dSinks?.accumulate ?? false,
        causal,
        window,
        scale,
      );
      return gradients;
    },
  });
  logSum?.dispose();
  return out;
}

/** Where the keys and values of a batch lie in a paged cache. All tensors i32. */
export interface CachePlacement {
  /** `[sequences, blocks per sequence]`: the block of the pool that holds positions i · blockSize … of a sequence. */
  blockTable: Tensor;
  /** `[sequences + 1]`: which of the new tokens belong to which sequence. */
  queryOffsets: Tensor;
  /** `[sequences]`: keys of each sequence, its new ones included; the new tokens are its last positions. */
  keyLengths: Tensor;
}

/**
 * Causal attention of new tokens over a paged cache that holds all their keys and values ({@link cacheWrite} first).
 * q [tokens, queryHeads, width]; keys [blocks, blockSize, heads, width], values [blocks, blockSize, heads, valueWidth].
 * Every row has exactly the bits that {@link attention} gives it, however the sequence was cut. Not differentiable.
 * Throws ERR_LIBMOE_ARGUMENT for a length or block out of range, ERR_LIBMOE_SHAPE, ERR_LIBMOE_DTYPE.
 */
export function attentionCached(
  q: Tensor,
  keys: Tensor,
  values: Tensor,
  placement: CachePlacement,
  options: Pick<AttentionOptions, 'scale' | 'window' | 'sinks'> = {},
): Tensor {
  const { window, scale } = checked('attentionCached', q, options.window, options.scale);
  if (values.rank !== 4)
    fail(
      'ERR_LIBMOE_SHAPE',
      `attentionCached expects values [blocks, blockSize, heads, valueWidth], got [${values.shape.join(', ')}]`,
    );
  const out = empty([...q.shape.slice(0, 2), values.shape[3]!], { dtype: q.dtype, device: q.device });
  const { blockTable, queryOffsets, keyLengths } = placement;
  native().attentionCached(
    q.handle,
    keys.handle,
    values.handle,
    blockTable.handle,
    queryOffsets.handle,
    keyLengths.handle,
    options.sinks?.handle,
    out.handle,
    window,
    scale,
  );
  return out;
}

/**
 * Writes the keys (or values) of new tokens, rows [tokens, heads, width], into their places in pool [blocks, blockSize, heads, width].
 * Throws ERR_LIBMOE_ARGUMENT for a length or block out of range and when two sequences would write to one block; nothing is written then.
 */
export function cacheWrite(pool: Tensor, rows: Tensor, placement: CachePlacement): void {
  const { blockTable, queryOffsets, keyLengths } = placement;
  native().cacheWrite(pool.handle, rows.handle, blockTable.handle, queryOffsets.handle, keyLengths.handle);
}

/** Makes block `to` of the pool a copy of block `from`, for a sequence that forks in mid-block. Throws ERR_LIBMOE_ARGUMENT. */
export function cacheCopyBlock(pool: Tensor, from: number, to: number): void {
  native().cacheCopyBlock(pool.handle, from, to);
}
