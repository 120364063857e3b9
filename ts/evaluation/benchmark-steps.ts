import { z } from 'zod';
import { fail } from '../native/index.ts';
import { registerDocumentStep } from './document-steps.ts';
import { capitalize, strip } from './python-text.ts';
import { type PythonDictionary, readPythonList } from './scorers/python-literal.ts';
import type { Row } from './task.ts';

// Steps of benchmarks whose columns no template turns into questions. Each adds columns and keeps those there are.

/** A column that must hold a text. */
export const textOf = (row: Row, column: string): string => {
  const value = row[column];
  return typeof value === 'string' ? value : missing(row, column, 'a text');
};

const textsOf = (row: Row, column: string): string[] => {
  const value = row[column];
  return Array.isArray(value) && value.every((item) => typeof item === 'string')
    ? value
    : missing(row, column, 'a list of texts');
};

/** Says what a column must hold. @throws ERR_LIBMOE_DATA */
export function missing(row: Row, column: string, kind: string): never {
  return fail(
    'ERR_LIBMOE_DATA',
    `process_docs: the column "${column}" must hold ${kind}, got ${JSON.stringify(row[column])}; the row has ${Object.keys(row).join(', ')}`,
  );
}

// LibMoE's pattern has one backslash too many: it means a backslash and one of . * ? \ and leaves [header] where it is.
const BRACKETS = { lm_eval: /\[.*?\]/g, libmoe: /\\[.*?\\]/g } as const;

/** The text of WikiHow without its marks. */
function cleanHellaSwag(text: string, cleaning: keyof typeof BRACKETS): string {
  return strip(text).replaceAll(' [title]', '. ').replace(BRACKETS[cleaning], '').replaceAll('  ', ' ');
}

/** HellaSwag (Zellers et al. 2019): `query`, `choices` and `gold` of activity_label, ctx_a, ctx_b, endings and label. */
registerDocumentStep('hellaswag', {
  options: z.strictObject({ cleaning: z.enum(['lm_eval', 'libmoe']).default('lm_eval') }),
  apply: (rows, { cleaning }) =>
    rows.map((row) => {
      const context = `${textOf(row, 'ctx_a')} ${capitalize(textOf(row, 'ctx_b'))}`;
      return {
        ...row,
        query: cleanHellaSwag(`${textOf(row, 'activity_label')}: ${context}`, cleaning),
        choices: textsOf(row, 'endings').map((ending) => cleanHellaSwag(ending, cleaning)),
        gold: Number(row.label),
      };
    }),
});

interface RaceProblem {
  question: string;
  options: string[];
  answer: number;
}

function raceProblem(value: unknown, row: Row): RaceProblem {
  const { question, options, answer } = (value ?? {}) as PythonDictionary;
  const index = typeof answer === 'string' ? 'ABCD'.indexOf(answer) : -1;
  if (typeof question !== 'string' || !Array.isArray(options) || options.length < 4 || index < 0)
    return missing(row, 'problems', 'problems with question, four options and answer A to D');
  return { question, options: options.slice(0, 4).map(String), answer: index };
}

// A gap at the end of a question: the answer takes its place, and the full stop goes with it.
const GAP = '  _  .';

/** RACE (Lai et al. 2017) as lm-eval asks it: the earlier problems of an article with their answers, then the last: `query`, `choices`, `gold`. */
registerDocumentStep('race', {
  options: z.strictObject({}),
  apply: (rows) =>
    rows.map((row) => {
      const { problems: given } = row;
      const list = typeof given === 'string' ? readPythonList(given) : given;
      if (!Array.isArray(list) || list.length === 0) return missing(row, 'problems', 'a list of problems');
      const problems = list.map((problem) => raceProblem(problem, row));
      const { question, options, answer } = problems.at(-1)!;
      const before = problems.slice(0, -1).map((problem) => {
        const right = problem.options[problem.answer]!;
        return problem.question.endsWith(GAP)
          ? `${problem.question.slice(0, 1 - GAP.length)}${right}\n`
          : `Question: ${problem.question}\nAnswer: ${right}\n`;
      });
      return {
        ...row,
        query: `Article: ${textOf(row, 'article')}\n\n${before.join('')}${question}`,
        choices: options,
        gold: answer,
      };
    }),
});

/** Tokens of the Children's Book Test back to text, as LibMoE has it. */
function joinTokens(text: string): string {
  return [
    [" '", "'"],
    [' \n', '\n'],
    ['\n ', '\n'],
    [" n't", "n't"],
    ['`` ', '"'],
    ["''", '"'],
  ]
    .reduce((joined, [from, to]) => joined.replaceAll(from!, to!), text)
    .replace(/ ([:;!?,.])/g, '$1');
}

const CBT_GAP = 'XXXXX';

/** The Children's Book Test (Hill et al. 2016) as LibMoE scores it: `context`, `choices` and `gold`; questions without ten options are left out. */
registerDocumentStep('cbt', {
  options: z.strictObject({}),
  apply: (rows) =>
    rows.flatMap((row) => {
      const options = textsOf(row, 'options');
      if (options.length !== 10) return [];
      const [before, ...after] = joinTokens(textOf(row, 'question')).split(CBT_GAP);
      if (after.length === 0) return missing(row, 'question', `a text with the gap ${CBT_GAP}`);
      const lines = textsOf(row, 'sentences').map(joinTokens);
      const rest = after.join(CBT_GAP);
      return [
        {
          ...row,
          context: `${[...lines, before].join(' ')}`,
          choices: options.map((option) => option + rest),
          gold: options.indexOf(textOf(row, 'answer')),
        },
      ];
    }),
});

/**
 * CMMMU (Zhang et al. 2024, arXiv 2401.11944): `prompt` with the images' file names as numbered marks, and `pictures`, the images in the order of the marks.
 */
registerDocumentStep('cmmmu', {
  options: z.strictObject({
    /** What stands before the questions of each type (column `type`), and before all others. */
    instructions: z.record(z.string(), z.string()),
    otherwise: z.string(),
    /** The type whose options are listed. */
    choice: z.string(),
  }),
  onlyAsked: true,
  apply: (rows, { instructions, otherwise, choice }) =>
    rows.map((row) => {
      const type = textOf(row, 'type');
      const option = (letter: string, i: number): string => `(${letter}) ${textOf(row, `option${i + 1}`)}\n`;
      const listed = type === choice ? `选项：\n${[...'ABCD'].map(option).join('')}\n` : '';
      const instruction = Object.hasOwn(instructions, type) ? instructions[type]! : otherwise;
      let prompt = `${instruction}\n\n问题：${textOf(row, 'question')}\n${listed}正确答案：\n`;
      for (const n of [1, 2, 3, 4, 5])
        prompt = prompt.replaceAll(`<img="${String(row[`image_${n}_filename`])}">`, `<图片 ${n}>`);
      const pictures = [...prompt.matchAll(/<图片 (\d+)>/g)].map(([, n]) => row[`image_${n}`]);
      return { ...row, prompt, pictures };
    }),
});
