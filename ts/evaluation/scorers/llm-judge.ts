import { z } from 'zod';
import { pythonRegex } from '../python-regex.ts';
import { strip } from '../python-text.ts';
import { conditionSchema, meets } from './conditions.ts';
import { fillPrompt } from './judge-prompt.ts';
import { regularExpression } from './regular-expression.ts';
import {
  type Judge,
  type ResponseScore,
  type ResponseScorer,
  registerScorer,
  type ScorerQuestion,
  scorerNamed,
  scoreSchema,
  targetTexts,
} from './scorer.ts';
import { type Verdict, verdictMetrics, verdicts } from './verdicts.ts';

const kinds = Object.keys(verdicts) as (keyof typeof verdicts)[];

const options = z.strictObject({
  /** A template with the columns, {{prediction}}, {{target}} and, after `extract`, {{extracted}}. */
  prompt: z.string(),
  system: z.string().optional(),
  verdict: z.enum(kinds as [keyof typeof verdicts]),
  /** A regular expression whose first group is the score, for replies with more than that in them. */
  pattern: regularExpression.optional(),
  /** A question asked before, whose reply is {{extracted}} in `prompt` (MathVerse). */
  extract: z.string().optional(),
  /** A scorer without a judge: what stands when there is none. */
  first: z.lazy(() => scoreSchema).optional(),
  /** `unparsed` asks only for what `first` could not read; without `first` every response is asked for. */
  ask: z.enum(['always', 'unparsed']).default('unparsed'),
  /** Documents for which an unclear answer is right (HallusionBench without its figure). */
  unclear_right: conditionSchema.optional(),
  max_tokens: z.int().positive().default(1024),
  temperature: z.number().nonnegative().default(0),
});
type Options = z.output<typeof options>;

function withoutScore({ verdict }: Options, reason: string): ResponseScore {
  return {
    values: Object.fromEntries(verdictMetrics[verdict].map((metric) => [metric, null])),
    parsed: null,
    missing: reason,
  };
}

const parsedFirst = new WeakMap<object, { scorer: ResponseScorer; options: unknown }>();

function byRule(
  response: string,
  question: ScorerQuestion,
  { first }: Options,
  mode: Parameters<ResponseScorer['score']>[3],
): ResponseScore | undefined {
  if (first === undefined) return undefined;
  let made = parsedFirst.get(first);
  if (made === undefined) {
    const { use, ...given } = first;
    const scorer = scorerNamed(use);
    made = { scorer, options: scorer.options.parse(given) };
    parsedFirst.set(first, made);
  }
  return made.scorer.score(response, question, made.options, mode);
}

async function askJudge(
  response: string,
  { doc, target }: ScorerQuestion,
  given: Options,
  judge: Judge,
): Promise<ResponseScore> {
  const settings = {
    ...(given.system !== undefined && { system: given.system }),
    maxTokens: given.max_tokens,
    temperature: given.temperature,
  };
  const known: Record<string, unknown> = { prediction: response, target: targetTexts(target).join(', ') };
  if (given.extract !== undefined) {
    const extracted = await judge.ask({ prompt: fillPrompt(given.extract, doc, known), ...settings });
    if (extracted === null) return withoutScore(given, 'the judge gave no answer');
    known.extracted = strip(extracted);
  }
  const reply = await judge.ask({ prompt: fillPrompt(given.prompt, doc, known), ...settings });
  if (reply === null) return withoutScore(given, 'the judge gave no answer');
  const pattern = given.pattern === undefined ? undefined : pythonRegex(given.pattern);
  const read: Verdict = verdicts[given.verdict];
  const values = read(reply, pattern);
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
    byRule(response, question, given, mode) ??
    withoutScore(given, 'this scorer needs a judge: give the address of one'),
  judge: async (response, question, given, mode, judge) => {
    const ruled = byRule(response, question, given, mode);
    return ruled !== undefined && given.ask === 'unparsed' && ruled.parsed !== null
      ? ruled
      : askJudge(response, question, given, judge);
  },
});
