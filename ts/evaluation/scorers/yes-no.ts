import { z } from 'zod';
import { fail } from '../../native/index.ts';
import type { ScorerMode } from '../metrics.ts';
import { strip } from '../python-text.ts';
import { withoutThoughts } from './choice-robust.ts';
import { conditionSchema, meets } from './conditions.ts';
import { registerScorer, type ScorerQuestion } from './scorer.ts';

/** What a response says; `other` is neither. */
export type YesNo = 'yes' | 'no' | 'other';

/** MME (Fu et al. 2023, arXiv 2306.13394): exact, one letter, or within the first four characters. */
export function parseMme(response: string): YesNo {
  return firstFour(strip(response.toLowerCase()).replaceAll('.', ''), true);
}

function firstFour(text: string, oneLetter: boolean): YesNo {
  if (text === 'yes' || text === 'no') return text;
  const characters = [...text.slice(0, 8)];
  if (oneLetter && characters.length === 1) return text === 'y' ? 'yes' : text === 'n' ? 'no' : 'other';
  const start = characters.slice(0, 4).join('');
  return start.includes('yes') ? 'yes' : start.includes('no') ? 'no' : 'other';
}

const UNCERTAIN =
  /\b(?:uncertain|unclear|unknown|cannot|can't|can not|unable|not (?:sure|clear|certain|possible|enough)|impossible|insufficient|don't know|do not know)\b/;

/** Words, not letters: a leading yes or no, else an announced one, else the only one there is. */
export function parseWords(response: string): YesNo {
  const text = withoutThoughts(response).toLowerCase().replaceAll('’', "'");
  const bare =
    /^[\s*_"'`([]*(y|yes|n|no|true|false)[\s*_"'`)\]]*(?:[.,:;!?\n]|$|\s-|—)/.exec(text)?.[1] ??
    /^[*_"'`([]*(yes|no)\b/.exec(text)?.[1];
  if (bare !== undefined) return bare === 'y' || bare === 'yes' || bare === 'true' ? 'yes' : 'no';
  const announced = [...text.matchAll(/\banswer(?:\s+is|\s*:)[\s*_"'`:]*(yes|no)\b/g)].at(-1)?.[1];
  if (announced !== undefined) return announced as YesNo;
  if (UNCERTAIN.test(text)) return 'other';
  const yes = /\byes\b/.test(text);
  const no = /\bno\b/.test(text);
  return yes === no ? 'other' : yes ? 'yes' : 'no';
}

const profiles: Record<string, (response: string) => YesNo> = {
  mme: parseMme,
  pope: (response) => {
    const text = strip(response.toLowerCase());
    return text === 'yes' || text === 'no' ? text : 'other';
  },
  contains_yes: (response) => (response.toLowerCase().includes('yes') ? 'yes' : 'no'),
  startswith: (response) => {
    const text = response.toLowerCase();
    return text.startsWith('yes') ? 'yes' : text.startsWith('no') ? 'no' : 'other';
  },
  conbench: (response) => firstFour(response.replaceAll('\n', '').toLowerCase(), false),
};

const options = z.strictObject({
  /** Whose way of reading; `fixed` scores read words instead. */
  profile: z.enum(['mme', 'pope', 'contains_yes', 'startswith', 'conbench']),
  /** Where neither yes nor no is the right answer, with `fixed` scores: HallusionBench's questions without their figure. */
  uncertain_right: conditionSchema.optional(),
});

/** The target as yes or no; "1" and "true" are yes. */
export function goldYesNo(target: ScorerQuestion['target']): 'yes' | 'no' {
  const text = strip(String(Array.isArray(target) ? target[0] : target)).toLowerCase();
  if (text === 'yes' || text === '1' || text === 'true' || text === 'y') return 'yes';
  if (text === 'no' || text === '0' || text === 'false' || text === 'n') return 'no';
  return fail('ERR_LIBMOE_DATA', `the target must be yes or no, got ${JSON.stringify(target)}`);
}

function answerOf(response: string, profile: keyof typeof profiles, mode: ScorerMode): YesNo {
  return mode === 'fixed' ? parseWords(response) : profiles[profile]!(response);
}

/** Yes or no. Metric `acc`; `detail.answer` and `detail.gold` are what the confusion numbers count. */
registerScorer('yes_no', {
  options,
  score: (response, { doc, target }, given, mode) => {
    const gold = goldYesNo(target);
    const answer = answerOf(response, given.profile, mode);
    const spared =
      mode === 'fixed' &&
      answer === 'other' &&
      given.uncertain_right !== undefined &&
      meets(doc, given.uncertain_right);
    return {
      values: { acc: Number(answer === gold || spared) },
      parsed: answer === 'other' ? null : answer,
      detail: { answer, gold },
    };
  },
});
