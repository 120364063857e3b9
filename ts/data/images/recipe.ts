import { fail } from '../../native/index.ts';
import { canvas, paste, resized } from './canvas.ts';
import { type DecodedImage, decodeImage, type ImageDecodeOptions } from './decode.ts';
import { drawBox, drawDigits, drawPolygon, fillBox } from './drawing.ts';

/** An image with something drawn into it, or made of several: plain data, done when the image is loaded. Colours are `#rrggbb`. */
export type ImageRecipe =
  /** The outline of a box: left, top, right, bottom in pixels; `width` pixels wide, inwards. */
  | { make: 'box'; files: readonly [string]; box: readonly number[]; colour: string; width: number }
  /** The outline of a polygon, one pixel wide: x, y, x, y … in pixels. */
  | { make: 'polygon'; files: readonly [string]; points: readonly number[]; colour: string }
  /** Side by side or one below the other, whichever is less long, all `size` pixels high or wide, each with its number in its corner. */
  | { make: 'group'; files: readonly string[]; size: number };

/** An image to load: a file, a `data:` URL with base64, or how an image is made of such. */
export type ImageReference = string | ImageRecipe;

/** Raised whenever a recipe may give other pixels for the same files. */
export const recipeVersion = 1;

/** Whether a value is the recipe of an image rather than the name of one. */
export function isImageRecipe(value: unknown): value is ImageRecipe {
  if (typeof value !== 'object' || value === null) return false;
  const { make, files } = value as { make?: unknown; files?: unknown };
  return (
    ['box', 'polygon', 'group'].includes(make as string) &&
    Array.isArray(files) &&
    files.length > 0 &&
    files.every((file) => typeof file === 'string' && file !== '')
  );
}

const dataUrl = /^data:[\w/*+.-]*;base64,/;

/** The bytes of a `data:` URL with base64, undefined for anything else. */
export function dataUrlBytes(image: string): Buffer | undefined {
  const head = dataUrl.exec(image)?.[0];
  return head === undefined ? undefined : Buffer.from(image.slice(head.length), 'base64');
}

/** How an image is called in messages. */
export const shownName = (file: string): string =>
  file.startsWith('data:') ? `${file.slice(0, 40)}…` : file;

/** As decodeImage, of anything that stands for an image. Throws as decodeImage. */
export async function decodeReference(
  image: ImageReference,
  options: ImageDecodeOptions = {},
): Promise<DecodedImage> {
  if (typeof image === 'string') {
    const bytes = dataUrlBytes(image);
    return bytes === undefined
      ? decodeImage(image, options)
      : decodeImage(bytes, { ...options, name: shownName(image) });
  }
  const decoded: DecodedImage[] = [];
  for (const file of image.files) decoded.push(await decodeReference(file, options));
  if (image.make === 'group') return grouped(decoded, image.size);
  const [only] = decoded as [DecodedImage];
  // What was decoded may be read-only or shared.
  const onto = { ...only, rgb: Uint8Array.from(only.rgb) };
  if (image.make === 'box') drawBox(onto, image.box, rgbOf(image.colour), image.width);
  else drawPolygon(onto, image.points, rgbOf(image.colour));
  return onto;
}

function rgbOf(colour: string): [number, number, number] {
  const [, red, green, blue] = /^#([0-9a-f]{2})([0-9a-f]{2})([0-9a-f]{2})$/i.exec(colour) ?? [];
  return blue === undefined
    ? fail('ERR_LIBMOE_ARGUMENT', `a colour is written #rrggbb, got ${JSON.stringify(colour)}`)
    : [Number.parseInt(red!, 16), Number.parseInt(green!, 16), Number.parseInt(blue, 16)];
}

const [black, white] = [[0, 0, 0] as const, [255, 255, 255] as const];
const margin = 10;
const square = 60;

function grouped(images: readonly DecodedImage[], size: number): DecodedImage {
  const scaled = (one: number, other: number): number => Math.max(1, Math.trunc((one * size) / other));
  const widths = images.map(({ width, height }) => scaled(width, height));
  const heights = images.map(({ width, height }) => scaled(height, width));
  const total = (lengths: readonly number[]): number => lengths.reduce((sum, length) => sum + length, 0);
  const down = total(widths) > total(heights);
  const onto = down ? canvas(size, total(heights), black) : canvas(total(widths), size, black);
  let at = 0;
  for (const [i, image] of images.entries()) {
    const [width, height] = down ? [size, heights[i]!] : [widths[i]!, size];
    const one = resized(image, { width, height }, 'lanczos');
    fillBox(one, [0, 0, square + 1, square + 1], white);
    drawDigits(one, `[${i + 1}]`, [margin, margin], 4, black);
    paste(onto, one, down ? 0 : at, down ? at : 0);
    at += down ? height : width;
  }
  return onto;
}
