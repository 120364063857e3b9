/** Rows of the pattern that each code point stands in, as bits; all zero between calls. Untouched pages of it take no memory. */
let rowsOf: Int32Array | undefined;

/**
 * Fewest insertions, deletions and replacements of code points that turn one text into the other (Levenshtein 1966), 32 rows of the table at a time as the
 * bits of a word (Myers 1999, doi 10.1145/316542.316550).
 */
export function levenshtein(a: string, b: string): number {
  if (a === b) return 0;
  let [pattern, text] = [codes(a), codes(b)];
  if (pattern.length > text.length) [pattern, text] = [text, pattern];
  if (pattern.length === 0) return text.length;
  if (pattern.length <= 64) return within(pattern, text, text.length);
  // Texts much alike need only the middle of the table: any way through it bounds the distance, first that of replacements alone, then the best near the middle.
  const excess = text.length - pattern.length;
  let bound = excess;
  for (let i = 0; i < pattern.length; i++) if (pattern[i] !== text[i]) bound++;
  const narrow = excess + (text.length >>> 3);
  if (bound > 2 * narrow) {
    const found = within(pattern, text, narrow);
    if (found <= narrow) return found;
    bound = Math.min(bound, found);
  }
  return within(pattern, text, bound);
}

/**
 * The distance, from cells no more than `bound` off the table's main diagonal, which is at least the difference of the lengths: exact where it is up to
 * `bound`, else perhaps too much.
 */
function within(pattern: Int32Array, text: Int32Array, bound: number): number {
  rowsOf ??= new Int32Array(0x110000);
  // Of each column, how one row differs from the column before it: 1 more, 2 less. Above the first row, and where nothing is known, it is one more.
  const steps = pattern.length > 32 ? new Uint8Array(text.length).fill(1) : undefined;
  let from = 0;
  let distance = 0;
  for (let first = 0; first < pattern.length; first += 32) {
    const rows = Math.min(32, pattern.length - first);
    for (; from < first - bound; from++) distance += (steps![from]! & 1) - (steps![from]! >>> 1);
    for (let i = 0; i < rows; i++) rowsOf[pattern[first + i]!]! |= 1 << i;
    const change = band(text, from, Math.min(text.length, first + rows + bound), rowsOf, rows - 1, steps);
    for (let i = 0; i < rows; i++) rowsOf[pattern[first + i]!] = 0;
    distance += rows;
    if (first + rows === pattern.length) distance += change;
  }
  return distance;
}

/** Goes over a part of the text with up to 32 rows; `steps` into its first row become those of its last. Gives how much the last row grows. */
function band(
  text: Int32Array,
  from: number,
  to: number,
  rowsOf: Int32Array,
  last: number,
  steps: Uint8Array | undefined,
): number {
  // Bits: where a row is one more, one less than the row above it.
  let more = -1;
  let less = 0;
  let change = 0;
  for (let j = from; j < to; j++) {
    const step = steps === undefined ? 1 : steps[j]!;
    const equal = rowsOf[text[j]!]!;
    const vertical = equal | less;
    const entered = equal | (step >>> 1);
    const diagonal = (((entered & more) + more) ^ more) | entered;
    const up = less | ~(diagonal | more);
    const down = more & diagonal;
    const grown = (up >>> last) & 1;
    const shrunk = (down >>> last) & 1;
    if (steps !== undefined) steps[j] = grown | (shrunk << 1);
    change += grown - shrunk;
    const upIn = (up << 1) | (step & 1);
    more = (down << 1) | (step >>> 1) | ~(vertical | upIn);
    less = upIn & vertical;
  }
  return change;
}

function codes(text: string): Int32Array {
  const out = new Int32Array(text.length);
  let count = 0;
  for (let i = 0; i < text.length; i++) {
    let code = text.charCodeAt(i);
    if ((code & 0xf800) === 0xd800) {
      code = text.codePointAt(i)!;
      if (code > 0xffff) i++;
    }
    out[count++] = code;
  }
  return out.subarray(0, count);
}
