import type { TokenBatch } from '../data/batch.ts';
import { sliceVisionLanguageBatch, type VisionLanguageBatch } from '../data/vision-batch.ts';
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
export const tokenBatches: BatchKind<TokenBatch> = packedBatches(sliceVisionLanguageBatch);

/** Packed text with images in it; an image goes with its sequence. Rows of images are tokens that go through the model. */
export const visionLanguageBatches: BatchKind<VisionLanguageBatch> = packedBatches(sliceVisionLanguageBatch);

function packedBatches<Batch extends TokenBatch>(
  slice: (batch: Batch, first: number, last: number) => Batch,
): BatchKind<Batch> {
  return {
    tokens: (batch) => batch.ids.length,
    targets: (batch) => batch.targets.reduce((count, target) => count + (target >= 0 ? 1 : 0), 0),
    split(batch, parts) {
      if (!(Number.isInteger(parts) && parts > 0)) {
        fail('ERR_LIBMOE_ARGUMENT', `a batch is cut into a positive number of micro-batches, got ${parts}`);
      }
      const sequences = batch.sequenceOffsets.length - 1;
      const count = Math.min(parts, sequences);
      return Array.from({ length: count }, (_, part) =>
        slice(batch, Math.floor((part * sequences) / count), Math.floor(((part + 1) * sequences) / count)),
      );
    },
  };
}
