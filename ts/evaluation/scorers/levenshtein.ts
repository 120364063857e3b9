/** Rows of the pattern that each code point stands in, as bits; all zero between calls. Untouched pages of it take no memory. */
let rowsOf: Int32Array | undefined;
/** Code points of the texts at hand. Making arrays for every pair would take as long as their distance. */
let codesA = new Int32Array(512);
let codesB = new Int32Array(512);
/** Of each column, how one row differs from the column before it: 1 more, 2 less. */
let steps = new Uint8Array(512);

/**
 * Fewest insertions, deletions and replacements of code points that turn one text into the other (Levenshtein 1966), 32 rows of the table at a time as the
 * bits of a word (Myers 1999, doi 10.1145/316542.316550).
 */
export function levenshtein(a: string, b: string): number {
  if (a === b) return 0;
  const room = Math.max(a.length, b.length);
  if (room > steps.length) {
    codesA = new Int32Array(2 * room);
    codesB = new Int32Array(2 * room);
    steps = new Uint8Array(2 * room);
  }
  const [sizeA, sizeB] = [codes(a, codesA), codes(b, codesB)];
  return sizeA > sizeB ? distance(codesB, sizeB, codesA, sizeA) : distance(codesA, sizeA, codesB, sizeB);
}

function distance(pattern: Int32Array, rows: number, text: Int32Array, columns: number): number {
  if (rows === 0) return columns;
  if (rows <= 64) return within(pattern, rows, text, columns, columns);
  // Texts much alike need only the middle of the table (Ukkonen 1985): a bound on the distance are the replacements alone, a better one the best near the middle.
  const excess = columns - rows;
  let bound = excess;
  for (let i = 0; i < rows; i++) if (pattern[i] !== text[i]) bound++;
  const narrow = excess + (columns >>> 3);
  if (bound > 2 * narrow) {
    const found = within(pattern, rows, text, columns, narrow);
    if (found <= narrow) return found;
    bound = Math.min(bound, found);
  }
  return within(pattern, rows, text, columns, bound);
}

/**
 * The distance, from cells no more than `bound` off the table's main diagonal, which is at least the difference of the lengths: exact where it is up to
 * `bound`, else perhaps too much.
 */
function within(pattern: Int32Array, rows: number, text: Int32Array, columns: number, bound: number): number {
  rowsOf ??= new Int32Array(0x110000);
  // Above the first row, and where nothing is known, each column is one more.
  steps.fill(1, 0, columns);
  let from = 0;
  let result = rows;
  for (let first = 0; first < rows; first += 32) {
    const end = Math.min(first + 32, rows);
    for (; from < first - bound; from++) result += (steps[from]! & 1) - (steps[from]! >>> 1);
    for (let i = first; i < end; i++) rowsOf[pattern[i]!]! |= 1 << (i - first);
    const change = band(text, from, Math.min(columns, end + bound), rowsOf, end - 1 - first, steps);
    for (let i = first; i < end; i++) rowsOf[pattern[i]!] = 0;
    if (end === rows) result += change;
  }
  return result;
}

/** Goes over a part of the text with up to 32 rows; `steps` into its first row become those of its last. Gives how much the last row grows. */
function band(
  text: Int32Array,
  from: number,
  to: number,
  rowsOf: Int32Array,
  last: number,
  steps: Uint8Array,
): number {
  // Bits: where a row is one more, one less than the row above it.
  let more = -1;
  let less = 0;
  let change = 0;
  for (let j = from; j < to; j++) {
    const step = steps[j]!;
    const equal = rowsOf[text[j]!]!;
    const vertical = equal | less;
    const entered = equal | (step >>> 1);
    const diagonal = (((entered & more) + more) ^ more) | entered;
    const up = less | ~(diagonal | more);
    const down = more & diagonal;
    const grown = (up >>> last) & 1;
    const shrunk = (down >>> last) & 1;
    steps[j] = grown | (shrunk << 1);
    change += grown - shrunk;
    const upIn = (up << 1) | (step & 1);
    more = (down << 1) | (step >>> 1) | ~(vertical | upIn);
    less = upIn & vertical;
  }
  return change;
}

/** Writes the code points of a text and gives their number. */
function codes(text: string, into: Int32Array): number {
  let count = 0;
  for (let i = 0; i < text.length; i++) {
    let code = text.charCodeAt(i);
    if ((code & 0xf800) === 0xd800) {
      code = text.codePointAt(i)!;
      if (code > 0xffff) i++;
    }
    into[count++] = code;
  }
  return count;
}
