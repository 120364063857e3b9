import { pyFloat } from '../python-number.ts';
import { strip } from '../python-text.ts';

/** Values per metric, or undefined where a judge's reply holds no verdict. */
export type Verdict = (reply: string, pattern: RegExp | undefined) => Record<string, number> | undefined;

const numbersIn = (text: string): number[] => (text.match(/-?\d+(?:\.\d+)?/g) ?? []).map(Number);

/** The number that the pattern's first group captures, or the only way a bare number can be read. */
function single(reply: string, pattern: RegExp | undefined, low: number, high: number): number | undefined {
  const text = pattern === undefined ? reply : pattern.exec(reply)?.[1];
  const value = text === undefined ? undefined : (pyFloat(text) ?? numbersIn(text)[0]);
  return value !== undefined && value >= low && value <= high ? value : undefined;
}

const scale = (low: number, high: number): Verdict => {
  return (reply, pattern) => {
    const score = single(reply, pattern, low, high);
    return score === undefined ? undefined : { score };
  };
};

const PREFERENCE: Readonly<Record<string, number>> = {
  'A>>B': 0,
  'A>B': 0,
  A: 0,
  'A=B': 0.5,
  'B=A': 0.5,
  C: 0.5,
  TIE: 0.5,
  'B>A': 1,
  B: 1,
  'B>>A': 1,
  'A<B': 1,
  'A<<B': 1,
};

/** How a judge's reply becomes numbers, by the family of benchmarks. */
export const verdicts = {
  /** LLaVA-Bench family (Liu et al. 2023): the first line has two scores from 1 to 10, the reference's and the model's. */
  score_pair: (reply) => {
    const [first = ''] = strip(reply).split('\n');
    const [reference, model] = numbersIn(first.replaceAll(',', ' '));
    const fits = (x: number | undefined): x is number => x !== undefined && x >= 0 && x <= 10;
    return fits(reference) && fits(model) ? { reference_score: reference, model_score: model } : undefined;
  },
  /** MM-Vet: 0 to 1. */
  score_0_1: scale(0, 1),
  /** Vibe-Eval, the video chats: 1 to 5. */
  score_1_5: scale(1, 5),
  score_0_5: scale(0, 5),
  score_1_10: scale(1, 10),
  /** ActivityNet-QA, CVRR: "{'pred': 'yes', 'score': 4}". */
  yes_no_score: (reply) => {
    const says = /['"]?pred['"]?\s*:\s*['"]?(yes|no)/i.exec(reply)?.[1]?.toLowerCase();
    const score = Number(/['"]?score['"]?\s*:\s*['"]?(\d+(?:\.\d+)?)/i.exec(reply)?.[1] ?? Number.NaN);
    return says === undefined || Number.isNaN(score) ? undefined : { acc: Number(says === 'yes'), score };
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
  /** MathVerse: 1 or 0. */
  one_or_zero: (reply) => {
    const digit = /(?<!\d)[01](?!\d)/.exec(reply)?.[0];
    return digit === undefined ? undefined : { acc: Number(digit) };
  },
  /** WildVision: [[A>B]] and the like, A the reference: 1 the model wins, 0.5 a tie. */
  pairwise: (reply) => {
    const said = [...reply.matchAll(/\[\[\s*([ABC<>=]+|tie)\s*\]\]/gi)].at(-1)?.[1]?.toUpperCase();
    const win = said === undefined ? undefined : PREFERENCE[said];
    return win === undefined ? undefined : { win };
  },
} satisfies Record<string, Verdict>;

/** Metrics that each kind of verdict gives. */
export const verdictMetrics: Readonly<Record<keyof typeof verdicts, readonly string[]>> = {
  score_pair: ['reference_score', 'model_score'],
  score_0_1: ['score'],
  score_1_5: ['score'],
  score_0_5: ['score'],
  score_1_10: ['score'],
  yes_no_score: ['acc', 'score'],
  correctness: ['acc'],
  correctness_or_unclear: ['acc', 'unclear'],
  one_or_zero: ['acc'],
  pairwise: ['win'],
};
