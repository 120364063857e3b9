import { pyFloat } from '../python-number.ts';
import { strip } from '../python-text.ts';

/** What a verdict is read by, beside the reply itself. */
export interface VerdictReading {
  /** Its first group is what counts. */
  pattern?: RegExp | undefined;
  /** Lowest and highest score. */
  range?: readonly [number, number] | undefined;
  /** What the judge's own answer must be for the response to be right. */
  gold?: string | undefined;
}

/** Values per metric, or undefined where a judge's reply, stripped, holds no verdict. */
export type Verdict = (reply: string, by: VerdictReading) => Record<string, number> | undefined;

/** The number that the pattern's first group captures, or the first number in the reply. */
function single(reply: string, pattern: RegExp | undefined): number | undefined {
  const text = pattern === undefined ? reply : pattern.exec(reply)?.[1];
  const first = /-?\d+(?:\.\d+)?/.exec(text ?? '')?.[0];
  return text === undefined
    ? undefined
    : (pyFloat(text) ?? (first === undefined ? undefined : Number(first)));
}

// By label: how much better B, the model, is than A, the reference.
const PREFERENCE: Readonly<Record<string, number>> = {
  'A>>B': -2,
  'A>B': -1,
  A: -1,
  'A=B': 0,
  'B=A': 0,
  C: 0,
  TIE: 0,
  'B>A': 1,
  B: 1,
  'A<B': 1,
  'B>>A': 2,
  'A<<B': 2,
};

/** How a judge's reply becomes numbers. */
export const verdicts = {
  /** One number in `range`; `normalised`: 0 at its lowest, 1 at its highest; `full_marks`: whether it is the highest. */
  score: (reply, { pattern, range: [low, high] = [0, 1] }) => {
    const score = single(reply, pattern);
    return score === undefined || !(score >= low && score <= high)
      ? undefined
      : { score, normalised: (score - low) / (high - low), full_marks: Number(score === high) };
  },
  /** LLaVA-Bench family (Liu et al. 2023): the first line is two scores, the reference's and the model's. */
  score_pair: (reply) => {
    const [line = ''] = reply.split('\n');
    const scores = strip(line.replaceAll(',', ' ')).split(/\s+/).map(pyFloat);
    const [reference, model] = scores;
    const fits = (x: number | null | undefined): x is number => typeof x === 'number' && x >= 0 && x <= 10;
    return scores.length === 2 && fits(reference) && fits(model)
      ? { reference_score: reference, model_score: model }
      : undefined;
  },
  /** ActivityNet-QA, CVRR: "{'pred': 'yes', 'score': 4}". */
  yes_no_score: (reply) => {
    const says = /['"]?pred['"]?\s*:\s*['"]?(yes|no|correct|incorrect)\b/i.exec(reply)?.[1]?.toLowerCase();
    const score = Number(/['"]?score['"]?\s*:\s*['"]?(\d+(?:\.\d+)?)/i.exec(reply)?.[1] ?? Number.NaN);
    return says === undefined || Number.isNaN(score)
      ? undefined
      : { acc: Number(says === 'yes' || says === 'correct'), score };
  },
  /** "correct" or "incorrect" somewhere. */
  correctness: (reply) => {
    const text = reply.toLowerCase();
    return text.includes('incorrect') ? { acc: 0 } : text.includes('correct') ? { acc: 1 } : undefined;
  },
  /** The same, with everything else a verdict of its own: "unclear" (HallusionBench). */
  correctness_or_unclear: (reply) => {
    const text = reply.toLowerCase();
    return text.includes('incorrect')
      ? { acc: 0, unclear: 0 }
      : text.includes('correct')
        ? { acc: 1, unclear: 0 }
        : { acc: 0, unclear: 1 };
  },
  /** The judge answers the question itself, from the response alone: what `pattern` captures is `gold` or the response is wrong. */
  answer: (reply, { pattern, gold }) => {
    const said = pattern === undefined ? reply : pattern.exec(reply)?.[1];
    return { acc: Number(said !== undefined && strip(said).toLowerCase() === gold?.toLowerCase()) };
  },
  /** MathVerse: 1 or 0. */
  one_or_zero: (reply) => {
    const digit = /(?<!\d)[01](?!\d)/.exec(reply)?.[0];
    return digit === undefined ? undefined : { acc: Number(digit) };
  },
  /** WildVision: [[A>B]] and the like, A the reference. `win`: 1 the model wins, 0.5 a tie; `preference`: -2 to 2, and a metric for each of those. */
  pairwise: (reply) => {
    const said = [...reply.matchAll(/\[\[\s*([ABC<>=]+|tie)\s*\]\]/gi)].at(-1)?.[1]?.toUpperCase();
    const preference = said === undefined ? undefined : PREFERENCE[said];
    if (preference === undefined) return undefined;
    return {
      win: (Math.sign(preference) + 1) / 2,
      preference,
      wins: Number(preference > 0),
      much_better: Number(preference === 2),
      better: Number(preference === 1),
      tie: Number(preference === 0),
      worse: Number(preference === -1),
      much_worse: Number(preference === -2),
    };
  },
} satisfies Record<string, Verdict>;

/** Metrics that each kind of verdict gives. */
export const verdictMetrics: Readonly<Record<keyof typeof verdicts, readonly string[]>> = {
  score: ['score', 'normalised', 'full_marks'],
  score_pair: ['reference_score', 'model_score'],
  yes_no_score: ['acc', 'score'],
  correctness: ['acc'],
  correctness_or_unclear: ['acc', 'unclear'],
  answer: ['acc'],
  one_or_zero: ['acc'],
  pairwise: ['win', 'preference', 'wins', 'much_better', 'better', 'tie', 'worse', 'much_worse'],
};
