import { fail, native } from '../native/index.ts';

/** Order of native/ops/image.h. */
const filters = ['nearest', 'box', 'bilinear', 'bicubic', 'lanczos'] as const;

const positive = (value: number): boolean => Number.isInteger(value) && value > 0;

/** The filters of {@link resizePixels}, as Pillow names them. */
export type PixelFilter = (typeof filters)[number];

/**
 * 8-bit pixels in another size, bit for bit what Pillow's `Image.resize` gives: with antialiasing where the image shrinks, bicubic with a = −0.5.
 * `pixels` holds rows of interleaved channels (1 to 4, each resized for itself). Host memory; works in any thread, on that thread alone.
 * Throws ERR_LIBMOE_SHAPE, ERR_LIBMOE_ARGUMENT.
 */
export function resizePixels(
  pixels: Uint8Array,
  from: { width: number; height: number; channels?: number },
  to: { width: number; height: number; filter: PixelFilter },
): Uint8Array {
  const { channels = 3 } = from;
  const filter = filters.indexOf(to.filter);
  if (filter < 0)
    fail(
      'ERR_LIBMOE_ARGUMENT',
      `resizePixels knows the filters ${filters.join(', ')}, got ${String(to.filter)}`,
    );
  for (const [name, size] of Object.entries({ width: to.width, height: to.height }))
    if (!positive(size)) fail('ERR_LIBMOE_ARGUMENT', `resizePixels expects a positive ${name}, got ${size}`);
  const out = new Uint8Array(to.width * to.height * channels);
  native().resizePixels(pixels, from.width, from.height, channels, out, to.width, to.height, filter);
  return out;
}
