import { z } from 'zod';
import { fail } from '../../native/index.ts';
import { textColumn } from './columns.ts';
import { firstValue, judgeWith, scoreWith } from './inner-scorer.ts';
import { type ResponseScore, registerScorer, type ScoreBlock, scoreSchema } from './scorer.ts';

const options = z.strictObject({
  column: z.string(),
  /** Value of the column → scorer. */
  cases: z.record(
    z.string(),
    z.lazy(() => scoreSchema),
  ),
  /** For every other value; without it such a document is an error. */
  otherwise: z.lazy(() => scoreSchema).optional(),
  /** The first metric of every scorer under one name, where the numbers are averaged whatever made them. */
  metric: z.string().optional(),
});
type Options = z.output<typeof options>;

function chosen(doc: Parameters<typeof textColumn>[0], { column, cases, otherwise }: Options): ScoreBlock {
  const value = textColumn(doc, column);
  return (
    (Object.hasOwn(cases, value) ? cases[value] : undefined) ??
    otherwise ??
    fail(
      'ERR_LIBMOE_DATA',
      `column "${column}" is "${value}", the task knows ${Object.keys(cases).join(', ')}`,
    )
  );
}

function named(score: ResponseScore, metric: string | undefined): ResponseScore {
  if (metric === undefined) return score;
  return { ...score, values: { [metric]: firstValue(score) } };
}

/** A benchmark with questions of several kinds: a column says which scorer a document gets. */
registerScorer('by_column', {
  options,
  score: (response, question, given, mode) =>
    named(scoreWith(chosen(question.doc, given), response, question, mode), given.metric),
  judge: async (response, question, given, mode, judge) =>
    named(await judgeWith(chosen(question.doc, given), response, question, mode, judge), given.metric),
});
