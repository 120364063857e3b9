import type { PixelFilter } from '../../tensor/resize-pixels.ts';
import { canvas, paste, resized } from './canvas.ts';
import type { DecodedImage } from './decode.ts';

/** Of several sizes (height, width) the one in which most pixels of the image survive and, among those, fewest are empty: the first of equals. */
export function bestResolution(
  image: { width: number; height: number },
  sizes: readonly (readonly [height: number, width: number])[],
): readonly [height: number, width: number] {
  let best = sizes[0]!;
  let most = -1;
  let least = Number.POSITIVE_INFINITY;
  for (const size of sizes) {
    const [height, width] = size;
    const scale = Math.min(width / image.width, height / image.height);
    const fitted = Math.trunc(image.width * scale) * Math.trunc(image.height * scale);
    const kept = Math.min(fitted, image.width * image.height);
    const wasted = width * height - kept;
    if (kept > most || (kept === most && wasted < least)) {
      best = size;
      most = kept;
      least = wasted;
    }
  }
  return best;
}

/**
 * LLaVA 1.6: the whole image as a square of `whole`, then the tiles of the image in the best of the sizes, with its aspect kept, centred on black, row by row.
 */
export function anyresTiles(
  image: DecodedImage,
  sizes: readonly (readonly [height: number, width: number])[],
  { side, whole: edge }: { side: number; whole: number },
  filter: PixelFilter,
): DecodedImage[] {
  const [height, width] = bestResolution(image, sizes);
  const across = width / image.width;
  const down = height / image.height;
  const size =
    across < down
      ? { width, height: Math.min(Math.ceil(image.height * across), height) }
      : { width: Math.min(Math.ceil(image.width * down), width), height };
  const whole = paste(
    canvas(width, height, [0, 0, 0]),
    resized(image, size, filter),
    Math.floor((width - size.width) / 2),
    Math.floor((height - size.height) / 2),
  );
  const tiles = [resized(image, { width: edge, height: edge }, filter)];
  for (let top = 0; top < height; top += side)
    for (let left = 0; left < width; left += side)
      tiles.push(paste(canvas(side, side, [0, 0, 0]), whole, -left, -top));
  return tiles;
}
