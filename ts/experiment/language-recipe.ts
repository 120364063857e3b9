import { z } from 'zod';
import { languageModelConfigSchema, resolveLanguageModelConfig } from '../models/language/config.ts';
import { createRouter } from '../moe/index.ts';
import { codeOf, fail } from '../native/index.ts';
import { upcycleOptionsSchema } from '../upcycling/index.ts';
import { checkEvaluation, evaluationKeys } from './evaluation-recipe.ts';
import { loraSchema } from './lora.ts';
import { commonKeys, count, tokenizerSchema, trainingKeys } from './recipe-parts.ts';

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

/** The training of a language model. Every key has a default or is required; unknown keys are errors. */
export const recipeSchema = z.strictObject({
  /** Left out: this kind, a language model. */
  kind: z.literal('language').default('language'),
  ...commonKeys,
  /** A tokenizer.json (or its folder), or how to train one. Default: the checkpoint's. */
  tokenizer: tokenizerSchema.optional(),
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
    checkpointEvery: count.default(500),
    /** Learn low-rank matrices beside those of the model, which stays as it is (LoRA): docs/training.md. */
    lora: loraSchema('*').optional(),
    ...trainingKeys,
  }),
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
      ...evaluationKeys,
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
});
/** A recipe with every default written out. */
export type Recipe = z.output<typeof recipeSchema>;
/** A recipe as one writes it. */
export type RecipeInput = z.input<typeof recipeSchema>;

/** Checks what no schema sees. @param refuse throws ERR_LIBMOE_RECIPE */
export function checkLanguageRecipe(recipe: Recipe, refuse: (message: string) => never): void {
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
  checkEvaluation(recipe, refuse);
  try {
    checkModel(recipe);
  } catch (error) {
    if (codeOf(error) !== 'ERR_LIBMOE_CONFIG') throw error;
    refuse((error as Error).message.replace(/^ERR_LIBMOE_CONFIG: /, ''));
  }
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
