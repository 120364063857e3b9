import { open } from 'node:fs/promises';
import type SharpFunction from 'sharp';
import { codeOf, fail } from '../../native/index.ts';

/** 8-bit colours, row by row, interleaved. */
export interface DecodedImage {
  width: number;
  height: number;
  /** [height, width, 3] */
  rgb: Uint8Array;
}

/** Options of {@link decodeImage}. */
export interface ImageDecodeOptions {
  /** Largest width · height; read from the header, before memory is taken. Default 89,478,485, Pillow's limit. */
  maxPixels?: number;
  /** Largest file. Default 128 MiB. */
  maxFileBytes?: number;
  /**
   * What the camera's EXIF orientation does: nothing (`ignore`, default: what `PIL.Image.open(…).convert('RGB')` gives, hence LLaVA's and the
   * processors of transformers), or the image is turned upright (`apply`, as PIL's `ImageOps.exif_transpose`).
   */
  orientation?: 'ignore' | 'apply';
}

const formats: readonly (readonly [name: string, begins: (b: Uint8Array) => boolean])[] = [
  ['JPEG', (b) => b[0] === 0xff && b[1] === 0xd8 && b[2] === 0xff],
  ['PNG', (b) => ascii(b, 1, 4) === 'PNG' && b[0] === 0x89],
  ['GIF', (b) => ascii(b, 0, 4) === 'GIF8'],
  ['WebP', (b) => ascii(b, 0, 4) === 'RIFF' && ascii(b, 8, 12) === 'WEBP'],
];
const ascii = (b: Uint8Array, from: number, to: number): string =>
  String.fromCharCode(...b.subarray(from, to));

/** Loaded at the first image: commands without images start faster. A thread that starts others must load it first. */
export const loadSharp = async (): Promise<typeof SharpFunction> => (await import('sharp')).default;

async function bytesOf(file: string, maxFileBytes: number): Promise<Uint8Array> {
  try {
    const handle = await open(file);
    try {
      const stat = await handle.stat();
      if (!stat.isFile()) return fail('ERR_LIBMOE_IMAGE', `${file} is no file`);
      if (stat.size > maxFileBytes)
        fail(
          'ERR_LIBMOE_IMAGE',
          `${file} has ${stat.size} bytes, the limit (maxFileBytes) is ${maxFileBytes}`,
        );
      return await handle.readFile();
    } finally {
      await handle.close();
    }
  } catch (error) {
    if (codeOf(error)) throw error;
    const { code, message } = error as NodeJS.ErrnoException;
    if (code === 'ENOENT' || code === 'ENOTDIR')
      return fail('ERR_LIBMOE_IMAGE_MISSING', `${file} does not exist`, error);
    return fail('ERR_LIBMOE_IMAGE', `${file} cannot be read (${message})`, error);
  }
}

/**
 * The colours of a JPEG, PNG, WebP or GIF (its first frame), from a file or its bytes; `name` stands for bytes in errors. The same bytes as
 * `PIL.Image.open(…).convert('RGB')`: alpha is dropped, grey repeated, colour profiles are left alone, CMYK is turned by Pillow's formula. Two exceptions:
 * of 16-bit grey the upper 8 bits are taken (Pillow 12 saturates), and transparent pixels of a GIF are black. Throws ERR_LIBMOE_IMAGE_MISSING,
 * and ERR_LIBMOE_IMAGE with the file and the reason: not an image, cut off, damaged, beyond the limits.
 */
export async function decodeImage(
  source: string | Uint8Array,
  options: ImageDecodeOptions & { name?: string } = {},
): Promise<DecodedImage> {
  const { maxPixels = 89_478_485, maxFileBytes = 128 * 2 ** 20, orientation = 'ignore' } = options;
  const name = typeof source === 'string' ? source : (options.name ?? 'an image in memory');
  const bytes = typeof source === 'string' ? await bytesOf(source, maxFileBytes) : source;
  if (bytes.length > maxFileBytes)
    fail(
      'ERR_LIBMOE_IMAGE',
      `${name} has ${bytes.length} bytes, the limit (maxFileBytes) is ${maxFileBytes}`,
    );
  if (!formats.some(([, begins]) => begins(bytes)))
    fail(
      'ERR_LIBMOE_IMAGE',
      `${name} is no image of a known format (${formats.map(([format]) => format).join(', ')})`,
    );
  const sharp = await loadSharp();
  try {
    const input = sharp(bytes, {
      failOn: 'error',
      ignoreIcc: true,
      limitInputPixels: maxPixels,
      autoOrient: orientation === 'apply',
    });
    const { width, height, space, channels } = await input.metadata();
    if (width * height > maxPixels)
      fail(
        'ERR_LIBMOE_IMAGE',
        `${name} has ${width} x ${height} pixels, the limit (maxPixels) is ${maxPixels}: shrink it or raise the limit`,
      );
    if (space === 'cmyk' && channels >= 4) {
      const { data, info } = await input
        .pipelineColourspace('cmyk')
        .toColourspace('cmyk')
        .raw({ depth: 'uchar' })
        .toBuffer({ resolveWithObject: true });
      return { width: info.width, height: info.height, rgb: colours(data, info.channels) };
    }
    const { data, info } = await input
      .toColourspace('srgb')
      .removeAlpha()
      .raw({ depth: 'uchar' })
      .toBuffer({ resolveWithObject: true });
    if (info.channels !== 3)
      fail('ERR_LIBMOE_IMAGE', `${name} decodes to ${info.channels} channels instead of 3`);
    return { width: info.width, height: info.height, rgb: data };
  } catch (error) {
    if (codeOf(error)) throw error;
    const reason = (error as Error).message.trim().split('\n', 2).join(' ');
    return /exceeds pixel limit/.test(reason)
      ? fail('ERR_LIBMOE_IMAGE', `${name} has more pixels than the limit (maxPixels) of ${maxPixels}`, error)
      : fail('ERR_LIBMOE_IMAGE', `${name} cannot be decoded (${reason})`, error);
  }
}

/** Inks as light: white less black less each ink of what is left, rounded as Pillow rounds. */
function colours(inks: Uint8Array, channels: number): Uint8Array {
  const pixels = inks.length / channels;
  const rgb = new Uint8Array(3 * pixels);
  for (let i = 0; i < pixels; i += 1) {
    const light = 255 - inks[channels * i + 3]!;
    for (let c = 0; c < 3; c += 1) {
      const product = inks[channels * i + c]! * light + 128;
      rgb[3 * i + c] = Math.max(0, light - (((product >> 8) + product) >> 8));
    }
  }
  return rgb;
}
