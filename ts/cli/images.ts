import type { Tokenizer } from '../data/index.ts';
import type { VisionTower } from '../models/vision/index.ts';
import type { VisionLanguageModel } from '../models/vision-language/index.ts';
import { fail } from '../native/index.ts';
import type { Tensor } from '../tensor/index.ts';

/** Stands for an image in a text. */
const mark = '<image>';

/** `--image` of the commands that run a model. */
export const imageOptions: readonly (readonly [flags: string, description: string])[] = [
  [
    '--image <file>',
    'show the model an image (repeatable); where <image> stands in the text, else before it',
  ],
  [
    '--image-mode <mode>',
    "square, pad (a square canvas first) or anyres (the image and tiles of it); default: as the checkpoint's preprocessor_config.json says",
  ],
];

/** Images as a model takes them. */
export interface ShownImages {
  /** All tiles of all images. */
  pixels: Tensor;
  /** Of each image. */
  tiles: number[];
}

type Model = VisionLanguageModel<VisionTower>;

/** The processor of a checkpoint: its preprocessor_config.json, or what its kind of tower usually has. */
async function processorConfig({ vision, checkpoint }: Model): Promise<unknown> {
  const { existsSync } = await import('node:fs');
  const path = await import('node:path');
  const file = checkpoint && path.join(checkpoint, 'preprocessor_config.json');
  if (file && existsSync(file)) return file;
  const side = vision.imageSize;
  const square = { height: side, width: side };
  return vision.config.kind === 'clip'
    ? { image_processor_type: 'CLIPImageProcessor', size: { shortest_edge: side }, crop_size: square }
    : { image_processor_type: 'SiglipImageProcessor', size: square };
}

/** Reads image files as the model takes them; the caller frees the pixels. @throws ERR_LIBMOE_IMAGE naming the file, ERR_LIBMOE_CONFIG */
export async function readImages(
  model: Model,
  files: readonly string[],
  mode?: string,
): Promise<ShownImages> {
  const { decodeImage, imageProcessor } = await import('../data/index.ts');
  const { keep, tensor } = await import('../tensor/index.ts');
  if (mode !== undefined && mode !== 'square' && mode !== 'pad' && mode !== 'anyres')
    fail('ERR_LIBMOE_ARGUMENT', `--image-mode expects square, pad, anyres, got "${mode}"`);
  const processor = imageProcessor(await processorConfig(model), mode ? { mode } : {});
  const { side } = processor;
  if (side !== model.vision.imageSize)
    fail(
      'ERR_LIBMOE_CONFIG',
      `preprocessor_config.json makes images of ${side} pixels, the tower takes ${model.vision.imageSize}: correct the one or the other`,
    );
  const images = [];
  for (const file of files) images.push(processor.process(await decodeImage(file)));
  const tiles = images.map((image) => image.tiles);
  const count = tiles.reduce((sum, n) => sum + n, 0);
  const pixels = new Float32Array(count * 3 * side * side);
  let at = 0;
  for (const image of images) {
    pixels.set(image.pixels, at);
    at += image.pixels.length;
  }
  return { pixels: keep(tensor(pixels, [count, 3, side, side])), tiles };
}

/** A text with a place for every image: as it is where it has some, else with all of them in front, as LLaVA has it. */
export const withMarks = (text: string, images: number): string =>
  text.includes(mark) ? text : `${`${mark}\n`.repeat(images)}${text}`;

/** The ids of a text in which `<image>` stands for images, with the tokens that their rows replace; and where these begin. */
export async function encodeWithImages(
  { imageTokenId, tokensPerImage }: Model,
  tokenizer: Tokenizer,
  text: string,
  { tiles, addBos }: { tiles: readonly number[]; addBos: boolean },
): Promise<{ ids: Int32Array; starts: Int32Array }> {
  const { imageSlot, SegmentEncoder } = await import('../data/conversations/encoding.ts');
  const { expandPlaceholders } = await import('../models/vision-language/index.ts');
  const { ids } = new SegmentEncoder(tokenizer).encode([{ text, learned: false }], { addBos });
  const known = ids.map((id) => (id === imageSlot ? imageTokenId : id));
  return expandPlaceholders(known, tiles.length, { imageTokenId, tokensPerImage, tiles });
}

/** Sequences of ids, or a text, with the tokens that the images' rows replace; and where these begin in the sequences laid end to end. */
export async function placedImages(
  model: Model,
  given: { tiles: readonly number[] } & (
    | { text: string; tokenizer: Tokenizer }
    | { sequences: readonly ArrayLike<number>[] }
  ),
): Promise<{ sequences: ArrayLike<number>[]; starts: Int32Array }> {
  const { tiles } = given;
  if ('text' in given) {
    const { ids, starts } = await encodeWithImages(model, given.tokenizer, given.text, {
      tiles,
      addBos: true,
    });
    return { sequences: [ids], starts };
  }
  const { expandPlaceholders } = await import('../models/vision-language/index.ts');
  const { imageTokenId, tokensPerImage } = model;
  const total = tiles.reduce((sum, n) => sum + n, 0);
  const placeholders = (ids: ArrayLike<number>): number =>
    Array.from(ids).filter((id) => id === imageTokenId).length;
  const all = given.sequences.reduce((sum, ids) => sum + placeholders(ids), 0);
  // Ids from elsewhere may have the tokens of all rows already: then each run of them stands for one.
  const whole = all === total * tokensPerImage && all !== tiles.length;
  const sequences: ArrayLike<number>[] = [];
  const starts: number[] = [];
  let [begin, image] = [0, 0];
  for (const ids of given.sequences) {
    const count = whole ? placeholders(ids) / tokensPerImage : placeholders(ids);
    const own = whole ? { ids, starts: runsIn(ids, model) } : undefined;
    const placed =
      own ??
      expandPlaceholders(ids, count, {
        imageTokenId,
        tokensPerImage,
        tiles: tiles.slice(image, image + count),
      });
    sequences.push(placed.ids);
    for (const start of placed.starts) starts.push(begin + start);
    begin += placed.ids.length;
    image += count;
  }
  if (!whole && image !== tiles.length)
    fail(
      'ERR_LIBMOE_DATA',
      `--tokens has ${image} image tokens (${imageTokenId}) for ${tiles.length} images: write one for each, or one for each of their ${tokensPerImage} rows`,
    );
  return { sequences, starts: Int32Array.from(starts) };
}

/** Where each image begins in ids that have a token for each of its rows. */
function runsIn(ids: ArrayLike<number>, { imageTokenId, tokensPerImage }: Model): number[] {
  const starts: number[] = [];
  for (let at = 0; at < ids.length; at += ids[at] === imageTokenId ? tokensPerImage : 1)
    if (ids[at] === imageTokenId) starts.push(at);
  return starts;
}
