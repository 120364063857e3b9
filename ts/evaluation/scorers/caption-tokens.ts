import { isBlank } from './white-space.ts';

/** Names the rules below in results: numbers of another tokenizer differ in rare strings. */
export const captionTokenizer = 'libmoe-ptb-1';

const SPLIT = new Map([
  ['cannot', ['can', 'not']],
  ['gonna', ['gon', 'na']],
  ['gotta', ['got', 'ta']],
  ['wanna', ['wan', 'na']],
  ['lemme', ['lem', 'me']],
  ['gimme', ['gim', 'me']],
]);
const ABBREVIATION =
  /^(?:(?:\p{L}\.)+\p{L}?\.?|(?:mr|mrs|ms|dr|st|jr|sr|vs|prof|etc|no|inc|ltd|co|corp|ave|mt)\.)$/u;
// A number, a word with inner hyphens, periods, slashes or apostrophes, or any other character alone.
const PIECE =
  /[+-]?\p{Nd}+(?:[.,:/]\p{Nd}+)*(?:\p{L}[\p{L}\p{N}-]*)?|[\p{L}\p{N}_]+(?:[-./'&@][\p{L}\p{N}_]+)*\.?|\.{3}|-{2,}|'[\p{L}]+|\S/gu;
const FANCY = /[’‘“”–—…]/;
const CONTRACTION = /^(.+?)(n't|'(?:s|re|ve|ll|d|m))$/;
// Dropped after a word.
const MARKS = new Set('.?!,:;');
const PUNCTUATION = /^(?:''|'|``|`|"|[()[\]{}.?!,:;]|-+|\.\.\.)$/;

/**
 * Words of a caption in the manner of the Penn Treebank tokenizer that COCO's tools use, lower-cased and without
 * punctuation: contractions are split, inner hyphens and decimals stay.
 */
export function captionTokens(text: string): string[] {
  const lower = text.toLowerCase();
  const plain = FANCY.test(lower)
    ? lower.replace(/[’‘]/g, "'").replace(/[“”]/g, '"').replace(/[–—]/g, '--').replaceAll('…', '...')
    : lower;
  const tokens: string[] = [];
  for (let i = 0; i < plain.length; i++) {
    const from = i;
    while (i < plain.length && isLetter(plain.charCodeAt(i))) i++;
    const letters = i;
    while (i < plain.length && !isBlank(plain.charCodeAt(i))) i++;
    if (from === i) continue;
    const word = plain.slice(from, letters);
    if (!isPlain(word, plain.slice(letters, i))) pieces(plain.slice(from, i), tokens);
    else if (SPLIT.has(word)) tokens.push(...SPLIT.get(word)!);
    else tokens.push(word);
  }
  return tokens;
}

/** Whether the rules only take off what stands between letters and the next white space. */
function isPlain(letters: string, rest: string): boolean {
  if (rest === '') return true;
  return letters !== '' && MARKS.has(rest) && (rest !== '.' || !ABBREVIATION.test(`${letters}.`));
}

const isLetter = (code: number): boolean => code >= 97 && code <= 122;

/** The words of a part of a text without white space, which no rule looks beyond. */
function pieces(chunk: string, tokens: string[]): void {
  for (const [piece] of chunk.matchAll(PIECE)) {
    if (PUNCTUATION.test(piece)) continue;
    const word = piece.endsWith('.') && !ABBREVIATION.test(piece) ? piece.replace(/\.+$/, '') : piece;
    if (word === '') continue;
    const known = SPLIT.get(word);
    const contraction = word.includes("'") ? CONTRACTION.exec(word) : null;
    if (known !== undefined) tokens.push(...known);
    else if (contraction !== null) tokens.push(contraction[1]!, contraction[2]!);
    else tokens.push(word);
  }
}
