import { fail } from '../../native/index.ts';
import { anyresTiles } from './anyres.ts';
import { canvas, paste, resized } from './canvas.ts';
import type { DecodedImage } from './decode.ts';
import type { ImageProcessorSettings } from './processor-config.ts';

/** What a vision tower takes. */
export interface ProcessedImage {
  /** Normalised, channel first: [tiles, 3, side, side]. */
  pixels: Float32Array;
  /** 1, or with `anyres` the whole image and the tiles it was cut into, row by row. */
  tiles: number;
}

/** Options of `imageProcessor`. */
export interface ImageProcessorOptions {
  /**
   * `square`: the processor's own steps (SigLIP distorts to a square, CLIP crops the middle). `pad`: first a square canvas, the image in its
   * middle, the background ⌊mean · 255⌋ (LLaVA 1.5). `anyres`: the whole image and tiles of it in the best of `gridPinpoints` (LLaVA 1.6).
   * Default: what the class does, `square` for most.
   */
  mode?: 'square' | 'pad' | 'anyres';
  /** Sizes (height, width) that `anyres` chooses from, multiples of the side; default the configuration's. */
  gridPinpoints?: readonly (readonly [height: number, width: number])[];
}

/** Makes pixels for a tower out of decoded images; see `imageProcessor`. */
export interface ImageProcessor {
  readonly side: number;
  /** Throws ERR_LIBMOE_IMAGE for an image so long and thin that its square could not be held. */
  process(image: DecodedImage): ProcessedImage;
  /** What black becomes, by channel: an image of nothing else stands in for one that could not be read. */
  readonly black: readonly [number, number, number];
}

/** The image processor of settings that have been read. */
export function processorOf(
  settings: ImageProcessorSettings,
  options: ImageProcessorOptions = {},
): ImageProcessor {
  const { mode = settings.mode, gridPinpoints = settings.gridPinpoints } = options;
  const side = sideOf(settings);
  const table = valuesOf(settings);
  if (mode === 'anyres') {
    const wrong = gridPinpoints?.find((size) => size.some((s) => s < side || s % side !== 0));
    if (!gridPinpoints?.length || wrong)
      fail(
        'ERR_LIBMOE_CONFIG',
        `anyres expects gridPinpoints, (height, width) in multiples of ${side}, got ${wrong ? `[${wrong.join(', ')}]` : 'none'}`,
      );
  }
  const { resize } = settings;
  const whole = !resize ? side : 'height' in resize ? resize.height : resize.shortestEdge;
  const background = settings.mean.map((m) => Math.trunc(m * 255));
  const views = (image: DecodedImage): DecodedImage[] => {
    if (mode === 'anyres') return anyresTiles(image, gridPinpoints ?? [], { side, whole }, settings.filter);
    return [mode === 'pad' ? padded(image, background) : image];
  };
  const process = (image: DecodedImage): ProcessedImage => {
    const list = views(image);
    const pixels = new Float32Array(list.length * 3 * side * side);
    for (const [i, view] of list.entries())
      write(stepsOf(view, settings), table, pixels, i * 3 * side * side);
    return { pixels, tiles: list.length };
  };
  return { side, process, black: [table[0]!, table[256]!, table[512]!] };
}

/** The side of what comes out; it must not depend on the image. */
function sideOf({ resize, crop }: ImageProcessorSettings): number {
  const size = crop ?? (resize && 'height' in resize ? resize : undefined);
  if (!size || size.height !== size.width)
    return fail(
      'ERR_LIBMOE_CONFIG',
      `expected a processor whose images are squares of one size, got ${size ? `${size.height} x ${size.width}` : 'one whose size follows the image (no crop)'}`,
    );
  return size.height;
}

/** The number of each channel's 256 colours, rounded to f32 where NumPy rounds. */
function valuesOf({ rescale, normalise }: ImageProcessorSettings): Float32Array {
  const f = Math.fround;
  return Float32Array.from({ length: 768 }, (_, i) => {
    const channel = i >> 8;
    const value = rescale === undefined ? i & 255 : f((i & 255) * rescale);
    return normalise ? f(f(value - f(normalise.mean[channel]!)) / f(normalise.std[channel]!)) : value;
  });
}

/** Resize and crop. */
function stepsOf(image: DecodedImage, { resize, crop, filter }: ImageProcessorSettings): DecodedImage {
  let out = image;
  if (resize) {
    const { width, height } = image;
    const short = Math.min(width, height);
    const edge = (length: number): number =>
      'shortestEdge' in resize
        ? length === short
          ? resize.shortestEdge
          : Math.trunc((resize.shortestEdge * length) / short)
        : 0;
    const size = 'height' in resize ? resize : { width: edge(width), height: edge(height) };
    out = resized(image, size, filter);
  }
  if (!crop) return out;
  // What is smaller than the crop gets a black border.
  return paste(
    canvas(crop.width, crop.height, [0, 0, 0]),
    out,
    -Math.floor((out.width - crop.width) / 2),
    -Math.floor((out.height - crop.height) / 2),
  );
}

/** The image in the middle of a square, half a pixel up or left where it cannot be. */
function padded(image: DecodedImage, background: readonly number[]): DecodedImage {
  const { width, height } = image;
  if (width === height) return image;
  const side = Math.max(width, height);
  const centred = (length: number): number => Math.floor((side - length) / 2);
  return paste(canvas(side, side, background), image, centred(width), centred(height));
}

/** Channel first, through the table. */
function write({ rgb }: DecodedImage, table: Float32Array, to: Float32Array, offset: number): void {
  const plane = rgb.length / 3;
  for (let c = 0; c < 3; c += 1)
    for (let i = 0; i < plane; i += 1) to[offset + c * plane + i] = table[256 * c + rgb[3 * i + c]!]!;
}
