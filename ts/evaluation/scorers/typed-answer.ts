import { z } from 'zod';
import { fail } from '../../native/index.ts';
import { pyFloat, pyFloatStr, pyInt, pyRound, pyTruncateStr } from '../python-number.ts';
import { strip } from '../python-text.ts';
import type { Row } from '../task.ts';
import { parseRobustChoice, withoutThoughts } from './choice-robust.ts';
import { column, optionalColumn, textColumn } from './columns.ts';
import { fillPrompt } from './judge-prompt.ts';
import { levenshtein } from './levenshtein.ts';
import { type ResponseScore, registerScorer, type ScorerQuestion } from './scorer.ts';

const options = z.strictObject({
  choices: z.string().default('choices'),
  question_type: z.string().default('question_type'),
  answer_type: z.string().default('answer_type'),
  precision: z.string().default('precision'),
  /** With a judge: the question that asks it for the answer alone, with {{prediction}} and the columns in it. */
  prompt: z.string().optional(),
});

/** What kind of answer a question wants. */
export interface AnswerKind {
  choices: readonly string[];
  questionType: string;
  answerType: string;
  precision: number | null;
}

/** MathVista's normal form (Lu et al. 2023, arXiv 2310.02255) of an extracted answer; null where it is not of that kind. */
export function normaliseTyped(extracted: string, kind: AnswerKind): string | null {
  if (kind.questionType === 'multi_choice') return nearestChoice(extracted, kind.choices);
  if (kind.answerType === 'integer') {
    const value = pyFloat(extracted);
    return value === null ? null : pyTruncateStr(value);
  }
  if (kind.answerType === 'float') {
    const value = pyFloat(extracted);
    return value === null || kind.precision === null
      ? null
      : pyFloatStr(pyRound(value, Math.trunc(kind.precision)));
  }
  return extracted;
}

function nearestChoice(extracted: string, choices: readonly string[]): string | null {
  const trimmed = strip(extracted);
  const text = /\(([a-zA-Z])\)/.exec(trimmed)?.[1]?.toUpperCase() ?? trimmed;
  const named = /^[A-Z]$/.test(text) ? choices[text.charCodeAt(0) - 65] : undefined;
  if (named !== undefined) return named;
  let best: string | null = null;
  let least = Number.POSITIVE_INFINITY;
  for (const choice of choices) {
    const edits = levenshtein(text, choice);
    if (edits < least) [best, least] = [choice, edits];
  }
  return best;
}

/** What needs no judge: a choice as it stands, or a number. Undefined where more is needed. */
function extractPlainly(response: string, kind: AnswerKind): string | undefined {
  if (response === '') return '';
  if (kind.questionType === 'multi_choice' && kind.choices.includes(response)) return response;
  if (kind.answerType === 'integer') {
    const value = pyInt(response);
    if (value !== null) return value.toString();
  }
  if (kind.answerType === 'float') {
    const value = pyFloat(response);
    if (value !== null) return pyFloatStr(value);
  }
  return undefined;
}

const ANNOUNCED = /(?:answer\s+is|answer\s*:|答案是|答案[:：])\s*:?\s*([^\n]+)/gi;
const BOXED = /\\boxed\{((?:[^{}]|\{[^{}]*\})*)\}/g;
const BOLD = /\*\*([^*\n]+)\*\*/g;
const NUMBER = /[+-]?(?:\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?/g;

function extractByRule(response: string, kind: AnswerKind): string | null {
  const text = withoutThoughts(response);
  const announced = [BOXED, ANNOUNCED, BOLD]
    .map((pattern) => [...text.matchAll(pattern)].at(-1)?.[1])
    .find((found) => found !== undefined);
  const said = strip((announced ?? text).replace(/\*\*|\$/g, ''));
  if (kind.questionType === 'multi_choice') {
    const letters = kind.choices.map((_, i) => String.fromCharCode(65 + i));
    const letter =
      parseRobustChoice(said, letters, kind.choices) ?? parseRobustChoice(text, letters, kind.choices);
    return letter === null ? null : (kind.choices[letters.indexOf(letter)] ?? null);
  }
  if (kind.answerType === 'integer' || kind.answerType === 'float')
    return (said.match(NUMBER) ?? text.match(NUMBER))?.at(-1)?.replaceAll(',', '') ?? null;
  if (kind.answerType === 'list')
    return (said.match(/\[[^[\]]*\]/g) ?? text.match(/\[[^[\]]*\]/g))?.at(-1) ?? null;
  return said === '' ? null : said.replace(/\.$/, '');
}

function kindOf(doc: Row, given: z.output<typeof options>): AnswerKind {
  const choices = optionalColumn(doc, given.choices) ?? [];
  if (!Array.isArray(choices))
    return fail(
      'ERR_LIBMOE_DATA',
      `column "${given.choices}" must hold a list or null, got ${JSON.stringify(choices)}`,
    );
  const questionType = textColumn(doc, given.question_type);
  const answerType = textColumn(doc, given.answer_type);
  const precision =
    answerType === 'float' && questionType !== 'multi_choice' ? column(doc, given.precision) : null;
  return {
    choices: choices.map(String),
    questionType,
    answerType,
    precision: precision === null ? null : Number(precision),
  };
}

function scored(extracted: string | null, kind: AnswerKind, target: ScorerQuestion['target']): ResponseScore {
  const parsed = extracted === null || extracted === '' ? null : normaliseTyped(extracted, kind);
  const gold = strip(String(Array.isArray(target) ? target[0] : target));
  return { values: { acc: Number(parsed !== null && strip(parsed) === gold) }, parsed };
}

/** Answers of a declared type: a choice, a whole number, a decimal, a list (MathVista). Metric `acc`. */
registerScorer('typed_answer', {
  options,
  score: (response, { doc, target }, given) => {
    const kind = kindOf(doc, given);
    return scored(extractPlainly(response, kind) ?? extractByRule(response, kind), kind, target);
  },
  judge: async (response, { doc, target }, given, _mode, judge) => {
    const kind = kindOf(doc, given);
    const plain = extractPlainly(response, kind);
    if (plain !== undefined || given.prompt === undefined)
      return scored(plain ?? extractByRule(response, kind), kind, target);
    const reply = await judge.ask({
      prompt: fillPrompt(given.prompt, doc, { prediction: response }),
      maxTokens: 256,
      temperature: 0,
    });
    return reply === null
      ? { values: { acc: null }, parsed: null, missing: 'the judge gave no answer' }
      : scored(strip(reply), kind, target);
  },
});
