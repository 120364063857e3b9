import type { BatchImages } from '../../data/vision-batch.ts';
import { fail } from '../../native/index.ts';

export type { BatchImages };

/** What the places of images in a batch depend on. */
export interface ImagePlace {
  imageTokenId: number;
  tokensPerImage: number;
}

/**
 * Which tokens of a batch the rows of its images replace: row `from[i]` of all images' rows goes to token `at[i]`.
 * @throws ERR_LIBMOE_DATA where images and placeholders do not fit each other, saying which
 */
export function rowsOfImages(
  { ids, sequenceOffsets: offsets }: { ids: Int32Array; sequenceOffsets: Int32Array },
  images: Pick<BatchImages, 'starts' | 'count' | 'rows'> | undefined,
  { imageTokenId, tokensPerImage }: ImagePlace,
): { at: Int32Array; from: Int32Array } {
  const wrong = (message: string): never => fail('ERR_LIBMOE_DATA', message);
  const placeholders = ids.reduce((sum, id) => sum + (id === imageTokenId ? 1 : 0), 0);
  const starts = images?.starts ?? new Int32Array(0);
  if (images && starts.length !== images.count)
    wrong(`a batch of ${images.count} images has ${starts.length} starts: give one each (−1: no rows)`);
  const at: number[] = [];
  const from: number[] = [];
  let free = 0;
  for (const [image, start] of starts.entries()) {
    if (start === -1) continue;
    if (start < free || start >= ids.length)
      wrong(
        `image ${image} starts at token ${start}; its rows must lie in ${free}…${ids.length - 1}, in order`,
      );
    const end = offsets.find((offset) => offset > start)!;
    const rows = images?.rows?.[image] ?? tokensPerImage;
    if (start + rows > end)
      wrong(
        `image ${image} needs ${rows} rows from token ${start} on, but its sequence ends at ${end}: cut sequences before images, not in them`,
      );
    for (let row = 0; row < rows; row++) {
      if (ids[start + row] !== imageTokenId)
        wrong(
          `image ${image} owns tokens ${start} to ${start + rows - 1}, but token ${start + row} is ${ids[start + row]} and not the image token ${imageTokenId}: an image has ${tokensPerImage} placeholders`,
        );
      at.push(start + row);
      from.push(image * tokensPerImage + row);
    }
    free = start + rows;
  }
  if (placeholders !== at.length)
    wrong(
      `the batch has ${placeholders} tokens ${imageTokenId}, which stand for rows of images, but its ${starts.length} images have ${at.length} rows: ` +
        `give an image for every ${tokensPerImage} of them`,
    );
  return { at: Int32Array.from(at), from: Int32Array.from(from) };
}

/** Token ids in which every image has as many placeholders as it has rows, and where each image's begin. */
export interface ExpandedPlaceholders {
  ids: Int32Array;
  /** Of each image or tile. */
  starts: Int32Array;
}

/**
 * Writes `tokensPerImage` image tokens for each one in `ids`, and as many times that as an image has tiles.
 * @param tiles of each image; default: one
 * @throws ERR_LIBMOE_DATA when there are not as many placeholders as images
 */
export function expandPlaceholders(
  ids: ArrayLike<number>,
  images: number,
  { imageTokenId, tokensPerImage, tiles }: ImagePlace & { tiles?: readonly number[] },
): ExpandedPlaceholders {
  const expanded: number[] = [];
  const starts: number[] = [];
  let image = 0;
  for (const id of Array.from(ids)) {
    if (id !== imageTokenId) {
      expanded.push(id);
      continue;
    }
    for (let tile = 0; tile < (tiles?.[image] ?? 1); tile++) {
      starts.push(expanded.length);
      for (let row = 0; row < tokensPerImage; row++) expanded.push(imageTokenId);
    }
    image += 1;
  }
  if (image !== images)
    fail(
      'ERR_LIBMOE_DATA',
      `there are ${image} placeholders of images (token ${imageTokenId}) and ${images} images: write one placeholder for each`,
    );
  return { ids: Int32Array.from(expanded), starts: Int32Array.from(starts) };
}
