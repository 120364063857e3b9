import { availableParallelism } from 'node:os';
import path from 'node:path';
import { Piscina } from 'piscina';
import { fail } from '../../native/index.ts';
import type { ImageSource, ImageTiles } from '../conversations/image-source.ts';
import { restoreCode, workerEntry } from '../worker-threads.ts';
import { type ImageDecodeOptions, loadSharp } from './decode.ts';
import { type ImageFailure, type ImageWork, loadImage } from './image-worker.ts';
import { KeptImages } from './kept-images.ts';
import { type ImageProcessorOptions, processorOf } from './processor.ts';
import { imageProcessorSettings } from './processor-config.ts';
import type { ImageReference } from './recipe.ts';

/** An image, or why there is none. */
export type PooledImage = ImageTiles | ImageFailure;

/** Options of {@link ImagePool}. */
export interface ImagePoolOptions extends ImageProcessorOptions {
  /** preprocessor_config.json: its path or content. */
  processor: unknown;
  /** Where relative paths begin; default the working directory. */
  folder?: string;
  /** Threads; 0 works in the calling one. Default: one less than there are processors, at least 1, at most 16. */
  workers?: number;
  /** Images of {@link ImagePool.stream} that are being made or wait to be taken. Default 4 for each worker. */
  prefetch?: number;
  /** Limits and orientation. */
  decode?: ImageDecodeOptions;
  /**
   * Processed images up to so many bytes, the first ones, are kept for the next time they are asked for: a small data set is decoded once, not once per
   * epoch and question. A file is taken not to change while the pool lives. Default 256 MiB; 0 keeps none.
   */
  keepBytes?: number;
}

const usualKeepBytes = 256 * 2 ** 20;

/** How many images a pool has been asked for. */
export interface ImageCounts {
  /** Those that were kept from an earlier time included. */
  loaded: number;
  missing: number;
  broken: number;
}

/**
 * Decodes and processes images in worker threads. Results come in the order asked for; a missing or damaged file is a value and a count, no
 * exception. Pixels may be handed out again: they are to be read, not written. Sharp decodes on Node's own pool of threads, 4 unless the environment variable UV_THREADPOOL_SIZE says more: set it to the number
 * of workers where that is larger. {@link ImagePool.close} it after use.
 */
export class ImagePool implements ImageSource {
  readonly counts: ImageCounts = { loaded: 0, missing: 0, broken: 0 };
  /** Width and height of what comes out, in pixels. */
  readonly side: number;
  /** Black after normalisation, by channel. */
  readonly black: readonly [number, number, number];
  private readonly work: ImageWork;
  private readonly folder: string;
  private readonly workers: number;
  private readonly prefetch: number;
  /** Being made, by file. */
  private readonly running = new Map<string, Promise<PooledImage>>();
  private readonly kept: KeptImages;
  private threads: Promise<Piscina> | undefined;
  private closed = false;

  /** Throws ERR_LIBMOE_CONFIG, ERR_LIBMOE_ARGUMENT. Threads start with the first image. */
  constructor(options: ImagePoolOptions) {
    const { processor, folder = '.', mode, gridPinpoints, decode = {} } = options;
    const { keepBytes = usualKeepBytes } = options;
    this.workers = options.workers ?? Math.min(16, Math.max(1, availableParallelism() - 1));
    this.prefetch = options.prefetch ?? 4 * Math.max(1, this.workers);
    for (const [name, value, least] of [
      ['workers', this.workers, 0],
      ['prefetch', this.prefetch, 1],
      ['keepBytes', keepBytes, 0],
    ] as const)
      if (!Number.isInteger(value) || value < least)
        fail(
          'ERR_LIBMOE_ARGUMENT',
          `ImagePool expects ${name} to be a whole number from ${least} on, got ${value}`,
        );
    this.folder = folder;
    this.kept = new KeptImages(keepBytes);
    this.work = {
      settings: imageProcessorSettings(processor),
      processing: { ...(mode && { mode }), ...(gridPinpoints && { gridPinpoints }) },
      decoding: decode,
    };
    const { side, black } = processorOf(this.work.settings, this.work.processing);
    this.side = side;
    this.black = black;
  }

  /** All of them, in the order of `images`: files, data: URLs, recipes. Rejects only for what is no image's fault (ERR_LIBMOE_STATE after `close`). */
  async load(images: readonly ImageReference[]): Promise<PooledImage[]> {
    const list: PooledImage[] = new Array(images.length);
    let at = 0;
    const line = async (): Promise<void> => {
      for (let i = at++; i < images.length; i = at++) list[i] = await this.one(images[i]!);
    };
    // Two for each worker: while one is being decoded, another is resized.
    await Promise.all(Array.from({ length: Math.min(images.length, 2 * Math.max(1, this.workers)) }, line));
    return list;
  }

  /** One after the other in order, at most `prefetch` of them ahead of the consumer. */
  async *stream(paths: Iterable<string> | AsyncIterable<string>): AsyncGenerator<PooledImage> {
    const ahead: Promise<PooledImage>[] = [];
    try {
      for await (const file of paths) {
        const next = this.one(file);
        next.catch(() => {}); // it is awaited in its turn, or not at all when the consumer leaves
        ahead.push(next);
        if (ahead.length >= this.prefetch) yield await ahead.shift()!;
      }
      while (ahead.length > 0) yield await ahead.shift()!;
    } finally {
      await Promise.allSettled(ahead);
    }
  }

  /** Waits for what is being made and ends the threads. Nothing can be loaded afterwards. */
  async close(): Promise<void> {
    this.closed = true;
    await Promise.allSettled(this.running.values());
    this.kept.clear();
    const threads = this.threads?.catch(() => undefined); // `load` has said why they did not start
    this.threads = undefined;
    await (await threads)?.destroy();
  }

  /** As {@link ImagePool.close}, for `await using`. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  private async one(reference: ImageReference): Promise<PooledImage> {
    if (this.closed)
      fail('ERR_LIBMOE_STATE', 'this ImagePool has been closed; make another one to load more images');
    const placed = this.placed(reference);
    const key = typeof placed === 'string' ? placed : JSON.stringify(placed);
    const image = this.kept.get(key) ?? (await this.made(key, placed));
    this.counts['pixels' in image ? 'loaded' : image.reason] += 1;
    return image;
  }

  /** With files that begin at the folder. */
  private placed(reference: ImageReference): ImageReference {
    const place = (file: string): string =>
      file.startsWith('data:') ? file : path.resolve(this.folder, file);
    if (typeof reference === 'string') return place(reference);
    return { ...reference, files: reference.files.map(place) } as ImageReference;
  }

  /** Asked for twice at the same time, an image is made once. */
  private async made(key: string, reference: ImageReference): Promise<PooledImage> {
    const under = this.running.get(key);
    if (under) return under;
    const making = this.make(reference);
    this.running.set(key, making);
    try {
      const image = await making;
      if ('pixels' in image) this.kept.put(key, image);
      return image;
    } finally {
      this.running.delete(key);
    }
  }

  private async make(reference: ImageReference): Promise<PooledImage> {
    if (this.workers === 0) return loadImage(reference, this.work);
    this.threads ??= this.start();
    const threads = await this.threads;
    return threads.run({ reference, work: this.work }).catch(restoreCode);
  }

  private async start(): Promise<Piscina> {
    await loadSharp();
    return new Piscina({
      ...workerEntry('./image-worker', import.meta.url),
      name: 'loadImageInThread',
      minThreads: 1,
      maxThreads: this.workers,
      concurrentTasksPerWorker: 2,
      idleTimeout: 30_000,
    });
  }
}
