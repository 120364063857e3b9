/**
 * Text operations with the semantics of the Python scorers whose numbers we reproduce.
 * JavaScript's own differ in small ways that each change at least one published score.
 */

// Python's str.isspace set: it has U+001C–001F and U+0085, which trim() lacks, and not U+FEFF, which trim() removes.
const SPACE = '[\\t-\\r\\x1c-\\x20\\x85\\xa0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000]';
const LEADING = new RegExp(`^${SPACE}+`, 'u');
const TRAILING = new RegExp(`${SPACE}+$`, 'u');
const RUN = new RegExp(`${SPACE}+`, 'u');

/** `str.lstrip()` */
export function stripStart(text: string): string {
  return text.replace(LEADING, '');
}

/** `str.rstrip()` */
export function stripEnd(text: string): string {
  return text.replace(TRAILING, '');
}

/** `str.strip()` */
export function strip(text: string): string {
  return stripEnd(stripStart(text));
}

/** `str.capitalize()`: the first code point upper, the rest **lower**. */
export function capitalize(text: string): string {
  const [first = '', ...rest] = text;
  return first.toUpperCase() + rest.join('').toLowerCase();
}

/** `len(re.split(r"\s+", text))`: the word count of lm-eval's perplexities; an empty text counts as one word. */
export function wordCount(text: string): number {
  return text.split(RUN).length;
}

/** `len(text)`: code points, not UTF-16 units. */
export function codePoints(text: string): number {
  let count = 0;
  for (const _ of text) count++;
  return count;
}

/** `len(text.encode("utf-8"))` */
export function utf8Bytes(text: string): number {
  return Buffer.byteLength(text, 'utf8');
}
