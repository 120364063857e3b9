import { keep, noGrad, type Tensor } from '../../tensor/index.ts';
import { type GeneratedToken, type GenerateOptions, generate } from '../language/index.ts';
import { rowsOfImages } from './image-rows.ts';
import type { VisionLanguageModel } from './model.ts';

/** What {@link generateWithImages} continues. */
export interface ImagePrompt {
  /** Token ids, with `tokensPerImage` image tokens for every image: see expandPlaceholders. */
  ids: ArrayLike<number>;
  /** The images in their order, `[images, 3, side, side]`, normalised; undefined for a text alone. */
  pixels: Tensor | undefined;
  /** Where in `ids` each image's tokens begin. */
  starts: Int32Array;
}

/**
 * Continues a prompt with images token by token, as {@link generate} does. The images go through tower and projector once.
 * @throws as {@link generate}, and ERR_LIBMOE_DATA for images that do not fit the prompt's image tokens
 */
export async function* generateWithImages(
  model: VisionLanguageModel,
  { ids, pixels, starts }: ImagePrompt,
  options: Omit<GenerateOptions, 'inserted'> = {},
): AsyncGenerator<GeneratedToken, void> {
  const prompt = Int32Array.from(ids);
  const sequenceOffsets = Int32Array.of(0, prompt.length);
  const count = pixels?.shape[0] ?? 0;
  const { imageTokenId, tokensPerImage } = model;
  const place = rowsOfImages(
    { ids: prompt, sequenceOffsets },
    { starts, count },
    { imageTokenId, tokensPerImage },
  );
  const wasTraining = model.training;
  let rows: Tensor | undefined;
  try {
    model.eval();
    rows = pixels && count > 0 ? noGrad(() => keep(model.imageFeatures(pixels))) : undefined;
    const inserted = rows && { rows, ...place };
    yield* generate(model.language, model.knownIds(prompt), { ...options, ...(inserted && { inserted }) });
  } finally {
    rows?.dispose();
    model.train(wasTraining);
  }
}
