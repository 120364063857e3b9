/**
 * Text operations with the semantics of the Python scorers whose numbers we reproduce.
 * JavaScript's own differ in small ways that each change at least one published score.
 */

// Python's str.isspace set: it has U+001C–001F and U+0085, which trim() lacks, and not U+FEFF, which trim() removes.
const SPACE = '[\\t-\\r\\x1c-\\x20\\x85\\xa0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000]';
const RUN = new RegExp(`${SPACE}+`, 'u');

function isSpace(unit: number): boolean {
  if (unit <= 0x20) return unit >= 0x1c || (unit >= 0x09 && unit <= 0x0d);
  if (unit < 0x85) return false;
  return (
    unit === 0x85 ||
    unit === 0xa0 ||
    unit === 0x1680 ||
    (unit >= 0x2000 && unit <= 0x200a) ||
    unit === 0x2028 ||
    unit === 0x2029 ||
    unit === 0x202f ||
    unit === 0x205f ||
    unit === 0x3000
  );
}

/** `str.lstrip()` */
export function stripStart(text: string): string {
  let from = 0;
  while (from < text.length && isSpace(text.charCodeAt(from))) from++;
  return text.slice(from);
}

/** `str.rstrip()` */
export function stripEnd(text: string): string {
  let to = text.length;
  while (to > 0 && isSpace(text.charCodeAt(to - 1))) to--;
  return text.slice(0, to);
}

/** `str.strip()` */
export function strip(text: string): string {
  return stripEnd(stripStart(text));
}

/** `str.strip(characters)` takes these characters off both ends, in whatever order they stand. */
export function stripOf(text: string, characters: string): string {
  let from = 0;
  let to = text.length;
  while (from < to && characters.includes(text[from]!)) from++;
  while (to > from && characters.includes(text[to - 1]!)) to--;
  return text.slice(from, to);
}

/** `str.split()`: words between runs of white space, no empty ones. */
export function splitWords(text: string): string[] {
  const words: string[] = [];
  let start = -1;
  for (let i = 0; i < text.length; i++) {
    if (isSpace(text.charCodeAt(i))) {
      if (start >= 0) words.push(text.slice(start, i));
      start = -1;
    } else if (start < 0) start = i;
  }
  if (start >= 0) words.push(text.slice(start));
  return words;
}

/** `str.capitalize()`: the first code point upper (of ß only its first letter), the rest **lower**. */
export function capitalize(text: string): string {
  const [first = '', ...rest] = text;
  const [upper = '', ...tail] = first.toUpperCase();
  return upper + tail.join('').toLowerCase() + rest.join('').toLowerCase();
}

/** `string.punctuation`: the 32 marks of ASCII, as a regular expression. `\p{P}` would take more. */
export const punctuation = /[!-/:-@[-`{-~]/g;

/** Sources of Python's `\d`, `\w` and `\b`, which know all of Unicode; for regular expressions with the flag `u`. */
export const pythonClasses = {
  digit: '\\p{Nd}',
  word: '[\\p{L}\\p{N}_]',
  boundary: '(?:(?<=[\\p{L}\\p{N}_])(?![\\p{L}\\p{N}_])|(?<![\\p{L}\\p{N}_])(?=[\\p{L}\\p{N}_]))',
} as const;

/** `len(re.split(r"\s+", text))`: the word count of lm-eval's perplexities; an empty text counts as one word. */
export function wordCount(text: string): number {
  return text.split(RUN).length;
}

/** `len(text)`: code points, not UTF-16 units. */
export function codePoints(text: string): number {
  let count = text.length;
  for (let i = 1; i < text.length; i++)
    if ((text.charCodeAt(i) & 0xfc00) === 0xdc00 && (text.charCodeAt(i - 1) & 0xfc00) === 0xd800) count--;
  return count;
}

/** `len(text.encode("utf-8"))` */
export function utf8Bytes(text: string): number {
  return Buffer.byteLength(text, 'utf8');
}
