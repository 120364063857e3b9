import type { TokenBatch } from './batch.ts';

/**
 * A packed batch some of whose tokens are images. Placeholders are already expanded: an image (or tile of one) owns `tokensPerImage` rows of
 * `ids`, all the id of the image token. Their targets are −1, but for the last row of an image that a learned token follows: that one
 * predicts it, like every other token.
 */
export interface VisionLanguageBatch extends TokenBatch {
  /** Absent: text alone. In the order of their rows in `ids`. */
  images?: BatchImages;
}

/** The images of a batch. */
export interface BatchImages {
  /** Normalised, channel first, `[count, 3, side, side]`. */
  pixels: Float32Array;
  count: number;
  side: number;
  /**
   * The first row in `ids` of each image, `[count]`; it owns `tokensPerImage` rows from there. −1, under `compat: 'libmoe'` alone: an image
   * without rows, which goes through tower and projector and is then left out.
   */
  starts: Int32Array;
  /** Rows that each image really has, `[count]`: `compat: 'libmoe'` cuts images at the context. Absent: all of them. */
  rows?: Int32Array;
  /** The sequence that each image belongs to, `[count]`. Given where an image has no rows that would say so. */
  sequences?: Int32Array;
}

/** Sequences `[first, last)` of a batch as a batch of their own. Nothing is copied but offsets. */
export function sliceVisionLanguageBatch(
  batch: VisionLanguageBatch,
  first: number,
  last: number,
): VisionLanguageBatch {
  const { ids, targets, sequenceOffsets: offsets, positions, images } = batch;
  const [begin, end] = [offsets[first]!, offsets[last]!];
  const part: VisionLanguageBatch = {
    ids: ids.subarray(begin, end),
    targets: targets.subarray(begin, end),
    sequenceOffsets: offsets.slice(first, last + 1).map((offset) => offset - begin),
    ...(positions && { positions: positions.subarray(begin, end) }),
  };
  const own = images && imagesBetween(images, { first, last, begin, end });
  if (own) part.images = own;
  return part;
}

function imagesBetween(
  images: BatchImages,
  { first, last, begin, end }: { first: number; last: number; begin: number; end: number },
): BatchImages | undefined {
  const { pixels, count, side, starts, rows, sequences } = images;
  // Images stand in the order of their sequences, so those of a range are neighbours.
  const before = (i: number) => (sequences ? sequences[i]! < first : starts[i]! < begin);
  const within = (i: number) => (sequences ? sequences[i]! < last : starts[i]! < end);
  let from = 0;
  while (from < count && before(from)) from += 1;
  let to = from;
  while (to < count && within(to)) to += 1;
  if (to === from) return undefined;
  const size = 3 * side * side;
  return {
    pixels: pixels.subarray(from * size, to * size),
    count: to - from,
    side,
    starts: starts.slice(from, to).map((start) => (start < 0 ? start : start - begin)),
    ...(rows && { rows: rows.subarray(from, to) }),
    ...(sequences && { sequences: sequences.slice(from, to).map((sequence) => sequence - first) }),
  };
}
