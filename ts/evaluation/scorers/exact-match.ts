import { z } from 'zod';
import { punctuation } from '../python-text.ts';
import { globalRegex, regularExpression } from './regular-expression.ts';
import { registerScorer, targetTexts } from './scorer.ts';

const options = z.strictObject({
  ignore_case: z.boolean().default(false),
  ignore_punctuation: z.boolean().default(false),
  ignore_numbers: z.boolean().default(false),
  /** Regular expressions taken out of both sides first. */
  regexes_to_ignore: z.array(regularExpression).default([]),
});

/** The text that is compared: what is to be ignored taken out, in lm-eval's order. */
function compared(text: string, given: z.output<typeof options>): string {
  let out = text;
  for (const source of given.regexes_to_ignore) out = out.replace(globalRegex(source), '');
  if (given.ignore_case) out = out.toLowerCase();
  if (given.ignore_punctuation) out = out.replace(punctuation, '');
  if (given.ignore_numbers) out = out.replace(/[0-9]/g, '');
  return out;
}

/** Equality with the target, or with one of several. Metric `exact_match`; nothing is ever unparsed. */
registerScorer('exact_match', {
  options,
  score: (response, { target }, given) => {
    const said = compared(response, given);
    const golds = targetTexts(target);
    const right = golds.some((gold) => compared(gold, given) === said);
    return { values: { exact_match: Number(right) }, parsed: said };
  },
});
