import type { TokenBatch } from '../data/batch.ts';
import { fail } from '../native/index.ts';

/** What the loop must know of a kind of batch. */
export interface BatchKind<Batch> {
  /** Tokens that go through the model. */
  tokens(batch: Batch): number;
  /** Tokens that count in the loss. */
  targets(batch: Batch): number;
  /** Cuts a batch into at most `parts` batches of whole sequences, in order. */
  split(batch: Batch, parts: number): Batch[];
}

/** Packed text. */
export const tokenBatches: BatchKind<TokenBatch> = {
  tokens: (batch) => batch.ids.length,
  targets: (batch) => batch.targets.reduce((count, target) => count + (target >= 0 ? 1 : 0), 0),
  split: splitTokenBatch,
};

function splitTokenBatch(batch: TokenBatch, parts: number): TokenBatch[] {
  if (!(Number.isInteger(parts) && parts > 0)) {
    fail('ERR_LIBMOE_ARGUMENT', `a batch is cut into a positive number of micro-batches, got ${parts}`);
  }
  const offsets = batch.sequenceOffsets;
  const sequences = offsets.length - 1;
  const count = Math.min(parts, sequences);
  return Array.from({ length: count }, (_, part) => {
    const first = Math.floor((part * sequences) / count);
    const last = Math.floor(((part + 1) * sequences) / count);
    const [begin, end] = [offsets[first]!, offsets[last]!];
    return {
      ids: batch.ids.subarray(begin, end),
      targets: batch.targets.subarray(begin, end),
      sequenceOffsets: offsets.slice(first, last + 1).map((offset) => offset - begin),
      ...(batch.positions && { positions: batch.positions.subarray(begin, end) }),
    };
  });
}
