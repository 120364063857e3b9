import { existsSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { parseDocument, stringify } from 'yaml';
import { z } from 'zod';
import { explainIssues } from '../models/language/config-errors.ts';
import { languageModelConfigSchema, layerSelectionSchema } from '../models/language/config.ts';
import { fail } from '../native/index.ts';
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

const scheduleSchema = z.strictObject({
  name: z.enum(['cosine', 'linear', 'constant', 'noam', 'step']).default('cosine'),
  warmup: z.number().int().nonnegative().default(0),
  /** The last learning rate as a share of the first (cosine, linear). */
  minimum: z.number().min(0).max(1).default(0.1),
  /** `libmoe`: the cosine's period is all steps, warm-up included in the count only once (spec §4.5). */
  compat: z.enum(['fixed', 'libmoe']).default('fixed'),
  /** Steps at which `step` multiplies by `gamma`. */
  milestones: z.array(count).optional(),
  gamma: z.number().positive().default(0.1),
});

const optimizerSchema = z.strictObject({
  name: z.enum(['adamw', 'sgd']).default('adamw'),
  learningRate: z.number().positive().default(3e-4),
  beta1: z.number().min(0).lt(1).default(0.9),
  beta2: z.number().min(0).lt(1).default(0.999),
  epsilon: z.number().positive().default(1e-8),
  momentum: z.number().min(0).lt(1).default(0.9),
  weightDecay: z.number().min(0).default(0.01),
  /** Parameters whose names match (regular expressions) are not decayed. LibMoE decays all. */
  excludeFromDecay: z.array(z.string()).default([]),
});

const upcycleSchema = z.strictObject({
  experts: count,
  topK: count,
  router: z.looseObject({ name: z.string() }).default({ name: 'smoe' }),
  layers: layerSelectionSchema.default('all'),
  initStd: z.number().min(0).optional(),
  seed: z.number().int().optional(),
  capacityFactor: z.number().positive().optional(),
  dropPolicy: z.enum(['position', 'probability', 'random', 'batch-prioritised']).optional(),
  compat: z.enum(['fixed', 'libmoe', 'original']).optional(),
});

/** A training run. Every key has a default or is required; unknown keys are errors. */
export const recipeSchema = z.strictObject({
  name: z.string().regex(/^[\w.-]+$/, 'letters, digits, dot, dash and underscore only: it names the run folder'),
  seed: z.number().int().nonnegative().default(42),
  device: z.string().regex(/^(cpu|cuda:\d+)$/).default('cpu'),
  /** bf16: bf16 parameters and activations, fp32 master weights. */
  precision: z.enum(['f32', 'bf16']).default('f32'),
  /** A tokenizer.json (or its folder), or how to train one. Default: the checkpoint's. */
  tokenizer: z
    .union([
      z.string(),
      z.strictObject({ train: z.strictObject({ vocabularySize: count, splitDigits: z.boolean().default(true), byteFallback: z.boolean().default(false) }) }),
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
  start: z.strictObject({ checkpoint: z.string(), upcycle: upcycleSchema.optional() }).optional(),
  training: z.strictObject({
    steps: count,
    /** Micro-batches per step: gradients accumulate, memory shrinks, the result stays within rounding. */
    microBatches: count.default(1),
    optimizer: optimizerSchema.prefault({}),
    schedule: scheduleSchema.prefault({}),
    /** Largest global norm of the gradient; null: no clipping. */
    gradientClip: z.number().positive().nullable().default(1),
    activationCheckpointing: z.boolean().default(false),
    checkpointEvery: count.default(500),
    keepCheckpoints: count.default(3),
    /** Evaluate the held-out texts every so many steps (and at the end); null: at the end only. */
    evaluateEvery: count.nullable().default(null),
  }),
  evaluation: z
    .strictObject({
      /** Task names or files, besides the held-out texts. */
      tasks: z.array(z.string()).default([]),
      limit: z.number().positive().optional(),
      scorer: z.enum(['libmoe', 'fixed']).default('fixed'),
    })
    .prefault({}),
  /** Laid over the recipe by `--smoke` and by the tests: the same run at toy size. */
  smoke: z.record(z.string(), z.unknown()).optional(),
});
export type Recipe = z.output<typeof recipeSchema>;
export type RecipeInput = z.input<typeof recipeSchema>;

/**
 * Reads and checks a recipe: a YAML file or an object, with changes laid over it, every default written out.
 * @throws ERR_LIBMOE_FILE when there is no such file, ERR_LIBMOE_RECIPE naming every wrong key, the nearest known key beside an unknown one
 */
export function loadRecipe(source: string | RecipeInput, changes: Record<string, unknown> = {}): Recipe {
  const where = typeof source === 'string' ? source : 'the recipe';
  const tree = merged(typeof source === 'string' ? readYaml(source) : source, changes);
  const parsed = recipeSchema.safeParse(tree);
  if (!parsed.success) fail('ERR_LIBMOE_RECIPE', `${where}: ${explainIssues(recipeSchema, parsed.error.issues)}`);
  const recipe = parsed.data;
  if ((recipe.model === undefined) === (recipe.start === undefined)) {
    fail('ERR_LIBMOE_RECIPE', `${where}: expected either "model" (a new one) or "start" (a checkpoint), got ${recipe.model ? 'both' : 'neither'}`);
  }
  if (recipe.model && recipe.tokenizer === undefined) {
    fail('ERR_LIBMOE_RECIPE', `${where}: a new model needs "tokenizer": a tokenizer.json, or { train: { vocabularySize } }`);
  }
  if (recipe.data.batchSequences % recipe.training.microBatches !== 0) {
    fail('ERR_LIBMOE_RECIPE', `${where}: data.batchSequences ${recipe.data.batchSequences} is not a multiple of training.microBatches ${recipe.training.microBatches}`);
  }
  return recipe;
}

function readYaml(file: string): Record<string, unknown> {
  if (!existsSync(file)) fail('ERR_LIBMOE_FILE', `no such recipe: ${path.resolve(file)}`);
  const document = parseDocument(readFileSync(file, 'utf8'));
  const first = document.errors[0];
  if (first) fail('ERR_LIBMOE_RECIPE', `${file} is not YAML: ${first.message.split('\n')[0]}`);
  const tree: unknown = document.toJS();
  if (tree === null || typeof tree !== 'object' || Array.isArray(tree)) fail('ERR_LIBMOE_RECIPE', `${file}: expected keys and values at the top, such as "name: my-run"`);
  return tree as Record<string, unknown>;
}

/** The recipe as YAML, every default written out: what a run folder keeps. */
export const recipeText = (recipe: Recipe): string => stringify(recipe, { lineWidth: 0 });
