/** Fewest insertions, deletions and replacements of code points that turn one text into the other (Levenshtein 1966). */
export function levenshtein(a: string, b: string): number {
  if (a === b) return 0;
  const x = codes(a);
  const y = codes(b);
  if (x.length === 0 || y.length === 0) return Math.max(x.length, y.length);
  const row = Uint32Array.from({ length: y.length + 1 }, (_, j) => j);
  for (let i = 1; i <= x.length; i++) {
    let diagonal = row[0]!;
    row[0] = i;
    const at = x[i - 1];
    for (let j = 1; j <= y.length; j++) {
      const above = row[j]!;
      const replaced = diagonal + (at === y[j - 1] ? 0 : 1);
      const shorter = Math.min(above, row[j - 1]!) + 1;
      row[j] = Math.min(replaced, shorter);
      diagonal = above;
    }
  }
  return row[y.length]!;
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
