import { imageSlot, SegmentEncoder } from '../data/conversations/encoding.ts';
import type {
  ConversationTemplate,
  ImageSource,
  ImageTiles,
  LoadedImage,
} from '../data/conversations/index.ts';
import { type ImageReference, shownName } from '../data/images/recipe.ts';
import type { Tokenizer } from '../data/tokenizer.ts';
import type { CachedSequences } from '../models/language/kv-cache.ts';
import { packSequences } from '../models/language/packed-batch.ts';
import type { VisionTower } from '../models/vision/index.ts';
import {
  type BatchImages,
  configOf,
  expandPlaceholders,
  type VisionLanguageModel,
} from '../models/vision-language/index.ts';
import type { ForwardContext } from '../moe/index.ts';
import { fail } from '../native/index.ts';
import type { Tensor } from '../tensor/index.ts';
import type { EvalModel, RequestImage, TokenRequest } from './model.ts';
import type { LanguageAdapterOptions, NetworkSequence } from './network.ts';
import { NetworkAdapter } from './network-adapter.ts';

const placeholder = '<image>';

type Turn = Pick<TokenRequest, 'context' | 'continuation'>;

/** Raised whenever images may give other numbers for the same weights and files. */
const imagesVersion = 1;

/** How {@link visionLanguageAdapter} asks. */
export interface VisionLanguageAdapterOptions extends Omit<LanguageAdapterOptions, 'tokenizer'> {
  tokenizer: Tokenizer;
  /** How the model knows conversations: every question is asked as the first turn of one. */
  template: ConversationTemplate;
  /** Reads images as the model takes them, one tile each. An image pool does; it also makes those that are drawn into or put together. */
  images: Omit<ImageSource, 'load'> & {
    /** The images in their order; one that is missing or cannot be read is a value, not an exception. */
    load(images: readonly ImageReference[]): Promise<LoadedImage[]>;
  };
  /** What the images' preparation depends on, for cache keys: the processor's settings. */
  preparation: unknown;
}

/**
 * Lets evaluation ask a vision-language model. As languageAdapter; a question with images runs them through tower and projector once for all of
 * its choices.
 */
export function visionLanguageAdapter(
  model: VisionLanguageModel<VisionTower>,
  options: VisionLanguageAdapterOptions,
): EvalModel {
  const { tokenizer, template, images: source, preparation, ...rest } = options;
  const encoder = new SegmentEncoder(tokenizer);
  const { imageTokenId, tokensPerImage } = model;
  const loaded = new Map<string, ImageTiles>();

  const batchImages = (sequences: readonly NetworkSequence[]): BatchImages | undefined => {
    const shown = sequences.flatMap(({ images }) => images.map(({ sha256 }) => loaded.get(sha256)!));
    if (shown.length === 0) return undefined;
    const { side } = source;
    const pixels = new Float32Array(shown.length * 3 * side * side);
    for (const [i, tile] of shown.entries()) pixels.set(tile.pixels, i * 3 * side * side);
    const starts: number[] = [];
    let begin = 0;
    for (const { tokens, images } of sequences) {
      for (let at = 0; at < tokens.length; )
        if (images.length > 0 && tokens[at] === imageTokenId) {
          starts.push(begin + at);
          at += tokensPerImage;
        } else at += 1;
      begin += tokens.length;
    }
    return { pixels, count: shown.length, side, starts: Int32Array.from(starts) };
  };

  const encodeTurn = (question: string, answer: string): Turn => {
    const segments = template.render({
      turns: [
        { role: 'user', text: question },
        { role: 'assistant', text: answer },
      ],
      images: Array(question.split(placeholder).length - 1).fill(''),
      unplaced: [],
    });
    if (typeof segments === 'string') return fail('ERR_LIBMOE_DATA', segments);
    const { ids, learned } = encoder.encode(segments, { addBos: !template.writesBos });
    const cut = learned.includes(true) ? learned.indexOf(true) : ids.length;
    const known = ids.map((id) => (id === imageSlot ? imageTokenId : id));
    return { context: known.slice(0, cut), continuation: known.slice(cut) };
  };
  // What the template writes behind an answer and is no text ends one.
  const turnEnds = encodeTurn('a', 'a').continuation.filter(
    (id) => tokenizer.decode([id]) === '' && tokenizer.decode([id], { skipSpecialTokens: false }) !== '',
  );

  return new NetworkAdapter(
    {
      language: model.language,
      whole: model,
      ...(model.checkpoint !== undefined && { checkpoint: model.checkpoint }),
      identity: [imagesVersion, configOf(model), template.name, preparation],
      imagePlaceholder: placeholder,
      encodeTurn,
      imageToken: imageTokenId,
      never: [imageTokenId],
      stretched: ({ context, images = [] }: Pick<TokenRequest, 'context' | 'images'>) => [
        ...expandPlaceholders(context, images.length, { imageTokenId, tokensPerImage }).ids,
      ],
      async load(images: readonly RequestImage[]) {
        const wanted = new Map(images.map((image) => [image.sha256, image]));
        for (const sha256 of loaded.keys()) if (!wanted.has(sha256)) loaded.delete(sha256);
        const missing = [...wanted].filter(([sha256]) => !loaded.has(sha256));
        const found = await source.load(missing.map(([, { file, recipe }]) => recipe ?? file));
        for (const [i, image] of found.entries()) {
          const [sha256, { file }] = missing[i]!;
          if ('error' in image) fail('ERR_LIBMOE_DATA', `cannot show ${shownName(file)}: ${image.error}`);
          if (image.tiles !== 1)
            fail(
              'ERR_LIBMOE_UNSUPPORTED',
              `${shownName(file)} makes ${image.tiles} tiles; evaluation shows one per image`,
            );
          loaded.set(sha256, image);
        }
      },
      forward(
        sequences: readonly NetworkSequence[],
        cached?: CachedSequences,
        context?: ForwardContext,
      ): Tensor {
        const packed = packSequences(sequences.map(({ tokens }) => tokens));
        const images = batchImages(sequences);
        return model.forward({ ...packed, ...(images && { images }) }, context, cached);
      },
    },
    { ...rest, tokenizer, endTokens: [...turnEnds, ...(rest.endTokens ?? [])] },
  );
}
