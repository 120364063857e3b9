import { z } from 'zod';
import { fail } from '../../native/index.ts';
import { textColumn } from './columns.ts';
import {
  type ResponseScore,
  type ResponseScorer,
  registerScorer,
  scorerNamed,
  scoreSchema,
} from './scorer.ts';

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

interface Chosen {
  scorer: ResponseScorer;
  options: unknown;
}
/** Blocks are checked once; the parsed options of a block live as long as the block. */
const checked = new WeakMap<object, Chosen>();

function chosen(doc: Parameters<typeof textColumn>[0], { column, cases, otherwise }: Options): Chosen {
  const value = textColumn(doc, column);
  const block = (Object.hasOwn(cases, value) ? cases[value] : undefined) ?? otherwise;
  if (block === undefined)
    return fail(
      'ERR_LIBMOE_DATA',
      `column "${column}" is "${value}", the task knows ${Object.keys(cases).join(', ')}`,
    );
  let made = checked.get(block);
  if (made === undefined) {
    const { use, ...given } = block;
    const scorer = scorerNamed(use);
    made = { scorer, options: scorer.options.parse(given) };
    checked.set(block, made);
  }
  return made;
}

function named(score: ResponseScore, metric: string | undefined): ResponseScore {
  if (metric === undefined) return score;
  return { ...score, values: { [metric]: Object.values(score.values)[0] ?? null } };
}

/** A benchmark with questions of several kinds: a column says which scorer a document gets. */
registerScorer('by_column', {
  options,
  score: (response, question, given, mode) => {
    const { scorer, options: inner } = chosen(question.doc, given);
    return named(scorer.score(response, question, inner, mode), given.metric);
  },
  judge: async (response, question, given, mode, judge) => {
    const { scorer, options: inner } = chosen(question.doc, given);
    const score =
      scorer.judge === undefined
        ? scorer.score(response, question, inner, mode)
        : await scorer.judge(response, question, inner, mode, judge);
    return named(score, given.metric);
  },
});
