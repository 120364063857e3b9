import { fail } from '../../native/index.ts';
import { type PixelFilter, resizePixels } from '../../tensor/resize-pixels.ts';
import type { DecodedImage } from './decode.ts';

// What an image may become on its way: 400 MB of colours. A strip of 1 x 100,000 would, as a square, have 30 GB.
const mostPixels = 2 ** 27;

/** `width` x `height` pixels of one colour. Throws ERR_LIBMOE_IMAGE for more than any image should become. */
export function canvas(width: number, height: number, colour: readonly number[]): DecodedImage {
  checkSize(width, height);
  const rgb = new Uint8Array(3 * width * height);
  if (colour.some((c) => c !== 0)) for (let i = 0; i < rgb.length; i += 1) rgb[i] = colour[i % 3]!;
  return { width, height, rgb };
}

function checkSize(width: number, height: number): void {
  if (width * height > mostPixels)
    fail(
      'ERR_LIBMOE_IMAGE',
      `the image would become ${width} x ${height} on its way, more than ${mostPixels} pixels: it is too long for its width`,
    );
}

/** `image` in another size. Throws ERR_LIBMOE_IMAGE for one that should not be made. */
export function resized(
  image: DecodedImage,
  size: { width: number; height: number },
  filter: PixelFilter,
): DecodedImage {
  const { width, height } = size;
  checkSize(width, height);
  return { width, height, rgb: resizePixels(image.rgb, image, { width, height, filter }) };
}

/** Copies the part of `from` that falls on `onto` when its corner lies at (left, top), which may be negative. */
export function paste(onto: DecodedImage, from: DecodedImage, left: number, top: number): DecodedImage {
  const first = Math.max(0, -left);
  const end = Math.min(from.width, onto.width - left);
  if (end > first) {
    for (let y = Math.max(0, -top); y < Math.min(from.height, onto.height - top); y += 1) {
      const row = 3 * y * from.width;
      onto.rgb.set(
        from.rgb.subarray(row + 3 * first, row + 3 * end),
        3 * ((y + top) * onto.width + left + first),
      );
    }
  }
  return onto;
}
