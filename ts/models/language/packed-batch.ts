import type { TokenBatch } from '../../data/batch.ts';
import { fail } from '../../native/index.ts';
import { noGrad, scope, type Tensor, tensor } from '../../tensor/index.ts';
import { cat, gatherRows } from '../../tensor/shape.ts';

/** Input rows that stand in the place of embeddings, such as the features of an image. */
export interface InsertedRows {
  /** `[rows, dModel]`, of the model's dtype. */
  rows: Tensor;
  /** Tokens of the batch whose embedding is replaced, and by which of the rows. */
  at: Int32Array;
  from: Int32Array;
}

/** What forward needs of a batch; targets only for the loss. */
export type ModelBatch = Omit<TokenBatch, 'targets'> & { targets?: Int32Array; inserted?: InsertedRows };

/** Embeddings `[tokens, dModel]` with rows inserted. @throws ERR_LIBMOE_DATA for places outside, ERR_LIBMOE_SHAPE for rows of another width */
export function withInserted(embedded: Tensor, { rows, at, from }: InsertedRows): Tensor {
  const [tokens = 0, width] = embedded.shape;
  if (rows.rank !== 2 || rows.shape[1] !== width)
    fail('ERR_LIBMOE_SHAPE', `inserted rows must be [rows, ${width}], got [${rows.shape.join(', ')}]`);
  const count = rows.shape[0]!;
  if (
    at.length !== from.length ||
    at.some((t) => t < 0 || t >= tokens) ||
    from.some((r) => r < 0 || r >= count)
  )
    fail(
      'ERR_LIBMOE_DATA',
      `inserted rows: at and from must be as long, at within 0…${tokens - 1} and from within 0…${count - 1}`,
    );
  const order = Int32Array.from({ length: tokens }, (_, t) => t);
  at.forEach((t, i) => {
    order[t] = tokens + from[i]!;
  });
  return gatherRows(cat([embedded, rows]), tensor(order, undefined, { device: embedded.device }));
}

/** Tokens of each sequence. */
export function lengthsOf(offsets: Int32Array): number[] {
  return Array.from({ length: offsets.length - 1 }, (_, i) => offsets[i + 1]! - offsets[i]!);
}

/** Positions that count from each sequence's start, or on from what the cache already holds of it. */
export function countedPositions(offsets: Int32Array, starts?: readonly number[]): Int32Array {
  const positions = new Int32Array(offsets[offsets.length - 1]!);
  lengthsOf(offsets).forEach((length, sequence) => {
    const start = starts?.[sequence] ?? 0;
    for (let i = 0; i < length; i++) positions[offsets[sequence]! + i] = start + i;
  });
  return positions;
}

/** A run of new tokens of one sequence that lie in one piece of it. */
export interface Piece {
  sequence: number;
  /** Which piece, counted from the sequence's start. */
  index: number;
  /** Tokens of the piece up to and with the last one of the run, those before the run included. */
  length: number;
}

/**
 * Cuts packed sequences, of which `starts[s]` tokens went before, at each multiple of `size`.
 * @returns the pieces in the order of the batch, and where in it each begins (and the number of tokens)
 */
export function piecesOf(
  offsets: Int32Array,
  size: number,
  starts?: readonly number[],
): { pieces: Piece[]; offsets: Int32Array } {
  const pieces: Piece[] = [];
  const begins: number[] = [];
  lengthsOf(offsets).forEach((count, sequence) => {
    const start = starts?.[sequence] ?? 0;
    for (let at = start; at < start + count; ) {
      const index = Math.floor(at / size);
      const end = Math.min(start + count, (index + 1) * size);
      pieces.push({ sequence, index, length: end - index * size });
      begins.push(offsets[sequence]! + at - start);
      at = end;
    }
  });
  return { pieces, offsets: Int32Array.from([...begins, offsets[offsets.length - 1]!]) };
}

/** A batch of plain token lists, without targets. @throws ERR_LIBMOE_DATA when there is none or one is empty */
export function packSequences(sequences: readonly ArrayLike<number>[]): ModelBatch {
  const offsets = new Int32Array(sequences.length + 1);
  sequences.forEach((sequence, i) => {
    if (sequence.length === 0)
      fail('ERR_LIBMOE_DATA', `sequence ${i} is empty: every sequence needs a token`);
    offsets[i + 1] = offsets[i]! + sequence.length;
  });
  if (sequences.length === 0) fail('ERR_LIBMOE_DATA', 'a batch needs at least one sequence');
  const ids = new Int32Array(offsets[sequences.length]!);
  sequences.forEach((sequence, i) => {
    ids.set(Array.from(sequence), offsets[i]!);
  });
  return { ids, sequenceOffsets: offsets };
}

/** Some rows of hidden states, `[rows.length, dModel]`. Not differentiable. */
export function rowsOf(hidden: Tensor, rows: readonly number[]): Tensor {
  return noGrad(() =>
    scope(() => gatherRows(hidden, tensor(rows, undefined, { dtype: 'i32', device: hidden.device }))),
  );
}
