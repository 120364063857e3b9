import { z } from 'zod';
import { templateNames } from '../data/conversations/index.ts';
import { languageModelConfigSchema } from '../models/language/config.ts';
import { visionTowerConfigSchema } from '../models/vision/index.ts';
import { projectorSchema } from '../models/vision-language/index.ts';
import { vlmUpcycleOptionsSchema } from '../upcycling/index.ts';
import { emojiSourceSchema } from './emoji-source.ts';
import { commonKeys, count, tokenizerSchema, trainingKeys } from './recipe-parts.ts';

const oneOrMore = z.union([z.string(), z.array(z.string()).min(1)]);

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
    train: z.union([
      z.strictObject({
        /** Files in LLaVA's format, .json or .jsonl. */
        conversations: oneOrMore,
        /** The folder that their image paths are relative to. */
        images: z.string().default('.'),
      }),
      emojiSourceSchema,
    ]),
    /** How conversations are written: a built-in template, or `jinja`, the checkpoint's own chat template. */
    template: z.enum([...templateNames, 'smollm', 'v1', 'llama_2', 'jinja']),
    /** The system text of conversations that bring none; default: the template's. */
    system: z.string().optional(),
    /** Longest conversation in tokens, its images included; longer ones are cut. */
    context: count.default(2048),
    /** Conversations per optimizer step; or give `batchTokens`, as many as have so many tokens. */
    batchSamples: count.optional(),
    batchTokens: count.optional(),
    /** `length`, `modality`: conversations of like length (and all with or all without images) come together, as LibMoE deals them. */
    order: z.enum(['none', 'shuffle', 'length', 'modality']).default('shuffle'),
    /** `libmoe`: conversations are read and labels are masked as the original does. */
    compat: z.enum(['fixed', 'libmoe']).default('fixed'),
    /** How an image becomes square: `pad` on a canvas, `square` as the processor has it, `anyres` in tiles. */
    imageMode: z.enum(['pad', 'square', 'anyres']).default('pad'),
    /** A preprocessor_config.json or its folder; default: that of the tower's checkpoint, else what its kind was trained with. */
    processor: z.string().optional(),
    /** Conversations with an image that is missing or broken: left out, with a black image, or the run stops. */
    onMissingImage: z.enum(['skip', 'black', 'stop']).default('skip'),
    /** Conversations that cannot be learned from: left out, or the run stops. */
    onBad: z.enum(['skip', 'stop']).default('skip'),
    /** Threads that read images. `auto`: one less than there are cores. */
    workers: z.union([z.literal('auto'), z.number().int().min(0).max(256)]).default('auto'),
    /** Where indices of the conversations are kept; default `cache/` in the run folder's parent. */
    cache: z.string().optional(),
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
    /** Give either steps or epochs. Default: one epoch. */
    steps: count.optional(),
    epochs: z.number().positive().optional(),
    /** Only parameters with such names are trained (`*` is any text: `projector.*`); the others stay as they are and take no gradients. */
    trained: z.array(z.string().min(1)).min(1).default(['*']),
    /** A checkpoint after so many steps, or after such a share of all of them (0.1: ten checkpoints). */
    checkpointEvery: z.union([count, z.number().gt(0).lt(1)]).default(0.1),
    ...trainingKeys,
    keepCheckpoints: count.default(10),
  }),
  evaluation: z
    .strictObject({
      /** Task names or files; images of a task are prepared as those of the training. */
      tasks: z.array(z.string()).default([]),
      limit: z.number().positive().optional(),
      scorer: z.enum(['libmoe', 'fixed']).default('libmoe'),
    })
    .prefault({}),
});
/** A recipe for a vision-language model with every default written out. */
export type VisionLanguageRecipe = z.output<typeof visionLanguageRecipeSchema>;
/** The same as one writes it. */
export type VisionLanguageRecipeInput = z.input<typeof visionLanguageRecipeSchema>;

/** Checks what no schema sees. @param refuse throws ERR_LIBMOE_RECIPE */
export function checkVisionLanguageRecipe(
  { model, start, tokenizer, data, training, strategy }: VisionLanguageRecipe,
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
  if ((data.batchSamples === undefined) === (data.batchTokens === undefined))
    refuse(
      'expected either data.batchSamples (conversations per step) or data.batchTokens (tokens per step)',
    );
  const parts = training.microBatches * strategy.data;
  if (data.batchSamples !== undefined && data.batchSamples % parts !== 0)
    refuse(
      `data.batchSamples ${data.batchSamples} is not a multiple of ${parts}, training.microBatches × strategy.data`,
    );
  if (training.steps !== undefined && training.epochs !== undefined)
    refuse('expected either training.steps or training.epochs, got both');
  if (data.batchTokens !== undefined && training.steps === undefined)
    refuse('with data.batchTokens nobody knows how many steps an epoch has: set training.steps');
  if (data.order !== 'none' && data.order !== 'shuffle' && data.batchSamples === undefined)
    refuse(`data.order ${data.order} needs data.batchSamples`);
}
