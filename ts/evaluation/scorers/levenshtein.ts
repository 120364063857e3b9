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
  rowsOf ??= new Int32Array(0x110000);
  // What a row less the one left of it is at each column; above the first row one more each.
  const steps = pattern.length > 32 ? new Int8Array(text.length).fill(1) : undefined;
  let distance = pattern.length;
  for (let first = 0; first < pattern.length; first += 32) {
    const rows = Math.min(32, pattern.length - first);
    for (let i = 0; i < rows; i++) rowsOf[pattern[first + i]!]! |= 1 << i;
    const change = band(text, rowsOf, rows - 1, steps);
    if (first + rows === pattern.length) distance += change;
    for (let i = 0; i < rows; i++) rowsOf[pattern[first + i]!] = 0;
  }
  return distance;
}

/** Goes over the text with up to 32 rows; `steps` into its first row become those of its last. Gives their sum. */
function band(text: Int32Array, rowsOf: Int32Array, last: number, steps: Int8Array | undefined): number {
  // Bits: where a row is one more, one less than the row above it.
  let more = -1;
  let less = 0;
  let change = 0;
  for (let j = 0; j < text.length; j++) {
    const step = steps === undefined ? 1 : steps[j]!;
    let equal = rowsOf[text[j]!]!;
    const vertical = equal | less;
    if (step < 0) equal |= 1;
    const diagonal = (((equal & more) + more) ^ more) | equal;
    let up = less | ~(diagonal | more);
    let down = more & diagonal;
    const out = ((up >>> last) & 1) - ((down >>> last) & 1);
    if (steps !== undefined) steps[j] = out;
    change += out;
    up = (up << 1) | (step > 0 ? 1 : 0);
    down = (down << 1) | (step < 0 ? 1 : 0);
    more = down | ~(vertical | up);
    less = up & vertical;
  }
  return change;
}

function codes(text: string): Int32Array {
  const out = new Int32Array(text.length);
  let count = 0;
  for (let i = 0; i < text.length; i++) {
    const code = text.codePointAt(i)!;
    if (code > 0xffff) i++;
    out[count++] = code;
  }
  return out.subarray(0, count);
}
