import { z } from 'zod';
import { optimizerOptions, scheduleOptions, strategyOptions } from '../training/index.ts';

export const count = z.number().int().positive();

/** What names a folder: neither `..` nor what looks like an option. */
export const folderName = z
  .string()
  .regex(
    /^[\w+][\w.+-]*$/,
    'letters, digits, dot, dash, plus and underscore only, neither dot nor dash first: it names a folder',
  );

/** What every kind of recipe has. */
export const commonKeys = {
  name: folderName,
  seed: z.number().int().nonnegative().default(42),
  device: z
    .string()
    .regex(/^(cpu|cuda:\d+)$/)
    .default('cpu'),
  /** bf16: bf16 parameters and activations, fp32 master weights. */
  precision: z.enum(['f32', 'bf16']).default('f32'),
  /** TypeScript or JavaScript files that are imported first: they register the routers and tasks that the recipe names. */
  imports: z.array(z.string()).default([]),
  /** How several processes train together (docs/training.md): start them with `libmoe launch`. */
  strategy: strategyOptions.prefault({}),
  /** Laid over the recipe by `--smoke` and by the tests: the same run at toy size. */
  smoke: z.record(z.string(), z.unknown()).optional(),
};

/** What `training` holds in every kind of recipe, beside how long it is. */
export const trainingKeys = {
  /** Micro-batches per step: gradients accumulate, memory shrinks, the result stays within rounding. */
  microBatches: count.default(1),
  optimizer: optimizerOptions.prefault({ name: 'adamw' }),
  schedule: scheduleOptions.prefault({ name: 'cosine', learningRate: 3e-4 }),
  /** Largest global norm of the gradient; null: no clipping. */
  clipNorm: z.number().positive().nullable().default(1),
  activationCheckpointing: z.boolean().default(false),
  keepCheckpoints: count.default(3),
  /** Evaluate after so many steps, or after such a share of all of them (0.1: ten times), and after the last; null: at the end only. */
  evaluateEvery: z
    .union([count, z.number().gt(0).lt(1)])
    .nullable()
    .default(null),
  /** Evaluate after these shares of all steps, and after the last: `[0.25, 0.5]`. */
  evaluateAt: z.array(z.number().gt(0).max(1)).default([]),
  /** Evaluate the model before the first step too, into `eval/0`. */
  evaluateFirst: z.boolean().default(false),
};

/** A tokenizer.json (or its folder), or how to train one. */
export const tokenizerSchema = z.union([
  z.string(),
  z.strictObject({
    train: z.strictObject({
      vocabularySize: count,
      splitDigits: z.boolean().default(true),
      byteFallback: z.boolean().default(false),
      characterCoverage: z.number().min(0.98).max(1).default(0.9995),
      sentences: z.enum(['lines', 'texts']).default('lines'),
      /** Longer sentences are left out; null: none. */
      maxSentenceBytes: count.nullable().default(null),
      userDefinedSymbols: z.array(z.string().min(1)).default([]),
    }),
  }),
]);
