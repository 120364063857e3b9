import { move, transferableSymbol, valueSymbol } from 'piscina';
import { codeOf } from '../../native/index.ts';
import type { ImageTiles } from '../conversations/image-source.ts';
import type { ImageDecodeOptions } from './decode.ts';
import { type ImageProcessor, type ImageProcessorOptions, processorOf } from './processor.ts';
import type { ImageProcessorSettings } from './processor-config.ts';
import { decodeReference, type ImageReference, shownName } from './recipe.ts';

/** What a worker needs to know once. Everything in it can be sent to another thread. */
export interface ImageWork {
  settings: ImageProcessorSettings;
  processing: ImageProcessorOptions;
  decoding: ImageDecodeOptions;
}

/** An image that could not be had: a value, so that one bad file does not end a run. */
export interface ImageFailure {
  path: string;
  /** `missing`: no such file; `broken`: not an image, damaged, beyond the limits. */
  reason: 'missing' | 'broken';
  /** The whole message, with the file's name. */
  error: string;
}

const processors = new Map<string, ImageProcessor>();

/** One image from its file or files to pixels, in the calling thread. Only what is wrong with the file is a value; other errors are thrown. */
export async function loadImage(
  reference: ImageReference,
  work: ImageWork,
): Promise<ImageTiles | ImageFailure> {
  const key = JSON.stringify([work.settings, work.processing]);
  let processor = processors.get(key);
  if (!processor) {
    processor = processorOf(work.settings, work.processing);
    processors.set(key, processor);
  }
  try {
    const image = await decodeReference(reference, work.decoding);
    return processor.process(image);
  } catch (error) {
    const code = codeOf(error);
    if (code !== 'ERR_LIBMOE_IMAGE' && code !== 'ERR_LIBMOE_IMAGE_MISSING') throw error;
    const { message } = error as Error;
    const path = shownName(typeof reference === 'string' ? reference : reference.files[0]!);
    return {
      path,
      reason: code === 'ERR_LIBMOE_IMAGE_MISSING' ? 'missing' : 'broken',
      error: message.includes(path) ? message : `${message} (${path})`,
    };
  }
}

/** {@link loadImage} in a worker thread: the pixels are handed over, not copied. */
export async function loadImageInThread({
  reference,
  work,
}: {
  reference: ImageReference;
  work: ImageWork;
}): Promise<unknown> {
  const loaded = await loadImage(reference, work);
  if (!('pixels' in loaded)) return loaded;
  return move({ [transferableSymbol]: loaded.pixels.buffer, [valueSymbol]: loaded });
}
