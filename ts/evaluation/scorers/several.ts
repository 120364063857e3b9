import { z } from 'zod';
import { firstValue, judgeWith, scoreWith } from './inner-scorer.ts';
import { type ResponseScore, registerScorer, scoreSchema } from './scorer.ts';

const options = z.strictObject({
  /** Metric → the scorer whose first metric it is. */
  scorers: z.record(
    z.string(),
    z.lazy(() => scoreSchema),
  ),
});

function together(scores: readonly (readonly [string, ResponseScore])[]): ResponseScore {
  const missing = scores.find(([, score]) => score.missing !== undefined)?.[1].missing;
  const details = scores.filter(([, { detail }]) => detail !== undefined);
  return {
    values: Object.fromEntries(scores.map(([name, score]) => [name, firstValue(score)])),
    parsed: scores.find(([, { parsed }]) => parsed !== null)?.[1].parsed ?? null,
    ...(details.length > 0 && {
      detail: Object.fromEntries(details.map(([name, { detail }]) => [name, detail])),
    }),
    ...(missing !== undefined && { missing }),
  };
}

/** One response scored in several ways: a judge that is asked about correctness, then about detail. */
registerScorer('several', {
  options,
  score: (response, question, { scorers }, mode) =>
    together(
      Object.entries(scorers).map(([name, block]) => [name, scoreWith(block, response, question, mode)]),
    ),
  judge: async (response, question, { scorers }, mode, judge) => {
    const scores: [string, ResponseScore][] = [];
    for (const [name, block] of Object.entries(scorers))
      scores.push([name, await judgeWith(block, response, question, mode, judge)]);
    return together(scores);
  },
});
