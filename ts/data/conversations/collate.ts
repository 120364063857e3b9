import type { BatchImages, VisionLanguageBatch } from '../vision-batch.ts';
import type { ImageTiles } from './image-source.ts';
import type { Sample } from './samples.ts';

/** A sample and the pixels of its images. */
export interface ReadySample {
  sample: Sample;
  images: readonly ImageTiles[];
}

/**
 * Lays samples end to end, each a sequence of its own. `zeroImages`: a sample without images gets one of zeros that has no rows, as in LibMoE.
 */
export function collate(
  samples: readonly ReadySample[],
  { side, zeroImages, tokensPerImage }: { side: number; zeroImages: boolean; tokensPerImage: number },
): VisionLanguageBatch {
  const tokens = samples.reduce((sum, { sample }) => sum + sample.ids.length, 0);
  const batch: VisionLanguageBatch = {
    ids: new Int32Array(tokens),
    targets: new Int32Array(tokens),
    sequenceOffsets: new Int32Array(samples.length + 1),
  };
  let at = 0;
  for (const [i, { sample }] of samples.entries()) {
    batch.ids.set(sample.ids, at);
    batch.targets.set(sample.targets, at);
    at += sample.ids.length;
    batch.sequenceOffsets[i + 1] = at;
  }
  const images = imagesOf(samples, batch.sequenceOffsets, { side, zeroImages, tokensPerImage });
  if (images) batch.images = images;
  return batch;
}

function imagesOf(
  samples: readonly ReadySample[],
  offsets: Int32Array,
  { side, zeroImages, tokensPerImage }: { side: number; zeroImages: boolean; tokensPerImage: number },
): BatchImages | undefined {
  const counts = samples.map(({ sample }) =>
    zeroImages ? Math.max(1, sample.images.length) : sample.images.length,
  );
  const count = counts.reduce((sum, own) => sum + own, 0);
  if (count === 0) return undefined;
  const size = 3 * side * side;
  const pixels = new Float32Array(count * size);
  const starts = new Int32Array(count).fill(-1);
  const rows = new Int32Array(count);
  const sequences = new Int32Array(count);
  let at = 0;
  for (const [sequence, { sample, images }] of samples.entries()) {
    for (const [i, { image, tile, start, rows: own }] of sample.images.entries()) {
      pixels.set(images[image]!.pixels.subarray(tile * size, (tile + 1) * size), (at + i) * size);
      if (start >= 0) starts[at + i] = offsets[sequence]! + start;
      rows[at + i] = own;
    }
    sequences.fill(sequence, at, at + counts[sequence]!);
    at += counts[sequence]!;
  }
  const rowless = starts.some((start) => start < 0);
  const cut = rows.some((own, i) => starts[i]! >= 0 && own < tokensPerImage);
  return { pixels, count, side, starts, ...(cut && { rows }), ...(rowless && { sequences }) };
}
