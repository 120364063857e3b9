import { existsSync, readFileSync, statSync } from 'node:fs';
import path from 'node:path';
import { parseDocument, stringify } from 'yaml';
import { z } from 'zod';
import { languageModelConfigSchema } from '../models/language/config.ts';
import { fail } from '../native/index.ts';
import { explainIssues } from '../storage/schema-errors.ts';
import { optimizerOptions, scheduleOptions } from '../training/index.ts';
import { upcycleOptionsSchema } from '../upcycling/index.ts';
import { merged } from './overrides.ts';

const count = z.number().int().positive();

/** Where documents come from: files, or a data set that a package provides. */
const sourceSchema = z.union([
  z.strictObject({
    /** Files, folders or patterns: .txt, .jsonl, .parquet; .gz and .zst too. */
    files: z.union([z.string(), z.array(z.string()).min(1)]),
    column: z.string().optional(),
    textDocuments: z.enum(['file', 'blocks']).optional(),
  }),
  z.strictObject({
    /** State-of-the-Union addresses: `train`, `heldOut` (every 10th address), `shifted` (the years from 1990 on). */
    dataset: z.literal('sotu'),
    split: z.enum(['train', 'heldOut', 'shifted']),
  }),
]);
export type Source = z.output<typeof sourceSchema>;

/** A training run. Every key has a default or is required; unknown keys are errors. */
export const recipeSchema = z.strictObject({
  name: z
    .string()
    .regex(/^[\w.-]+$/, 'letters, digits, dot, dash and underscore only: it names the run folder'),
  seed: z.number().int().nonnegative().default(42),
  device: z
    .string()
    .regex(/^(cpu|cuda:\d+)$/)
    .default('cpu'),
  /** bf16: bf16 parameters and activations, fp32 master weights. */
  precision: z.enum(['f32', 'bf16']).default('f32'),
  /** A tokenizer.json (or its folder), or how to train one. Default: the checkpoint's. */
  tokenizer: z
    .union([
      z.string(),
      z.strictObject({
        train: z.strictObject({
          vocabularySize: count,
          splitDigits: z.boolean().default(true),
          byteFallback: z.boolean().default(false),
        }),
      }),
    ])
    .optional(),
  data: z.strictObject({
    train: sourceSchema,
    /** Held-out texts by name; each becomes a bits-per-byte task. */
    heldOut: z.record(z.string(), sourceSchema).default({}),
    sequenceLength: count,
    /** Sequences per optimizer step. */
    batchSequences: count,
    order: z.enum(['windows', 'documents', 'none', 'libmoe']).default('windows'),
    /** Attention does not cross document boundaries. */
    splitAtDocuments: z.boolean().default(true),
    /** Where token shards are kept; default `cache/` in the run folder's parent. */
    cache: z.string().optional(),
    workers: z.number().int().nonnegative().default(0),
  }),
  /** A new model; vocabularySize defaults to the tokenizer's. Give either this or `start`. */
  model: languageModelConfigSchema.partial({ vocabularySize: true }).optional(),
  /** A checkpoint to go on from, upcycled first if asked. */
  start: z.strictObject({ checkpoint: z.string(), upcycle: upcycleOptionsSchema.optional() }).optional(),
  training: z.strictObject({
    steps: count,
    /** Micro-batches per step: gradients accumulate, memory shrinks, the result stays within rounding. */
    microBatches: count.default(1),
    optimizer: optimizerOptions.prefault({ name: 'adamw' }),
    schedule: scheduleOptions.prefault({ name: 'cosine', learningRate: 3e-4 }),
    /** Largest global norm of the gradient; null: no clipping. */
    clipNorm: z.number().positive().nullable().default(1),
    activationCheckpointing: z.boolean().default(false),
    checkpointEvery: count.default(500),
    keepCheckpoints: count.default(3),
    /** Evaluate the held-out texts every so many steps (and at the end); null: at the end only. */
    evaluateEvery: count.nullable().default(null),
  }),
  evaluation: z
    .strictObject({
      /** Score only the beginning of each held-out text, cut at a space; null: all of it. */
      maxCharacters: count.nullable().default(null),
      /** Task names or files, besides the held-out texts. */
      tasks: z.array(z.string()).default([]),
      /** Minimal pairs made of these texts: a sentence against itself with two neighbouring words swapped. */
      wordOrder: z.strictObject({ source: sourceSchema, pairs: count.default(200) }).optional(),
      limit: z.number().positive().optional(),
      scorer: z.enum(['libmoe', 'fixed']).default('libmoe'),
    })
    .prefault({}),
  /** Laid over the recipe by `--smoke` and by the tests: the same run at toy size. */
  smoke: z.record(z.string(), z.unknown()).optional(),
});
/** A recipe with every default written out. */
export type Recipe = z.output<typeof recipeSchema>;
/** A recipe as one writes it. */
export type RecipeInput = z.input<typeof recipeSchema>;

/**
 * Reads and checks a recipe: a YAML file or an object, with changes laid over it, every default written out.
 * @throws ERR_LIBMOE_FILE when there is no such file, ERR_LIBMOE_RECIPE naming every wrong key, the nearest known key beside an unknown one
 */
export function loadRecipe(source: string | RecipeInput, changes: Record<string, unknown> = {}): Recipe {
  const where = typeof source === 'string' ? source : 'the recipe';
  const tree = merged(typeof source === 'string' ? readYaml(source) : source, changes);
  const parsed = recipeSchema.safeParse(tree);
  if (!parsed.success)
    fail('ERR_LIBMOE_RECIPE', `${where}: ${explainIssues(recipeSchema, parsed.error.issues, tree)}`);
  const recipe = parsed.data;
  if ((recipe.model === undefined) === (recipe.start === undefined)) {
    fail(
      'ERR_LIBMOE_RECIPE',
      `${where}: expected either "model" (a new one) or "start" (a checkpoint), got ${recipe.model ? 'both' : 'neither'}`,
    );
  }
  if (recipe.model && recipe.tokenizer === undefined) {
    fail(
      'ERR_LIBMOE_RECIPE',
      `${where}: a new model needs "tokenizer": a tokenizer.json, or { train: { vocabularySize } }`,
    );
  }
  if (recipe.data.batchSequences % recipe.training.microBatches !== 0) {
    fail(
      'ERR_LIBMOE_RECIPE',
      `${where}: data.batchSequences ${recipe.data.batchSequences} is not a multiple of training.microBatches ${recipe.training.microBatches}`,
    );
  }
  return recipe;
}

function readYaml(file: string): Record<string, unknown> {
  if (!existsSync(file)) fail('ERR_LIBMOE_FILE', `no such recipe: ${path.resolve(file)}`);
  if (!statSync(file).isFile()) fail('ERR_LIBMOE_FILE', `cannot read ${file}: it is a folder`);
  const document = parseDocument(readFileSync(file, 'utf8'));
  const first = document.errors[0];
  if (first) fail('ERR_LIBMOE_RECIPE', `${file} is not YAML: ${first.message.split('\n')[0]}`);
  const tree: unknown = document.toJS();
  if (tree === null || typeof tree !== 'object' || Array.isArray(tree))
    fail('ERR_LIBMOE_RECIPE', `${file}: expected keys and values at the top, such as "name: my-run"`);
  return tree as Record<string, unknown>;
}

/** The recipe as YAML, every default written out: what a run folder keeps. */
export const recipeText = (recipe: Recipe): string => stringify(recipe, { lineWidth: 0 });
