import { codeOf, fail } from '../../native/index.ts';
import type { ScorerMode } from '../metrics.ts';
import { pyRound } from '../python-number.ts';
import type { Question } from '../question.ts';
import type { Row } from '../task.ts';
import { keyReader } from './columns.ts';
import { meets } from './conditions.ts';
import { captionScore } from './report-captions.ts';
import { blockIn, type Report, type ReportBlock } from './report-schema.ts';
import {
  aggregate,
  confusionScore,
  groupsOf,
  mmeScore,
  type Statistic,
  unitDocuments,
} from './report-statistics.ts';
import type { ResponseScore } from './scorer.ts';

/** A scored document as reports see it. */
export interface ReportedDocument {
  doc: Row;
  /** Its number in the data set, for messages; default: its place among the scored ones. */
  docId?: number;
  score: ResponseScore;
  response: string;
  target: Question['target'];
}

/** One number of a report. */
export interface ReportedNumber {
  /** NaN when nothing counted, or when more than 1 % of the documents have no score although they should. */
  value: number;
  /** Undefined where none is defined, or where it takes resamples and none were asked for. */
  standardError?: number;
  higherIsBetter: boolean;
  /** Documents that counted; units (images, groups of rotated questions) where the number is made of those. */
  count: number;
  /** Documents without a score although they should have one (a judge failed). */
  missing: number;
}

/** A number with more than this share of missing scores is none. */
const mostMissing = 0.01;

/**
 * The numbers of a task, in the order of its report; those of `by` follow their number as `name/value`.
 * @param report undefined: the mean of every metric that the scorer gave
 * @param resamples bootstrap resamples for standard errors that have no formula; 0 leaves those out
 * @param task for messages
 * @throws ERR_LIBMOE_CONFIG for a metric the scorer does not give, ERR_LIBMOE_DATA naming task, document and column when one is missing
 */
export async function reportNumbers(
  report: Report | undefined,
  documents: readonly ReportedDocument[],
  mode: ScorerMode,
  resamples: number,
  task?: string,
): Promise<Record<string, ReportedNumber>> {
  const metrics = [...new Set(documents.flatMap(({ score }) => Object.keys(score.values)))];
  const blocks: Report =
    report ??
    Object.fromEntries(
      metrics.map((of) => [of, { of, agg: 'mean', scale: 1, higher_is_better: true } as const]),
    );
  const numbers: Record<string, ReportedNumber> = {};
  for (const [name, written] of Object.entries(blocks)) {
    const block = blockIn(written, mode);
    const place = `${task === undefined ? '' : `task ${task}, `}report ${name}`;
    if ('of' in block && metrics.length > 0 && !metrics.includes(block.of))
      fail('ERR_LIBMOE_CONFIG', `${place}: the scorer gives ${metrics.join(', ')}, not "${block.of}"`);
    const chosen = chosenDocuments(documents, block, place);
    const rows = 'use' in block && block.use === 'group_consistency' ? unitDocuments(chosen, block) : chosen;
    numbers[name] = await finish(statistic(rows, block, mode), rows, block, resamples);
    for (const [sub, members] of parts(rows, block))
      numbers[`${name}/${sub}`] = await finish(statistic(members, block, mode), members, block, 0);
  }
  return numbers;
}

/** The documents that count, every column that the block groups by read once, so that a missing one names its document. */
export function chosenDocuments(
  documents: readonly ReportedDocument[],
  block: ReportBlock,
  place: string,
): ReportedDocument[] {
  const keys = [
    block.by,
    block.clusters,
    'within' in block ? block.within : undefined,
    'unit' in block ? block.unit : undefined,
    'category' in block ? block.category : undefined,
  ];
  const readers = keys.flatMap((key) => key ?? []).map(keyReader);
  return documents.filter(({ doc, docId, score }, i) => {
    try {
      if (block.where !== undefined && !meets(doc, block.where)) return false;
      if (block.exclude !== undefined && meets(doc, block.exclude)) return false;
      for (const read of readers) read(doc, score.detail);
      return true;
    } catch (cause) {
      const code = codeOf(cause);
      if (code === undefined) throw cause;
      return fail(
        code,
        `${place}, document ${docId ?? i}: ${(cause as Error).message.replace(/^ERR_\w+: /, '')}`,
        cause,
      );
    }
  });
}

function parts(rows: readonly ReportedDocument[], { by }: ReportBlock): [string, ReportedDocument[]][] {
  if (by === undefined) return [];
  if (!Array.isArray(by)) return groupsOf(rows, by);
  return by.flatMap((key) => {
    const prefix = typeof key === 'string' ? key : key.column;
    return groupsOf(rows, key).map(([name, members]): [string, ReportedDocument[]] => [
      `${prefix}/${name}`,
      members,
    ]);
  });
}

/** The number of a block, not yet scaled. */
export function statistic(
  rows: readonly ReportedDocument[],
  block: ReportBlock,
  mode: ScorerMode,
): Statistic {
  if ('agg' in block) return aggregate(rows, block, mode === 'libmoe');
  switch (block.use) {
    case 'group_consistency':
      return aggregate(rows, { ...block, agg: 'mean' } as Parameters<typeof aggregate>[1], false);
    case 'mme':
      return mmeScore(rows, block);
    case 'confusion':
      return confusionScore(rows, block);
    case 'caption':
      return captionScore(rows, block);
  }
}

async function finish(
  { value, count, error }: Statistic,
  rows: readonly ReportedDocument[],
  block: ReportBlock,
  resamples: number,
): Promise<ReportedNumber> {
  const { scale, round, higher_is_better: higherIsBetter } = block;
  // Of a document scored in several ways some values may be there when others are missing.
  const has = ({ values }: ResponseScore): boolean => 'of' in block && typeof values[block.of] === 'number';
  const missing = rows.filter(({ score }) => score.missing !== undefined && !has(score)).length;
  const scaled = missing > mostMissing * rows.length ? Number.NaN : value * scale;
  const spread = typeof error === 'function' ? (resamples > 0 ? await error(resamples) : undefined) : error;
  return {
    value: round === undefined ? scaled : pyRound(scaled, round),
    ...(spread !== undefined && !Number.isNaN(spread) && { standardError: spread * Math.abs(scale) }),
    higherIsBetter,
    count,
    missing,
  };
}
