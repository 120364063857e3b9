import { z } from 'zod';
import { visionTowerConfigSchema } from '../models/vision/index.ts';
import { checkConversationKeys, conversationKeys, conversationTrainingKeys } from './conversation-recipe.ts';
import { checkUnevaluated } from './evaluation-recipe.ts';
import { commonKeys, count, tokenizerSchema, trainingKeys } from './recipe-parts.ts';

/** The pretraining of a tower on images and captions, SigLIP's way. Every key has a default or is required; unknown keys are errors. */
export const imageTextRecipeSchema = z.strictObject({
  kind: z.literal('image-text'),
  ...commonKeys,
  /** A tokenizer.json (or its folder), or how to train one on the captions. */
  tokenizer: tokenizerSchema,
  /** Of each conversation there are one image, one question, which is not looked at, and the caption. */
  data: z.strictObject(conversationKeys),
  model: z.strictObject({
    /** With `pool`, which makes one vector of an image. */
    vision: visionTowerConfigSchema,
    /** Of the embeddings that are compared; default the tower's dModel. */
    width: count.optional(),
    /** Factor on cosines and what is added to them, to begin with: 10 and −10 in SigLIP; small batches want about −ln(batchSamples − 1). */
    initialScale: z.number().positive().default(10),
    initialBias: z.number().default(-10),
  }),
  training: z.strictObject({
    ...conversationTrainingKeys,
    ...trainingKeys,
    keepCheckpoints: count.default(3),
  }),
});
/** A recipe for pretraining a tower with every default written out. */
export type ImageTextRecipe = z.output<typeof imageTextRecipeSchema>;
/** The same as one writes it. */
export type ImageTextRecipeInput = z.input<typeof imageTextRecipeSchema>;

/** Checks what no schema sees. @param refuse throws ERR_LIBMOE_RECIPE */
export function checkImageTextRecipe(recipe: ImageTextRecipe, refuse: (message: string) => never): void {
  checkConversationKeys(recipe, refuse);
  checkUnevaluated(recipe.training, refuse);
  if (recipe.data.batchSamples === undefined)
    refuse('captions are compared by the batch: set data.batchSamples');
  if (recipe.training.microBatches > 1 || recipe.strategy.data > 1)
    refuse(
      'captions are compared with all images of a batch, which cannot be cut: set training.microBatches and strategy.data to 1, and data.batchSamples smaller if memory is short',
    );
  if (recipe.model.vision.pool === undefined)
    refuse(
      'model.vision needs pool: "attention", "class" or "mean", one vector of an image to compare with texts',
    );
}
