import { existsSync, readFileSync, statSync } from 'node:fs';
import path from 'node:path';
import { parseDocument, stringify } from 'yaml';
import { z } from 'zod';
import { languageModelConfigSchema, resolveLanguageModelConfig } from '../models/language/config.ts';
import { createRouter } from '../moe/index.ts';
import { codeOf, fail } from '../native/index.ts';
import { explainIssues } from '../storage/schema-errors.ts';
import { optimizerOptions, scheduleOptions, strategyOptions } from '../training/index.ts';
import { upcycleOptionsSchema } from '../upcycling/index.ts';
import { merged } from './overrides.ts';
import { importUserModule } from './user-modules.ts';

const count = z.number().int().positive();

const regularExpression = z.string().refine((text) => {
  try {
    new RegExp(text);
    return true;
  } catch {
    return false;
  }
}, 'expected a regular expression');

/** Where documents come from: files, or a data set that a package provides. */
const sourceSchema = z.union([
  z.strictObject({
    /** Files, folders or patterns: .txt, .jsonl, .parquet; .gz and .zst too. */
    files: z.union([z.string(), z.array(z.string()).min(1)]),
    column: z.string().optional(),
    /** How a .txt file is cut: `file`, `blocks` between blank lines, or before each line that a regular expression matches. */
    textDocuments: z
      .union([z.enum(['file', 'blocks']), z.strictObject({ begin: regularExpression })])
      .optional(),
    /** Only some of the documents: those of a fitting length, and of these, in order, the `first` so many after `skip`. */
    select: z
      .strictObject({
        minCharacters: count.optional(),
        maxCharacters: count.optional(),
        skip: z.number().int().nonnegative().optional(),
        first: count.optional(),
      })
      .optional(),
  }),
  z.strictObject({
    /** State-of-the-Union addresses: `train`, `heldOut` (every 10th address), `shifted` (the years from 1990 on). */
    dataset: z.literal('sotu'),
    split: z.enum(['train', 'heldOut', 'shifted']),
  }),
]);
export type Source = z.output<typeof sourceSchema>;

/** What names a folder: neither `..` nor what looks like an option. */
export const folderName = z
  .string()
  .regex(
    /^[\w+][\w.+-]*$/,
    'letters, digits, dot, dash, plus and underscore only, neither dot nor dash first: it names a folder',
  );

/** A training run. Every key has a default or is required; unknown keys are errors. */
export const recipeSchema = z.strictObject({
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
  /** A tokenizer.json (or its folder), or how to train one. Default: the checkpoint's. */
  tokenizer: z
    .union([
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
    /** For `order: libmoe`. `libmoe`: the original's chunk table, which loses tails of shards and reads heads twice. */
    compat: z.enum(['fixed', 'libmoe']).default('fixed'),
    /** For `order: libmoe`: only so many tokens of the data are used; null: all. */
    tokenLimit: count.nullable().default(null),
    /**
     * What ends each document: the tokenizer's EOS, its BOS (which stands before the next one, as in llama2.c's data; with `splitAtDocuments:
     * false`), nothing, or a text that is tokenised with it (LibMoE: `<STORY_SEP>`).
     */
    separator: z
      .union([z.enum(['eos', 'bos', 'none']), z.strictObject({ text: z.string().min(1) })])
      .default('eos'),
    /** A token shard is closed when its documents reach this many characters. Shards are the chunks of `order: libmoe`. */
    shardCharacters: count.max(2 ** 28).default(4_000_000),
    /** Attention does not cross document boundaries. */
    splitAtDocuments: z.boolean().default(true),
    /** Where token shards are kept; default `cache/` in the run folder's parent. */
    cache: z.string().optional(),
    /** Threads that tokenise; 0: none beside the main one. `auto`: one per core, at most 8. */
    workers: z.union([z.literal('auto'), z.number().int().min(0).max(256)]).default('auto'),
  }),
  /** A new model; vocabularySize defaults to the tokenizer's. Give either this or `start`. */
  model: languageModelConfigSchema.partial({ vocabularySize: true }).optional(),
  /** A checkpoint to go on from, upcycled first if asked. */
  start: z
    .strictObject({
      checkpoint: z.string(),
      upcycle: upcycleOptionsSchema.optional(),
      /** Take only the tensors with such names (`*` is any text) from the checkpoint; the others are those of a new model of this seed. */
      only: z.array(z.string().min(1)).min(1).optional(),
    })
    .optional(),
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
    /** Evaluate the model before the first step too, into `eval/0`. */
    evaluateFirst: z.boolean().default(false),
  }),
  /** How several processes train together (docs/training.md): start them with `libmoe launch`. */
  strategy: strategyOptions.prefault({}),
  evaluation: z
    .strictObject({
      /** Score only the beginning of each held-out text, cut at a space; null: all of it. */
      maxCharacters: count.nullable().default(null),
      /** Score at most so many tokens of each held-out text; null: all of them. */
      maxTokens: count.nullable().default(null),
      /** Task names or files, besides the held-out texts. */
      tasks: z.array(z.string()).default([]),
      /** Minimal pairs made of these texts: a sentence against itself with two neighbouring words swapped. */
      wordOrder: z.strictObject({ source: sourceSchema, pairs: count.default(200) }).optional(),
      limit: z.number().positive().optional(),
      scorer: z.enum(['libmoe', 'fixed']).default('libmoe'),
    })
    .prefault({}),
  logging: z
    .strictObject({
      /**
       * Keep what every router does with the same tokens as training goes on, in `routing/` (docs/routing-records.md): before the first step,
       * every so many steps, and after the last. null: not.
       */
      routing: z
        .strictObject({
          every: count,
          /** Tokens of the held-out texts (of the training data when there are none). */
          tokens: count.max(65_536).default(2048),
        })
        .nullable()
        .default(null),
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
 * {@link loadRecipe} after importing the files that the recipe's `imports` names.
 * @throws what loadRecipe throws, and ERR_LIBMOE_FILE for a file that cannot be imported
 */
export async function openRecipe(
  source: string | RecipeInput,
  changes: Record<string, unknown> = {},
): Promise<Recipe> {
  await importModulesOf(merged(typeof source === 'string' ? readRecipe(source) : source, changes));
  return loadRecipe(source, changes);
}

/** Imports what a recipe that nobody has checked yet names in `imports`. */
export async function importModulesOf({ imports }: Record<string, unknown>): Promise<void> {
  // Of another form it is refused later, with all else that is wrong.
  for (const file of z.array(z.string()).safeParse(imports).data ?? []) await importUserModule(file);
}

/**
 * Reads and checks a recipe: a YAML file or an object, with changes laid over it, every default written out. A file may be laid over another:
 * `extends: base.yaml`, relative to itself.
 * @throws ERR_LIBMOE_FILE when there is no such file, ERR_LIBMOE_RECIPE naming every wrong key, the nearest known key beside an unknown one
 */
export function loadRecipe(source: string | RecipeInput, changes: Record<string, unknown> = {}): Recipe {
  const where = typeof source === 'string' ? source : 'the recipe';
  const tree = merged(typeof source === 'string' ? readRecipe(source) : source, changes);
  const parsed = recipeSchema.safeParse(tree);
  if (!parsed.success)
    fail('ERR_LIBMOE_RECIPE', `${where}: ${explainIssues(recipeSchema, parsed.error.issues, tree)}`);
  const recipe = parsed.data;
  const refuse = (message: string): never => fail('ERR_LIBMOE_RECIPE', `${where}: ${message}`);
  if ((recipe.model === undefined) === (recipe.start === undefined)) {
    refuse(
      `expected either "model" (a new one) or "start" (a checkpoint), got ${recipe.model ? 'both' : 'neither'}`,
    );
  }
  if (recipe.model && recipe.tokenizer === undefined)
    refuse('a new model needs "tokenizer": a tokenizer.json, or { train: { vocabularySize } }');
  if (recipe.start?.upcycle && recipe.start.only)
    refuse(
      'start.only is for a checkpoint that is taken as it is: with start.upcycle set start.upcycle.only',
    );
  if (recipe.start && typeof recipe.tokenizer === 'object')
    refuse('a checkpoint has its tokenizer: leave "tokenizer" out, or name a file of the same vocabulary');
  const { data, training, strategy } = recipe;
  const parts = training.microBatches * strategy.data;
  if (data.batchSequences % parts !== 0) {
    const ranks = strategy.data > 1 ? ` on each of ${strategy.data} ranks (strategy.data)` : '';
    refuse(
      `data.batchSequences ${data.batchSequences} is not a multiple of ${ranks ? `${parts}, the ` : ''}training.microBatches ${training.microBatches}${ranks}`,
    );
  }
  if (data.order !== 'libmoe' && (data.compat !== 'fixed' || data.tokenLimit !== null))
    refuse('data.compat and data.tokenLimit belong to "order: libmoe"');
  try {
    checkModel(recipe);
  } catch (error) {
    if (codeOf(error) !== 'ERR_LIBMOE_CONFIG') throw error;
    refuse((error as Error).message.replace(/^ERR_LIBMOE_CONFIG: /, ''));
  }
  return recipe;
}

/** What would go wrong only when the model is made, after the corpus is tokenised. Throws ERR_LIBMOE_CONFIG. */
function checkModel({ model, start, data }: Recipe): void {
  if (model) {
    const { maxPositions } = resolveLanguageModelConfig({
      ...model,
      vocabularySize: model.vocabularySize ?? 1,
    });
    if (data.sequenceLength > maxPositions)
      fail(
        'ERR_LIBMOE_CONFIG',
        `data.sequenceLength ${data.sequenceLength} is more than model.maxPositions ${maxPositions}`,
      );
  }
  const upcycle = start?.upcycle;
  if (upcycle) {
    const { experts, topK, compat } = upcycle;
    if (topK > experts)
      fail('ERR_LIBMOE_CONFIG', `start.upcycle.topK ${topK} is more than the ${experts} experts there are`);
    const { name, ...options } =
      typeof upcycle.router === 'string' ? { name: upcycle.router } : upcycle.router;
    createRouter(name, options, { width: 1, experts, topK, compat, layer: 0, layers: 1 }).dispose();
  }
}

/** A recipe file's tree, laid over the one that it extends. @throws as {@link readYaml} */
export function readRecipe(file: string, below: readonly string[] = []): Record<string, unknown> {
  const { extends: base, ...own } = readYaml(file);
  if (base === undefined) return own;
  if (typeof base !== 'string')
    return fail('ERR_LIBMOE_RECIPE', `${file}: "extends" expects the path of a recipe beside it`);
  const next = path.resolve(path.dirname(file), base);
  const chain = [...below, path.resolve(file)];
  if (chain.includes(next)) fail('ERR_LIBMOE_RECIPE', `${file}: extends ${base}, which extends it`);
  return merged(readRecipe(next, chain), own);
}

/** A YAML file of keys and values. @throws ERR_LIBMOE_FILE, ERR_LIBMOE_RECIPE */
export function readYaml(file: string, kind = 'recipe'): Record<string, unknown> {
  if (!existsSync(file)) fail('ERR_LIBMOE_FILE', `no such ${kind}: ${path.resolve(file)}`);
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
export const recipeText = (recipe: Recipe): string =>
  stringify(recipe, { lineWidth: 0, aliasDuplicateObjects: false });
