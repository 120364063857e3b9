import { z } from 'zod';
import { explainIssues } from '../../storage/schema-errors.ts';
import type { ScorerMode } from '../metrics.ts';
import { groupKeySchema } from './columns.ts';
import { conditionSchema } from './conditions.ts';

const keys = z.union([groupKeySchema, z.array(groupKeySchema).min(1)]);

const common = {
  /** Only documents that meet all of these count. */
  where: conditionSchema.optional(),
  /** Documents that meet all of these do not count. */
  exclude: conditionSchema.optional(),
  /** Also a number for each value of this key: `name/value`; with a list of keys `name/key/value`. */
  by: keys.optional(),
  /** Rows of one image or passage are no independent observations: standard error by clusters (Miller 2024). */
  clusters: groupKeySchema.optional(),
  /** The number is multiplied by this, then rounded to `round` digits as Python rounds. */
  scale: z.number().default(1),
  round: z.int().nonnegative().optional(),
  higher_is_better: z.boolean().default(true),
  /** Keys that are different with `--scorer fixed`. */
  fixed: z.record(z.string(), z.unknown()).optional(),
};

const aggregateSchema = z.strictObject({
  /** The scorer's metric. */
  of: z.string(),
  agg: z
    .enum([
      'mean',
      'mean_of_group_means',
      'sum',
      'ratio',
      'count',
      'median',
      'minimum',
      'maximum',
      'perplexity',
    ])
    .default('mean'),
  /** The metric that `ratio` divides by: Σ of / Σ over. */
  over: z.string().optional(),
  /** For `mean_of_group_means`: outermost first. */
  within: keys.optional(),
  ...common,
});

const consistencySchema = z.strictObject({
  use: z.literal('group_consistency'),
  of: z.string(),
  /** Documents with the same values belong together: the group is right if all of them are. */
  unit: keys,
  ...common,
});

const mmeSchema = z.strictObject({
  use: z.literal('mme'),
  of: z.string(),
  /** One image. */
  unit: groupKeySchema,
  category: groupKeySchema,
  part: z.enum(['total', 'perception', 'cognition', 'percent']),
  ...common,
});

const confusionSchema = z.strictObject({
  use: z.literal('confusion'),
  part: z.enum(['accuracy', 'precision', 'recall', 'f1', 'yes_ratio', 'predicted_yes_ratio']),
  ...common,
});

const captionSchema = z.strictObject({
  use: z.literal('caption'),
  part: z.enum(['bleu_1', 'bleu_2', 'bleu_3', 'bleu_4', 'cider']),
  /** Each value's documents are a corpus of their own, and the number is the plain mean over those (YouCook2's videos). */
  within: groupKeySchema.optional(),
  ...common,
});

const plainBlockSchema = z.union([
  aggregateSchema,
  consistencySchema,
  mmeSchema,
  confusionSchema,
  captionSchema,
]);
/** One number of a report. */
export type ReportBlock = z.output<typeof plainBlockSchema>;

const blockSchema = plainBlockSchema.superRefine((block, context) => {
  if (block.fixed === undefined) return;
  const merged = withFixed(block);
  const parsed = plainBlockSchema.safeParse(merged);
  if (!parsed.success)
    context.addIssue({
      code: 'custom',
      path: ['fixed'],
      message: explainIssues(plainBlockSchema, parsed.error.issues, merged),
    });
});

/** The key `report` of a task file: the name of each number → how the documents' values become it. */
export const reportSchema = z.record(
  z.string().regex(/^[^,/]+$/, 'a name has no comma and no slash'),
  blockSchema,
);
/** A checked `report` key of a task file. */
export type Report = z.output<typeof reportSchema>;

/** The block as it is in a mode: with `fixed` scores the keys under `fixed` replace the others. */
export function blockIn(block: ReportBlock, mode: ScorerMode): ReportBlock {
  return mode === 'fixed' && block.fixed !== undefined ? plainBlockSchema.parse(withFixed(block)) : block;
}

function withFixed({ fixed, ...plain }: ReportBlock): unknown {
  return { ...plain, ...fixed };
}
