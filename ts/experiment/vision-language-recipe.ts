import { z } from 'zod';
import { templateNames } from '../data/conversations/index.ts';
import { languageModelConfigSchema } from '../models/language/config.ts';
import { visionTowerConfigSchema } from '../models/vision/index.ts';
import { projectorSchema } from '../models/vision-language/index.ts';
import { vlmUpcycleOptionsSchema } from '../upcycling/index.ts';
import { checkConversationKeys, conversationKeys, conversationTrainingKeys } from './conversation-recipe.ts';
import { checkEvaluation, evaluationKeys, taskChoiceSchema } from './evaluation-recipe.ts';
import { loraSchema } from './lora.ts';
import { commonKeys, count, tokenizerSchema, trainingKeys } from './recipe-parts.ts';

/** A checkpoint that a part of a new model is taken from. */
const fromCheckpoint = z.strictObject({ checkpoint: z.string() });

/** A part taken from a checkpoint, with what is seen of its images. */
const towerFromCheckpoint = visionTowerConfigSchema
  .pick({ selectLayer: true, selectFeature: true, scales: true, resolution: true, compat: true })
  .partial()
  .extend({ checkpoint: z.string() });

/** The training of a vision-language model on conversations. Every key has a default or is required; unknown keys are errors. */
export const visionLanguageRecipeSchema = z.strictObject({
  kind: z.literal('vision-language'),
  ...commonKeys,
  /** A tokenizer.json (or its folder), or how to train one on the conversations. Default: the checkpoint's. */
  tokenizer: tokenizerSchema.optional(),
  data: z.strictObject({
    ...conversationKeys,
    /** How conversations are written: a built-in template, or `jinja`, the checkpoint's own chat template. */
    template: z.enum([...templateNames, 'smollm', 'v1', 'llama_2', 'jinja']),
    /** The system text of conversations that bring none; default: the template's. */
    system: z.string().optional(),
    /** `libmoe`: conversations are read and labels are masked as the original does. */
    compat: z.enum(['fixed', 'libmoe']).default('fixed'),
  }),
  /** A model joined of parts, each new or from a checkpoint. Give either this or `start`. */
  model: z
    .strictObject({
      language: z.union([languageModelConfigSchema.partial({ vocabularySize: true }), fromCheckpoint]),
      vision: z.union([visionTowerConfigSchema, towerFromCheckpoint]),
      projector: projectorSchema.prefault({}),
      compat: z.enum(['fixed', 'libmoe']).default('fixed'),
    })
    .optional(),
  /** A vision-language checkpoint to go on from, its tower and projector upcycled first if asked. */
  start: z.strictObject({ checkpoint: z.string(), upcycle: vlmUpcycleOptionsSchema.optional() }).optional(),
  training: z.strictObject({
    ...conversationTrainingKeys,
    /** Only parameters with such names are trained (`*` is any text: `projector.*`); the others stay as they are and take no gradients. */
    trained: z.array(z.string().min(1)).min(1).default(['*']),
    /** Learn low-rank matrices beside those of a part, which stays as it is (LoRA): docs/training.md. */
    lora: loraSchema('language.*').optional(),
    ...trainingKeys,
    keepCheckpoints: count.default(10),
  }),
  evaluation: z
    .strictObject({
      /**
       * Task names or files, or `{ task: NAME, … }` with keys that are laid over those of the task; images of a task are prepared as those of the
       * training.
       */
      tasks: z.array(taskChoiceSchema).default([]),
      ...evaluationKeys,
    })
    .prefault({}),
});
/** A recipe for a vision-language model with every default written out. */
export type VisionLanguageRecipe = z.output<typeof visionLanguageRecipeSchema>;
/** The same as one writes it. */
export type VisionLanguageRecipeInput = z.input<typeof visionLanguageRecipeSchema>;

/** Checks what no schema sees. @param refuse throws ERR_LIBMOE_RECIPE */
export function checkVisionLanguageRecipe(
  { model, start, tokenizer, data, training, strategy, evaluation }: VisionLanguageRecipe,
  refuse: (message: string) => never,
): void {
  if ((model === undefined) === (start === undefined))
    refuse(
      `expected either "model" (joined of parts) or "start" (a checkpoint), got ${model ? 'both' : 'neither'}`,
    );
  const fromFile = model === undefined || 'checkpoint' in model.language;
  if (!fromFile && tokenizer === undefined)
    refuse('a new language model needs "tokenizer": a tokenizer.json, or { train: { vocabularySize } }');
  if (fromFile && typeof tokenizer === 'object')
    refuse('a checkpoint has its tokenizer: leave "tokenizer" out, or name a file of the same vocabulary');
  checkConversationKeys({ data, training, strategy }, refuse);
  checkEvaluation({ training, evaluation }, refuse);
  if (data.imageMode === 'anyres' && evaluation.tasks.length > 0)
    refuse('evaluation shows one tile of an image: with data.imageMode anyres leave evaluation.tasks empty');
}
