import { permutation } from './shuffle.ts';
import { lastNotAbove, type TokenDataset } from './token-dataset.ts';

/** The tokens of one epoch in the order in which windows are cut from them. */
export interface TokenStream {
  readonly length: number;
  read(start: number, end: number): Int32Array;
  /** Places in `(start, end)` where a document begins. */
  boundaries(start: number, end: number): number[];
}

/** The data set as it is stored. */
export function storedStream(dataset: TokenDataset): TokenStream {
  return {
    length: dataset.length,
    read: (start, end) => dataset.read(start, end),
    boundaries: (start, end) => between(dataset.documentOffsets, start, end),
  };
}

/** Its documents in an order that depends on seed and epoch. */
export function shuffledDocuments(dataset: TokenDataset, seed: number, epoch: number): TokenStream {
  const offsets = dataset.documentOffsets;
  const order = permutation(offsets.length - 1, seed, epoch);
  const starts = new Float64Array(order.length + 1);
  for (const [i, document] of order.entries()) {
    starts[i + 1] = starts[i]! + offsets[document + 1]! - offsets[document]!;
  }
  return {
    length: dataset.length,
    read(start, end) {
      const out = new Int32Array(end - start);
      for (let at = start; at < end; ) {
        const i = lastNotAbove(starts, at);
        const stop = Math.min(end, starts[i + 1]!);
        const from = offsets[order[i]!]! + at - starts[i]!;
        out.set(dataset.read(from, from + stop - at), at - start);
        at = stop;
      }
      return out;
    },
    boundaries: (start, end) => between(starts, start, end),
  };
}

function between(offsets: Float64Array, start: number, end: number): number[] {
  const found: number[] = [];
  for (let i = lastNotAbove(offsets, start) + 1; i < offsets.length && offsets[i]! < end; ++i) {
    // Documents without tokens begin where the next one does.
    if (offsets[i]! > start && offsets[i] !== found.at(-1)) found.push(offsets[i]!);
  }
  return found;
}
