import { ForwardContext, type RoutingTrace } from '../../moe/index.ts';
import { cast } from '../../tensor/elementwise.ts';
import { keep, noGrad, scope, type Tensor } from '../../tensor/index.ts';
import { cat } from '../../tensor/shape.ts';
import { packSequences, rawForward } from '../language/index.ts';
import { rowsOfImages } from './image-rows.ts';
import type { VisionLanguageModel } from './model.ts';

/** Images of {@link rawForwardWithImages}. */
export interface RawImages {
  /** `[images, 3, side, side]`, normalised. */
  pixels: Tensor;
  /** The first row of each image in the sequences laid end to end. */
  starts: Int32Array;
}

/**
 * As rawForward, with images: also `image.features` [images · tokensPerImage, dModel], what the language model sees of them, and with `hidden` of MoE
 * layers of tower and projector `routing.<layer>.experts` and `.weights` of their tokens: of a tower of several scales those of the first, then those of
 * the second, and so on (s² tiles of an image each), as many rows as the tower has tokens. The caller frees them.
 * @throws as rawForward, and ERR_LIBMOE_DATA for images that do not fit the image tokens
 */
export function rawForwardWithImages(
  model: VisionLanguageModel,
  sequences: readonly ArrayLike<number>[],
  { pixels, starts }: RawImages,
  { hidden = false }: { hidden?: boolean } = {},
): Map<string, Tensor> {
  const { imageTokenId, tokensPerImage } = model;
  const batch = packSequences(sequences);
  const images = { starts, count: pixels.shape[0]! };
  const place = rowsOfImages(batch, images, { imageTokenId, tokensPerImage });
  const found = new Map<string, Tensor>();
  const wasTraining = model.training;
  try {
    model.eval();
    noGrad(() =>
      scope(() => {
        using context = new ForwardContext({ trace: hidden });
        const rows = model.imageFeatures(pixels, context);
        found.set('image.features', keep(cast(rows, 'f32')));
        for (const [layer, calls] of tracesOf(context)) {
          const all = (part: 'choices' | 'weights'): Tensor =>
            cat(
              calls.map((trace) => trace[part]),
              0,
            );
          found.set(`routing.${layer}.experts`, keep(cast(all('choices'), 'i32')));
          found.set(`routing.${layer}.weights`, keep(cast(all('weights'), 'f32')));
        }
        const known = sequences.map((ids) => model.knownIds(Int32Array.from(ids)));
        for (const [name, t] of rawForward(model.language, known, { hidden, inserted: { rows, ...place } }))
          found.set(name, t);
      }),
    );
  } catch (error) {
    for (const t of found.values()) t.dispose();
    throw error;
  } finally {
    model.train(wasTraining);
  }
  return found;
}

/** Of each layer the traces of its calls, in order. */
function tracesOf({ records }: ForwardContext): Map<string, RoutingTrace[]> {
  const found = new Map<string, RoutingTrace[]>();
  for (const { layer, trace } of records) if (trace) found.set(layer, [...(found.get(layer) ?? []), trace]);
  return found;
}
