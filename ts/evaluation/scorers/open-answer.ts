import { z } from 'zod';
import type { ScorerMode } from '../metrics.ts';
import { pyFloat, pyFloatStr, pyRound } from '../python-number.ts';
import { pythonClasses, strip, stripOf } from '../python-text.ts';
import { readPythonList } from './python-literal.ts';
import { registerScorer, type ScorerQuestion } from './scorer.ts';

/** Something that may be the answer: a piece of the response, or a number in it. */
export type OpenCandidate = string | number;

const { digit: D, boundary: B } = pythonClasses;
const EXPONENT = `[eE][+-]?${D}+`;

interface Language {
  /** Marks at both ends that go first. */
  trim: string;
  sentences: RegExp;
  indicators: readonly string[];
  numbers: readonly RegExp[];
  lower: boolean;
}

const ENGLISH: Language = {
  trim: '.',
  sentences: /\n/,
  indicators: ['could be ', 'so ', 'is ', 'thus ', 'therefore ', 'final ', 'answer ', 'result '],
  numbers: [
    new RegExp(`-?${B}${D}{1,3}(?:,${D}{3})+${B}`, 'gu'),
    new RegExp(`-?${D}+(?:\\.${D}+)?${EXPONENT}`, 'gu'),
    new RegExp(`-?(?:${D}+\\.${D}+|\\.${D}+|${D}+${B})(?!${EXPONENT})(?![,\\p{Nd}])`, 'gu'),
  ],
  lower: true,
};
const CHINESE: Language = {
  trim: '。',
  sentences: /。|\n/,
  indicators: ['是', '为', '所以', '等于', '方案', '选择', '正确答案', '因此', '最后', '答案', '结果'],
  numbers: [
    new RegExp(`-?${D}{1,3}(?:，${D}{3})+`, 'gu'),
    new RegExp(`-?${D}+(?:\\.${D}+)?${EXPONENT}`, 'gu'),
    new RegExp(`-?(?:${D}+\\.${D}+|\\.${D}+|${D}+)(?!${EXPONENT})(?!，${D})`, 'gu'),
  ],
  lower: false,
};
const TRIVIAL = new Set([':', ',', '.', '!', '?', ';', "'"]);

/** What follows the last indicator of a sentence, the shortest over all indicators. */
function keyParts(response: string, language: Language, indicators = language.indicators): string[] {
  const trimmed = strip(stripOf(strip(response), language.trim));
  const text = language.lower ? trimmed.toLowerCase() : trimmed;
  const sentences = text.split(language.sentences);
  const parts: string[] = [];
  for (const [i, sentence] of sentences.entries()) {
    let shortest: string | undefined;
    // An equation is taken for an answer at the end only.
    for (const indicator of i === sentences.length - 1 ? [...indicators, '='] : indicators) {
      const at = sentence.lastIndexOf(indicator);
      if (at < 0) continue;
      const tail = strip(sentence.slice(at + indicator.length));
      // An empty tail is replaced by any other: the original tests for truth.
      if (!shortest || [...tail].length < [...shortest].length) shortest = tail;
    }
    if (shortest && !TRIVIAL.has(shortest)) parts.push(shortest);
  }
  return parts.length > 0 ? parts : [text];
}

function numeric(text: string): number | null {
  const value = pyFloat(text.replaceAll(',', ''));
  return value === null ? null : pyRound(value, 2);
}

/** MMMU's normal form: numbers to two digits; one character becomes two texts, so that it matches only as a word's end or start. */
export function normaliseOpen(raw: string): OpenCandidate[] {
  const text = strip(raw);
  const value = numeric(text);
  if (value !== null) return [value];
  const lower = text.toLowerCase();
  return [...lower].length === 1 ? [` ${lower}`, `${lower} `] : [lower];
}

const letterCount = (text: string): number => (text.match(/[a-zA-Z]/g) ?? []).length;

/** CMMMU's: texts much longer than the answer are not compared. */
function normaliseChinese(raw: string, answer: string): OpenCandidate[] {
  const text = strip(raw);
  const value = numeric(text);
  if (value !== null) return [value];
  const long = [...text].length > [...answer].length + 20 || letterCount(text) > letterCount(answer) + 2;
  return long ? [] : [text];
}

const DIGIT = new RegExp(D, 'u');

function withNumbers(parts: readonly string[], language: Language): string[] {
  if (!parts.some((part) => DIGIT.test(part))) return [...parts];
  return [
    ...parts,
    ...parts.flatMap((part) => language.numbers.flatMap((pattern) => part.match(pattern) ?? [])),
  ];
}

/** MMMU's reading of an open answer (Yue et al. 2023, arXiv 2311.16502): likely pieces and every number in them, without repeats. */
export function parseOpen(response: string): OpenCandidate[] {
  return [...new Set(withNumbers(keyParts(response, ENGLISH), ENGLISH).flatMap(normaliseOpen))];
}

/** Right if a piece contains a gold text, or a number equals a gold number. */
export function openMatch(candidates: readonly OpenCandidate[], golds: readonly OpenCandidate[]): boolean {
  return candidates.some((candidate) =>
    typeof candidate === 'number'
      ? golds.includes(candidate) && !Number.isNaN(candidate)
      : golds.some((gold) => typeof gold === 'string' && candidate.includes(gold)),
  );
}

const POSITIVE = ['正确', '对', '准确', '肯定', '对的'];
const NEGATIVE = ['不对', '错误', '不正确', '不准确', '不合适', '否定', '错的', '错'];
const AMBIGUOUS = ['对错', '是否正确', '否正确', '或者', '是否', '正确性', '对不'];
const JUDGEMENT_INDICATORS = ['是', '为', '所以', '判断', '陈述', '说法', '表达', '答案', '结果'];

/** CMMMU's right-or-wrong questions: 对, 错, or null where the words do not decide (the original then draws). */
export function parseJudgement(response: string): '对' | '错' | null {
  const text = strip(stripOf(response, '。'));
  const parts = new Set<string>();
  for (const sentence of text.split(CHINESE.sentences)) {
    const tails = JUDGEMENT_INDICATORS.filter((indicator) => sentence.includes(indicator)).map((indicator) =>
      strip(sentence.slice(sentence.lastIndexOf(indicator) + indicator.length)),
    );
    let shortest: string | undefined;
    for (const tail of tails) if (!shortest || [...tail].length < [...shortest].length) shortest = tail;
    if (shortest && !TRIVIAL.has(shortest)) parts.add(shortest);
  }
  if (parts.size === 0) parts.add(text);
  let balance = 0;
  for (const part of parts) {
    if (AMBIGUOUS.some((word) => part.includes(word))) continue;
    if (POSITIVE.some((word) => part.includes(word))) balance += 1;
    else if (NEGATIVE.some((word) => part.includes(word))) balance -= 1;
  }
  return balance > 0 ? '对' : balance < 0 ? '错' : null;
}

const options = z.strictObject({ profile: z.enum(['mmmu', 'cmmmu', 'cmmmu_judgement']).default('mmmu') });

function goldTexts(target: ScorerQuestion['target'], mode: ScorerMode): string[] {
  if (Array.isArray(target)) return target.map(String);
  // "['24/7', '3.43']" is compared as one text in the original.
  const list = mode === 'fixed' && typeof target === 'string' ? readPythonList(strip(target)) : undefined;
  return list === undefined ? [String(target)] : list.map(String);
}

const shown = (candidates: readonly OpenCandidate[]): string =>
  candidates.map((c) => (typeof c === 'number' ? pyFloatStr(c) : c)).join(' | ');

/** Open questions of MMMU and CMMMU. Metric `acc`. */
registerScorer('open_answer', {
  options,
  score: (response, { target }, { profile }, mode) => {
    const golds = goldTexts(target, mode);
    if (profile === 'cmmmu_judgement') {
      const parsed = parseJudgement(response);
      return { values: { acc: Number(parsed !== null && golds.includes(parsed)) }, parsed };
    }
    if (profile === 'mmmu') {
      const candidates = parseOpen(response);
      return {
        values: { acc: Number(openMatch(candidates, golds.flatMap(normaliseOpen))) },
        parsed: response === '' ? null : shown(candidates),
      };
    }
    const answer = golds[0] ?? '';
    const parts = withNumbers(keyParts(response, CHINESE), CHINESE);
    const candidates = [...new Set(parts.flatMap((part) => normaliseChinese(part, answer)))];
    return {
      values: {
        acc: Number(
          openMatch(
            candidates,
            golds.flatMap((gold) => normaliseChinese(gold, gold)),
          ),
        ),
      },
      parsed: candidates.length === 0 ? null : shown(candidates),
    };
  },
});
