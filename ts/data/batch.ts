import type { JsonValue } from '../storage/json.ts';

/**
 * A training batch on the host: sequences laid end to end, no padding. `tokens` = sum of the sequence lengths.
 */
export interface TokenBatch {
  /** Token ids, `[tokens]`. */
  ids: Int32Array;
  /** The next token of each position, `[tokens]`; −1 where nothing is to be predicted. */
  targets: Int32Array;
  /** Where each sequence begins, `[sequences + 1]`; attention stays inside a sequence. */
  sequenceOffsets: Int32Array;
  /** Position of each token in its sequence, `[tokens]`; absent means counted from the sequence's beginning. */
  positions?: Int32Array;
}

/** A source of batches whose place can be saved and found again. */
export interface Loader {
  /** The next batch. Throws ERR_LIBMOE_STATE when the last epoch is over. */
  next(): TokenBatch | Promise<TokenBatch>;
  /** The place of the next batch, for a checkpoint. Independent of the number of ranks. */
  state(): JsonValue;
  /** Continues from a saved place. Throws ERR_LIBMOE_STATE when it belongs to other data or another order. */
  restore(state: JsonValue): void;
  /** Tokens of a full batch on this rank. */
  readonly tokensPerBatch: number;
  /** Which part of every batch this loader gives: that of a rank, of so many. */
  readonly shard: { readonly rank: number; readonly world: number };
}
