import { pythonClasses, splitWords, strip, stripOf } from '../python-text.ts';
import { reads } from './choice-letters.ts';

const MMBENCH_DRESS: readonly (readonly [string, string])[] = [
  ['', '.'],
  ['', ','],
  ['', ':'],
  ['', ')'],
  ['', ').'],
  ['(', ')'],
  ['(', ').'],
  [':', ''],
  [':', ','],
  [':', '.'],
  [':', ')'],
  [':', ').'],
];
const A_TO_E = ['A', 'B', 'C', 'D', 'E'];

/**
 * MMBench without its judge (Liu et al. 2023, arXiv 2307.06281): one letter among the words, in one of thirteen dresses; else one option
 * whose text is contained.
 * @param texts letter → text of the options there are
 */
export function inferMmBench(response: string, texts: Readonly<Record<string, string>>): string | null {
  const words = new Set(splitWords(response));
  const count = splitWords(response).length;
  const bare = A_TO_E.filter((letter) => words.has(letter));
  // An "A" in a sentence may be the article.
  if (bare.length === 1 && !(bare[0] === 'A' && count > 3)) return bare[0]!;
  for (const [before, after] of MMBENCH_DRESS) {
    const found = A_TO_E.filter((letter) => words.has(before + letter + after));
    if (found.length === 1) return found[0]!;
  }
  const lower = response.toLowerCase();
  const contained = Object.entries(texts).filter(([, text]) => lower.includes(text.toLowerCase()));
  return contained.length === 1 ? contained[0]![0] : null;
}

/** See {@link inferMmBench}. */
export const mmBench = reads((response, { letters, texts }) =>
  inferMmBench(response, Object.fromEntries(texts.map((text, i) => [letters[i]!, text]))),
);

/** Each mark in turn off both ends: not the same as all marks at once. */
function trimmedOfMarks(response: string): string {
  let text = response;
  for (const mark of [',', '.', '!', '?', ';', ':', "'"]) text = stripOf(text, mark);
  return text;
}

/** MMMU's parser of letters (Yue et al. 2023, arXiv 2311.16502); of several candidates the one that occurs last. */
export function parseMmmuChoice(
  response: string,
  letters: readonly string[],
  texts: readonly string[],
): string | null {
  const text = ` ${trimmedOfMarks(response)} `;
  const lower = text.toLowerCase();
  const positions = letters.map((_, i) => i);
  let last = (i: number): number => text.lastIndexOf(`(${letters[i]})`);
  let found = positions.filter((i) => text.includes(`(${letters[i]})`));
  if (found.length === 0) {
    last = (i) => text.lastIndexOf(` ${letters[i]} `);
    found = positions.filter((i) => text.includes(`${letters[i]} `));
    if (found.length === 0) found = positions.filter((i) => text.includes(`${letters[i]}.`));
  }
  if (found.length === 0 && splitWords(text).length > 5) {
    last = (i) => lower.lastIndexOf(texts[i]!.toLowerCase());
    found = positions.filter((i) => texts[i] !== undefined && lower.includes(texts[i].toLowerCase()));
  }
  let best = found[0];
  if (best === undefined) return null;
  for (const i of found) if (last(i) > last(best)) best = i;
  return letters[best]!;
}

/** See {@link parseMmmuChoice}. */
export const mmmu = reads((response, { letters, texts }) => parseMmmuChoice(response, letters, texts));

function occurrences(text: string, part: string): number {
  return part === '' ? [...text].length + 1 : text.split(part).length - 1;
}

const bracketedAF = /\(([A-F])\)/g;
const standaloneAF = new RegExp(`${pythonClasses.boundary}([A-F])${pythonClasses.boundary}`, 'gu');

/** II-Bench (Liu et al. 2024, arXiv 2406.05862): the letter named most often, in brackets if any is, of equals the one named last for the first time. */
export const iiBench = reads((response, { letters, texts }) => {
  let named = [...response.matchAll(bracketedAF)].map((match) => match[1]!);
  if (named.length === 0) named = [...response.matchAll(standaloneAF)].map((match) => match[1]!);
  if (named.length === 0)
    named = letters.filter((_, i) => {
      const text = texts[i] ?? '';
      return response.includes(strip(text)) || text.includes(response);
    });
  const counts = new Map<string, number>();
  for (const letter of named) counts.set(letter, (counts.get(letter) ?? 0) + 1);
  const most = Math.max(0, ...counts.values());
  return [...counts].findLast(([, count]) => count === most)?.[0] ?? null;
});

/** CMMMU: several options may be right; those named most often, in order (Zhang et al. 2024, arXiv 2401.11944). */
export const cmmmu = reads((response, { letters, texts }) => {
  const text = ` ${trimmedOfMarks(response)} `;
  for (const wanted of [letters.map((letter) => `(${letter})`), letters, texts]) {
    const counts = wanted.map((part) => occurrences(text, part));
    const most = Math.max(0, ...counts);
    if (most > 0) return letters.filter((_, i) => counts[i] === most).join('');
  }
  return null;
});
