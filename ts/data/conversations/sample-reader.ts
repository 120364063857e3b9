import path from 'node:path';
import { fail } from '../../native/index.ts';
import type { ReadySample } from './collate.ts';
import type { Conversations } from './conversations.ts';
import { blackImage, type ImageTiles } from './image-source.ts';
import type { ResolvedLoaderOptions } from './loader-options.ts';
import { type EncodedSample, SampleMaker } from './samples.ts';
import type { TallySheet } from './tally.ts';

/** Encoded samples that are kept: planning by tokens encodes what is laid into a batch soon after. */
const encodedKept = 2048;

/** Reads conversations and their images as samples, and says what becomes of those that cannot be used. */
export class SampleReader {
  private readonly data: Conversations;
  private readonly options: ResolvedLoaderOptions;
  private readonly maker: SampleMaker;
  private readonly encoded = new Map<number, Promise<EncodedSample | string>>();
  /** Tokens + 1 of each sample, 0 while unknown. */
  private readonly lengths: Int32Array;

  constructor(data: Conversations, options: ResolvedLoaderOptions) {
    this.data = data;
    this.options = options;
    this.maker = new SampleMaker({ ...options, compat: data.compat });
    this.lengths = new Int32Array(data.length);
  }

  /** A sample with its images, or nothing where it is to be left out. */
  async sample(index: number, tally: TallySheet): Promise<ReadySample | undefined> {
    const { onBad } = this.options;
    const leaveOut = (reason: string, stop: boolean): undefined => {
      const text = `${this.data.nameOf(index)}: ${reason}`;
      if (stop) fail('ERR_LIBMOE_DATA', text);
      tally.count('skipped', `${text}; the sample is left out`);
    };
    const encoded = await this.encode(index);
    if (typeof encoded === 'string') return leaveOut(encoded, onBad === 'stop');
    const images = await this.imagesOf(encoded, index, tally);
    if (typeof images === 'string') return leaveOut(images, false);
    const sample = this.maker.expand(
      encoded,
      images.map(({ tiles }) => tiles),
    );
    const nothing = this.data.compat === 'fixed' && !sample.targets.some((target) => target >= 0);
    if (nothing)
      return leaveOut(
        `no answer begins within the context of ${this.options.context} tokens`,
        onBad === 'stop',
      );
    if (sample.cut)
      tally.count(
        'cut',
        `${this.data.nameOf(index)} is longer than the context of ${this.options.context} tokens and is cut`,
      );
    if (encoded.ignored)
      tally.count(
        'ignored',
        `${this.data.nameOf(index)}: lengths do not add up, nothing of it is learned (compat libmoe)`,
      );
    return { sample, images };
  }

  /** The tiles of a sample's images, or why it has to do without. */
  private async imagesOf(
    encoded: EncodedSample,
    index: number,
    tally: TallySheet,
  ): Promise<ImageTiles[] | string> {
    const { images: source, imageFolder, onMissingImage, batching, side } = this.options;
    if (encoded.images.length === 0 || source === undefined) return [];
    const paths = encoded.images.map((each) => path.resolve(imageFolder, each));
    const loaded = await source.load(paths);
    const tiles: ImageTiles[] = [];
    for (const [i, image] of loaded.entries()) {
      if ('error' in image) {
        const text = `${this.data.nameOf(index)}: ${paths[i]}: ${image.error}`;
        if (onMissingImage === 'stop') fail('ERR_LIBMOE_DATA', text);
        tally.count(
          'missingImages',
          onMissingImage === 'black' ? `${text}; it is taken to be black` : undefined,
        );
        if (onMissingImage === 'skip') return `${paths[i]}: ${image.error}`;
        tiles.push(blackImage(source));
      } else {
        if (
          image.pixels.length !== image.tiles * 3 * side * side ||
          (!('samples' in batching) && image.tiles !== 1)
        )
          fail(
            'ERR_LIBMOE_DATA',
            `${paths[i]}: expected ${'samples' in batching ? 'tiles' : 'one tile'} of 3·${side}·${side} numbers, got ${image.tiles} and ` +
              `${image.pixels.length} numbers in all${'samples' in batching ? '' : '; batches by tokens need to know beforehand how long a sample is: use { samples }'}`,
          );
        tiles.push(image);
      }
    }
    return tiles;
  }

  /** Tokens of a sample whose images have one tile each; 0 for what cannot be used. */
  async lengthOf(index: number): Promise<number> {
    if (this.lengths[index] === 0) {
      const encoded = await this.encode(index);
      const one = typeof encoded === 'string' ? [] : encoded.images.map(() => 1);
      this.lengths[index] = 1 + (typeof encoded === 'string' ? 0 : this.maker.lengthOf(encoded, one));
    }
    return this.lengths[index]! - 1;
  }

  private encode(index: number): Promise<EncodedSample | string> {
    let encoded = this.encoded.get(index);
    if (!encoded) {
      encoded = this.data.read(index).then((conversation) => this.maker.encode(conversation));
      encoded.catch(() => {});
      this.encoded.set(index, encoded);
      if (this.encoded.size > encodedKept) this.encoded.delete(this.encoded.keys().next().value!);
    }
    return encoded;
  }
}
