import type { VisionLanguageBatch } from '../../ts/data/vision-batch.ts';
import type { ImageTextRecipe } from '../../ts/experiment/image-text-recipe.ts';
import type { VisionLanguageRecipe } from '../../ts/experiment/index.ts';
import type { ImageTextModel } from '../../ts/models/vision/index.ts';
import type { VisionLanguageModel } from '../../ts/models/vision-language/index.ts';
import { memory, resetPeakMemory } from '../../ts/tensor/index.ts';
import { optimizer, schedule, train, visionLanguageBatches } from '../../ts/training/index.ts';

/**
 * Most bytes of tensors while a recipe's model is trained for a step, on made-up sequences of full length (ids below 512) with one image each.
 * @param imageTokens of a sequence: the id that stands for an image, so many times at its beginning; they are no targets
 */
export async function peakOfStep(
  model: ImageTextModel | VisionLanguageModel,
  { data, training }: ImageTextRecipe | VisionLanguageRecipe,
  imageTokens: { id: number; count: number } = { id: 0, count: 0 },
): Promise<number> {
  const { context, batchSamples: count = 1 } = data;
  const side = model.vision.imageSize;
  const ids = Int32Array.from({ length: count * context }, (_, i) =>
    i % context < imageTokens.count ? imageTokens.id : (i * i * 7 + i * 11) % 512,
  );
  const batch: VisionLanguageBatch = {
    ids,
    targets: ids.map((id, i) => (i % context < imageTokens.count ? -1 : id)),
    sequenceOffsets: Int32Array.from({ length: count + 1 }, (_, i) => i * context),
    images: {
      pixels: Float32Array.from({ length: count * 3 * side * side }, (_, i) => Math.sin(i)),
      count,
      side,
      starts: Int32Array.from({ length: count }, (_, i) => i * context),
    },
  };
  model.activationCheckpointing = training.activationCheckpointing;
  const adamw = optimizer(model.namedParameters(), training.optimizer);
  resetPeakMemory();
  for await (const _ of train<VisionLanguageBatch>(model, {
    data: { next: () => batch, state: () => 0, restore() {} },
    batches: visionLanguageBatches,
    optimizer: adamw,
    schedule: schedule(training.schedule, 1),
    steps: 1,
    microBatches: training.microBatches,
  }));
  adamw.dispose();
  return memory().peakBytes;
}
