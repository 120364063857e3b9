import { createHash } from 'node:crypto';
import { fail } from '../native/index.ts';

/** A long row of tokens, documents one after the other, that can be read anywhere. */
export interface TokenDataset {
  /** Number of tokens. */
  readonly length: number;
  /** Where each document begins, `[documents + 1]`; the last entry is `length`. A document's separator belongs to it. */
  readonly documentOffsets: Float64Array;
  /** Tokens of each stored piece, `[shards]`. */
  readonly shardLengths: readonly number[];
  readonly vocabularySize?: number;
  /** Identifies the content, so that a saved place is not used with other data. */
  readonly fingerprint: string;
  /** The tokens `[start, end)`. Throws ERR_LIBMOE_ARGUMENT outside `[0, length]`. */
  read(start: number, end: number): Int32Array;
  /** Releases what the data set holds open. */
  close(): void;
}

/** Options of {@link tokenDataset}. */
export interface TokenDatasetOptions {
  /** Where documents begin, `[documents + 1]`; else they end at `separatorId`, else everything is one document. */
  documentOffsets?: ArrayLike<number>;
  separatorId?: number;
  /** Ids are checked against it. */
  vocabularySize?: number;
  /** Pretends that the tokens are stored in pieces of these lengths. */
  shardLengths?: readonly number[];
}

/**
 * A data set in memory.
 * @throws ERR_LIBMOE_DATA when offsets or ids do not fit.
 */
export function tokenDataset(tokens: Int32Array, options: TokenDatasetOptions = {}): TokenDataset {
  const { vocabularySize, separatorId } = options;
  if (vocabularySize !== undefined) {
    const wrong = tokens.findIndex((id) => id < 0 || id >= vocabularySize);
    if (wrong >= 0)
      fail('ERR_LIBMOE_DATA', `ids must lie in 0…${vocabularySize - 1}, got ${tokens[wrong]} at ${wrong}`);
  }
  const documentOffsets = Float64Array.from(options.documentOffsets ?? offsetsAt(tokens, separatorId));
  const rising = documentOffsets.every((offset, i) => offset >= (i === 0 ? 0 : documentOffsets[i - 1]!));
  if (documentOffsets[0] !== 0 || documentOffsets.at(-1) !== tokens.length || !rising) {
    fail('ERR_LIBMOE_DATA', `documentOffsets must rise from 0 to ${tokens.length}`);
  }
  const shardLengths = options.shardLengths ?? [tokens.length];
  if (shardLengths.reduce((sum, n) => sum + n, 0) !== tokens.length) {
    fail('ERR_LIBMOE_DATA', `shardLengths must add up to ${tokens.length}`);
  }
  const bytes = new Uint8Array(tokens.buffer, tokens.byteOffset, tokens.byteLength);
  return {
    length: tokens.length,
    documentOffsets,
    shardLengths,
    vocabularySize,
    fingerprint: createHash('sha256').update(bytes).digest('hex').slice(0, 16),
    read(start, end) {
      checkRange(start, end, tokens.length);
      return tokens.slice(start, end);
    },
    close() {},
  };
}

/** Throws ERR_LIBMOE_ARGUMENT unless `0 <= start <= end <= length`. */
export function checkRange(start: number, end: number, length: number): void {
  if (!Number.isInteger(start) || !Number.isInteger(end) || start < 0 || end < start || end > length) {
    fail('ERR_LIBMOE_ARGUMENT', `the range must lie in 0…${length}, got ${start}…${end}`);
  }
}

/** Index of the last entry of a rising list that is not above `value`. */
export function lastNotAbove(offsets: ArrayLike<number>, value: number): number {
  let low = 0;
  let high = offsets.length - 1;
  while (low < high) {
    const middle = (low + high + 1) >> 1;
    if (offsets[middle]! <= value) low = middle;
    else high = middle - 1;
  }
  return low;
}

function offsetsAt(tokens: Int32Array, separatorId: number | undefined): number[] {
  const offsets = [0];
  if (separatorId !== undefined) {
    for (let t = 0; t < tokens.length; ++t) if (tokens[t] === separatorId) offsets.push(t + 1);
  }
  if (offsets.at(-1) !== tokens.length) offsets.push(tokens.length);
  return offsets;
}
