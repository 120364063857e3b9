import { z } from 'zod';
import { pyFloat } from '../python-number.ts';
import { strip, stripOf } from '../python-text.ts';
import { optionalColumn } from './columns.ts';
import { latexNumber } from './latex-number.ts';
import { registerScorer, targetTexts } from './scorer.ts';

/** Contents of every `\boxed{…}`; undefined where a brace is not closed. */
function boxed(text: string): string[] | undefined {
  const found: string[] = [];
  for (const match of text.matchAll(/\\boxed\{/g)) {
    const from = match.index + match[0].length;
    let depth = 1;
    let at = from;
    for (; depth > 0 && at < text.length; at++) depth += text[at] === '{' ? 1 : text[at] === '}' ? -1 : 0;
    if (depth > 0) return undefined;
    found.push(text.slice(from, at - 1));
  }
  return found;
}

/** The final expression: what is boxed, else the formulas of the last line, else all of it. */
function finalExpression(text: string): string | undefined {
  const inBoxes = boxed(text);
  if (inBoxes === undefined) return undefined;
  if (inBoxes.length > 0) return inBoxes.join(',');
  const last = strip(text).split('\n').at(-1)!;
  const formulas = [...last.matchAll(/\$(.*?)\$/g)].map(([, formula]) => formula!);
  return formulas.length > 0 ? formulas.join(',') : text;
}

const REPLACED: readonly (readonly [string, string])[] = [
  ['\\left', ''],
  ['\\right', ''],
  ['∶', ':'],
  ['，', ','],
  ['$', ''],
  ['\\approx', '='],
  ['\\simeq', '='],
  ['\\sim', '='],
  ['^\\prime', "'"],
  ['^{\\prime}', "'"],
  ['^\\circ', ''],
  ['%', ''],
];

function plain(expression: string): string {
  let text = expression.split('\\in ')[1] ?? expression;
  for (const [from, to] of REPLACED) text = text.replaceAll(from, to);
  return stripOf(text, '\n$,.:;^_=+`!@#%&*~，。').replace(/\\(?:mathrm|mathbf)\{~?([^}]*)\}/g, '$1');
}

/** Parts between commas outside of brackets, each ± as two. */
function parts(expression: string): string[] {
  const found: string[] = [];
  let depth = 0;
  let part = '';
  for (const c of expression.replace(/[\u4e00-\u9fff]+/g, '')) {
    if (c === ',' && depth === 0) {
      found.push(strip(part));
      part = '';
      continue;
    }
    if (c === '(' || c === '[') depth += 1;
    else if (c === ')' || c === ']') depth -= 1;
    part += c;
  }
  found.push(strip(part));
  return found
    .filter((text) => text !== '')
    .flatMap((text) =>
      text.includes('\\pm') ? [text.replaceAll('\\pm', '+'), text.replaceAll('\\pm', '-')] : [text],
    );
}

const numberOf = (text: string): number | undefined =>
  pyFloat(text) ?? latexNumber(strip(text.split('=').at(-1)!));

/** Whether two parts are equal; undefined where that takes algebra. */
function equalParts(gold: string, said: string, precision: number): boolean | undefined {
  if (gold === said) return true;
  const tight = (text: string): string => text.replace(/\s+/g, '').replace(/\\[dt]frac/g, '\\frac');
  if (tight(gold) === tight(said)) return true;
  const [wanted, number] = [numberOf(gold), numberOf(said)];
  if (wanted === undefined || number === undefined) return undefined;
  // A percentage may be written either way.
  return [wanted / 100, wanted, wanted * 100].some((x) => Math.abs(x - number) <= precision * 1.01);
}

/** Whether a response's final expression equals the gold one, part by part in any order; undefined where that takes algebra. */
export function mathEqual(response: string, gold: string, precision = 1e-8): boolean | undefined {
  const [x, y] = [finalExpression(gold), finalExpression(response)];
  if (x === undefined || y === undefined) return false;
  const [wanted, said] = [plain(x), plain(y)];
  if (wanted === said) return true;
  const left = parts(said);
  const golds = parts(wanted);
  if (golds.length !== left.length) return false;
  let undecided = false;
  for (const part of golds) {
    const verdicts = left.map((other) => equalParts(part, other, precision));
    const at = verdicts.indexOf(true);
    if (at >= 0) left.splice(at, 1);
    else if (verdicts.includes(undefined)) undecided = true;
    else return false;
  }
  return undecided ? undefined : true;
}

/**
 * OlympiadBench (He et al. 2024, arXiv 2402.14008) without its algebra system: equality of texts and of numbers. What
 * takes algebra counts as wrong; `decided` says for how many documents it did not. Metrics `acc`, `decided`.
 */
registerScorer('math_equal', {
  options: z.strictObject({
    /** The column with the error allowed; empty or null: 1e-8. */
    precision: z.string().optional(),
  }),
  score: (response, { doc, target }, { precision: name }) => {
    const given = name === undefined ? undefined : optionalColumn(doc, name);
    const precision = (given === undefined || given === null ? null : pyFloat(String(given))) ?? 1e-8;
    const verdicts = targetTexts(target).map((gold) => mathEqual(response, gold, precision));
    const right = verdicts.includes(true);
    const said = finalExpression(response);
    return {
      values: { acc: Number(right), decided: Number(right || !verdicts.includes(undefined)) },
      parsed: said === undefined || said === '' ? null : plain(said),
    };
  },
});
