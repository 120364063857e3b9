import type { ScorerMode } from '../metrics.ts';
import {
  type Judge,
  type ResponseScore,
  type ResponseScorer,
  type ScoreBlock,
  type ScorerQuestion,
  scorerNamed,
} from './scorer.ts';

interface Checked {
  scorer: ResponseScorer;
  options: unknown;
}
/** Blocks are checked once; the parsed options of a block live as long as the block. */
const checked = new WeakMap<object, Checked>();

function innerScorer(block: ScoreBlock): Checked {
  let made = checked.get(block);
  if (made === undefined) {
    const { use, ...given } = block;
    const scorer = scorerNamed(use);
    made = { scorer, options: scorer.options.parse(given) };
    checked.set(block, made);
  }
  return made;
}

/** Scores with a scorer that another scorer names in its options. */
export function scoreWith(
  block: ScoreBlock,
  response: string,
  question: ScorerQuestion,
  mode: ScorerMode,
): ResponseScore {
  const { scorer, options } = innerScorer(block);
  return scorer.score(response, question, options, mode);
}

/** The same with a judge at hand, for scorers that take one. */
export async function judgeWith(
  block: ScoreBlock,
  response: string,
  question: ScorerQuestion,
  mode: ScorerMode,
  judge: Judge,
): Promise<ResponseScore> {
  const { scorer, options } = innerScorer(block);
  return scorer.judge === undefined
    ? scorer.score(response, question, options, mode)
    : scorer.judge(response, question, options, mode, judge);
}

/** The first metric that a scorer gives. */
export function firstValue({ values }: ResponseScore): number | null {
  return Object.values(values)[0] ?? null;
}
