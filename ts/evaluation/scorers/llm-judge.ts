import { z } from 'zod';
import { pythonRegex } from '../python-regex.ts';
import { strip } from '../python-text.ts';
import { conditionSchema, meets } from './conditions.ts';
import { scoreWith } from './inner-scorer.ts';
import { fillPrompt } from './judge-prompt.ts';
import { regularExpression } from './regular-expression.ts';
import {
  type Judge,
  type ResponseScore,
  registerScorer,
  type ScorerQuestion,
  scoreSchema,
  targetTexts,
} from './scorer.ts';
import { type Verdict, verdictMetrics, verdicts } from './verdicts.ts';

const kinds = Object.keys(verdicts) as (keyof typeof verdicts)[];

const options = z
  .strictObject({
    /** A template with the columns, {{prediction}}, {{target}} and, after `extract`, {{extracted}}. */
    prompt: z.string(),
    system: z.string().optional(),
    verdict: z.enum(kinds as [keyof typeof verdicts]),
    /** Lowest and highest score of the verdict `score`. */
    range: z.tuple([z.number(), z.number()]).optional(),
    /** A regular expression whose first group is the verdict, for replies with more than that in them. */
    pattern: regularExpression.optional(),
    /** A template: what the judge has to answer with the verdict `answer`. Default: the target. */
    gold: z.string().optional(),
    /** A question asked before, whose reply is {{extracted}} in `prompt` (MathVerse). */
    extract: z.string().optional(),
    /** The judge sees the document's images too. */
    images: z.boolean().default(false),
    /** A scorer without a judge: what stands when there is none. */
    first: z.lazy(() => scoreSchema).optional(),
    /** `unparsed` asks only for what `first` could not read; without `first` every response is asked for. */
    ask: z.enum(['always', 'unparsed']).default('unparsed'),
    /** Documents for which an unclear answer is right (HallusionBench without its figure). */
    unclear_right: conditionSchema.optional(),
    max_tokens: z.int().positive().default(1024),
    temperature: z.number().nonnegative().default(0),
  })
  .refine(({ verdict, range }) => (verdict === 'score') === (range !== undefined), {
    path: ['range'],
    message: 'range: [lowest, highest] goes with verdict: score, and with no other',
  })
  .refine(({ range: [low, high] = [0, 1] }) => low < high, {
    path: ['range'],
    message: 'range: the lowest score first',
  });
type Options = z.output<typeof options>;

function withoutScore({ verdict }: Options, reason: string): ResponseScore {
  return {
    values: Object.fromEntries(verdictMetrics[verdict].map((metric) => [metric, null])),
    parsed: null,
    missing: reason,
  };
}

async function askJudge(
  response: string,
  { doc, target, images }: ScorerQuestion,
  given: Options,
  judge: Judge,
): Promise<ResponseScore> {
  if (given.images && images === undefined)
    return withoutScore(given, 'the judge is to see the images, and they are not at hand');
  const settings = {
    ...(given.system !== undefined && { system: given.system }),
    ...(given.images && { images: images! }),
    maxTokens: given.max_tokens,
    temperature: given.temperature,
  };
  const known: Record<string, unknown> = { prediction: response, target: targetTexts(target).join(', ') };
  if (given.extract !== undefined) {
    // There is nothing to be read out of an empty answer.
    const extracted =
      response === '' ? '' : await judge.ask({ prompt: fillPrompt(given.extract, doc, known), ...settings });
    if (extracted === null) return withoutScore(given, 'the judge gave no answer');
    known.extracted = strip(extracted);
  }
  const reply = await judge.ask({ prompt: fillPrompt(given.prompt, doc, known), ...settings });
  if (reply === null) return withoutScore(given, 'the judge gave no answer');
  const read: Verdict = verdicts[given.verdict];
  const values = read(strip(reply), {
    pattern: given.pattern === undefined ? undefined : pythonRegex(given.pattern),
    range: given.range,
    gold: strip(given.gold === undefined ? String(known.target) : fillPrompt(given.gold, doc, known)),
  });
  if (values === undefined) return withoutScore(given, 'the judge gave no verdict');
  const spared = values.unclear === 1 && given.unclear_right !== undefined && meets(doc, given.unclear_right);
  return {
    values: spared ? { ...values, acc: 1 } : values,
    parsed: typeof known.extracted === 'string' ? known.extracted : response === '' ? null : response,
    detail: { judge: judge.model, reply },
  };
}

/**
 * A language model as judge. A reply that does not come or holds no verdict leaves the document without a score; without
 * a judge `first` stands, or the score is missing. Metrics depend on `verdict`: `acc`, `score`, `model_score`, …
 */
registerScorer('llm_judge', {
  options,
  score: (response, question, given, mode) =>
    given.first === undefined
      ? withoutScore(given, 'this scorer needs a judge: give the address of one')
      : scoreWith(given.first, response, question, mode),
  judge: async (response, question, given, mode, judge) => {
    const ruled =
      given.first !== undefined && given.ask === 'unparsed'
        ? scoreWith(given.first, response, question, mode)
        : undefined;
    return ruled !== undefined && ruled.parsed !== null ? ruled : askJudge(response, question, given, judge);
  },
});
