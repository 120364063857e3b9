import type { Tokenizer } from '../tokenizer.ts';
import type { Conversation, ConversationCompat } from './conversation.ts';
import { type EncodedText, imageSlot, SegmentEncoder } from './encoding.ts';
import { libmoeLabels } from './libmoe-labels.ts';
import type { ConversationTemplate } from './templates.ts';

/** What samples are made with. */
export interface SampleOptions {
  tokenizer: Tokenizer;
  template: ConversationTemplate;
  /** Most tokens of a sample, images included. */
  context: number;
  /** Rows that an image, or a tile of one, takes. */
  tokensPerImage: number;
  /** The id that stands in these rows: one of the model's vocabulary that text does not give. */
  imageTokenId: number;
  compat: ConversationCompat;
}

/** A conversation as ids, its images still one slot each. */
export interface EncodedSample extends EncodedText {
  /** Paths of the images that have slots, then of those that have none. */
  images: readonly string[];
  placed: number;
  /** LibMoE's preprocessing gave up on it. */
  ignored: boolean;
}

/** Rows of an image or tile in a sample. */
export interface ImageRows {
  /** Which image, and which tile of it. */
  image: number;
  tile: number;
  /** First row; −1: it has none. */
  start: number;
  rows: number;
}

/** A sequence ready for a batch. */
export interface Sample {
  ids: Int32Array;
  /** The next token where it is learned, else −1. */
  targets: Int32Array;
  images: ImageRows[];
  /** It was longer than the context. */
  cut: boolean;
}

/** Turns conversations into samples; every answer is found from the way the text was put together, or as LibMoE finds it. */
export class SampleMaker {
  private readonly options: SampleOptions;
  private readonly encoder: SegmentEncoder;

  constructor(options: SampleOptions) {
    this.options = options;
    this.encoder = new SegmentEncoder(options.tokenizer);
  }

  /** The ids of a conversation, or why it cannot be learned from. */
  encode(conversation: Conversation): EncodedSample | string {
    const { template, tokenizer, context, compat, imageTokenId } = this.options;
    const segments = template.render(conversation);
    if (typeof segments === 'string') return segments;
    const { images, unplaced } = conversation;
    const all = { images: [...images, ...unplaced], placed: images.length };
    const prompt = segments.map(({ text }) => text).join('');
    const encoded =
      compat === 'fixed'
        ? { ...this.encoder.encode(segments, { addBos: !template.writesBos }), ignored: false }
        : libmoeLabels(prompt, tokenizer, context, template.rounds);
    if (imageTokenId !== imageSlot && encoded.ids.includes(imageTokenId))
      return `the text gives token ${imageTokenId}, which stands for rows of images`;
    return { ...encoded, ...all };
  }

  /** Tokens of a sample whose images have these numbers of tiles. */
  lengthOf(encoded: EncodedSample, tiles: readonly number[]): number {
    let rows = 0;
    let image = 0;
    for (const id of encoded.ids) {
      const own = id === imageSlot ? tiles[image++]! * this.options.tokensPerImage : 1;
      if (rows + own > this.options.context)
        return this.options.compat === 'libmoe' ? this.options.context : rows;
      rows += own;
    }
    return rows;
  }

  /** Gives images their rows and cuts at the context: before an image that does not fit, or through it under `compat: 'libmoe'`. */
  expand(encoded: EncodedSample, tiles: readonly number[]): Sample {
    const { tokensPerImage, imageTokenId, context, compat } = this.options;
    const length = this.lengthOf(encoded, tiles);
    const ids = new Int32Array(length);
    const targets = new Int32Array(length).fill(-1);
    const images: ImageRows[] = [];
    let at = 0;
    let image = 0;
    for (const [i, id] of encoded.ids.entries()) {
      if (id !== imageSlot) {
        if (at < length) ids[at] = id;
        if (at < length && at > 0 && encoded.learned[i]) targets[at - 1] = id;
        at += 1;
        continue;
      }
      for (let tile = 0; tile < tiles[image]!; ++tile) {
        const rows = Math.max(0, Math.min(tokensPerImage, length - at));
        if (rows > 0 || compat === 'libmoe') images.push({ image, tile, start: rows > 0 ? at : -1, rows });
        ids.fill(imageTokenId, at, at + rows);
        at += tokensPerImage;
      }
      image += 1;
    }
    for (; image < encoded.images.length; ++image)
      for (let tile = 0; tile < tiles[image]!; ++tile) images.push({ image, tile, start: -1, rows: 0 });
    return { ids, targets, images, cut: at > context || at > length };
  }
}
