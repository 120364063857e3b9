import { z } from 'zod';
import { fail } from '../../native/index.ts';
import { explainIssues } from '../../storage/schema-errors.ts';
import type { ScorerMode } from '../metrics.ts';
import type { Question } from '../question.ts';
import type { Row } from '../task.ts';
import { groupKeySchema } from './columns.ts';
import type { ResponseScore } from './scorer.ts';

/** Column → the value, or one of the values, that a document must have. */
const conditionSchema = z.record(
  z.string(),
  z.union([
    z.string(),
    z.number(),
    z.boolean(),
    z.null(),
    z.array(z.union([z.string(), z.number(), z.boolean()])),
  ]),
);
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
  part: z.enum(['total', 'perception', 'cognition', 'percent', 'category']),
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
  const merged = inMode(block, 'fixed');
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

function inMode(block: ReportBlock, mode: ScorerMode): unknown {
  const { fixed, ...plain } = block;
  return mode === 'fixed' ? { ...plain, ...fixed } : plain;
}

/** A scored document as reports see it. */
export interface ReportedDocument {
  doc: Row;
  score: ResponseScore;
  response: string;
  target: Question['target'];
}

/** One number of a report. */
export interface ReportedNumber {
  /** NaN when nothing counted, or when more than 1 % of the documents have no score although they should. */
  value: number;
  /** Undefined where none is defined. */
  standardError?: number;
  higherIsBetter: boolean;
  /** Documents that counted. */
  count: number;
  /** Documents without a score although they should have one (a judge failed). */
  missing: number;
}

/**
 * The numbers of a task, in the order of its report.
 * @param report undefined: the mean of every metric that the scorer gave
 * @param resamples bootstrap resamples for standard errors that have no formula; 0 leaves those out
 * @throws ERR_LIBMOE_CONFIG for a metric the scorer does not give, ERR_LIBMOE_DATA for a missing column
 */
export async function reportNumbers(
  report: Report | undefined,
  documents: readonly ReportedDocument[],
  mode: ScorerMode,
  resamples: number,
): Promise<Record<string, ReportedNumber>> {
  return fail('ERR_LIBMOE_STATE', `${report} ${documents.length} ${mode} ${resamples}`);
}
