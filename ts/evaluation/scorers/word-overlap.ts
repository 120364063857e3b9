import { z } from 'zod';
import { pythonClasses, strip } from '../python-text.ts';
import { conditionSchema, meets } from './conditions.ts';
import { registerScorer, targetTexts } from './scorer.ts';

const WORD_OR_MARK = new RegExp(`${pythonClasses.word}+|[^\\p{L}\\p{N}_\\s]`, 'gu');

/** F1 of the sets of words and marks of two lower-cased texts; 0 where one has none. */
export function tokenF1(response: string, gold: string): number {
  const [a, b] = [gold, response].map((text) => new Set(strip(text.toLowerCase()).match(WORD_OR_MARK) ?? []));
  let shared = 0;
  for (const token of a!) if (b!.has(token)) shared += 1;
  if (shared === 0) return 0;
  const [precision, recall] = [shared / b!.size, shared / a!.size];
  return (2 * precision * recall) / (precision + recall);
}

/** WebSRC. Metric `token_f1`, the best over the golds. */
registerScorer('token_f1', {
  options: z.strictObject({}),
  score: (response, { target }) => ({
    values: { token_f1: Math.max(...targetTexts(target).map((gold) => tokenF1(response, gold))) },
    parsed: response === '' ? null : response,
  }),
});

const containsOptions = z.strictObject({
  /** Documents whose golds are formulas: compared without spaces and, in the original, with the gold's own case. */
  formula: conditionSchema.optional(),
});

/** OCRBench (Liu et al. 2023, arXiv 2305.07895): some gold is in the response. Metric `contains`. */
registerScorer('contains', {
  options: containsOptions,
  score: (response, { doc, target }, { formula }, mode) => {
    const plain = (text: string): string => strip(text).replaceAll('\n', ' ');
    const said = plain(response.toLowerCase());
    const isFormula = formula !== undefined && meets(doc, formula);
    const right = targetTexts(target).some((gold) => {
      if (!isFormula) return said.includes(plain(gold.toLowerCase()));
      const wanted = plain(mode === 'fixed' ? gold.toLowerCase() : gold).replaceAll(' ', '');
      return said.replaceAll(' ', '').includes(wanted);
    });
    return { values: { contains: Number(right) }, parsed: response === '' ? null : response };
  },
});
