/**
 * The similarity of Python's difflib (Ratcliff & Obershelp): 2 M / (|a| + |b|), M the characters in the longest common
 * run and, left and right of it, in the longest common runs there. From 200 characters on, characters that make more
 * than 1 % of `b` start no run, as in Python.
 */
export function sequenceRatio(a: string, b: string): number {
  const x = [...a];
  const y = [...b];
  if (x.length + y.length === 0) return 1;
  const places = new Map<string, number[]>();
  for (const [j, c] of y.entries()) {
    const known = places.get(c);
    if (known === undefined) places.set(c, [j]);
    else known.push(j);
  }
  if (y.length >= 200) {
    const most = Math.floor(y.length / 100) + 1;
    for (const [c, at] of places) if (at.length > most) places.delete(c);
  }
  let matched = 0;
  const open: [number, number, number, number][] = [[0, x.length, 0, y.length]];
  for (let range = open.pop(); range !== undefined; range = open.pop()) {
    const [aFrom, aTo, bFrom, bTo] = range;
    const [i, j, size] = longestRun(x, y, places, range);
    if (size === 0) continue;
    matched += size;
    if (aFrom < i && bFrom < j) open.push([aFrom, i, bFrom, j]);
    if (i + size < aTo && j + size < bTo) open.push([i + size, aTo, j + size, bTo]);
  }
  return (2 * matched) / (x.length + y.length);
}

function longestRun(
  x: readonly string[],
  y: readonly string[],
  places: ReadonlyMap<string, readonly number[]>,
  [aFrom, aTo, bFrom, bTo]: readonly [number, number, number, number],
): [number, number, number] {
  let [bestI, bestJ, size] = [aFrom, bFrom, 0];
  let ending = new Map<number, number>();
  for (let i = aFrom; i < aTo; i++) {
    const next = new Map<number, number>();
    for (const j of places.get(x[i]!) ?? []) {
      if (j < bFrom) continue;
      if (j >= bTo) break;
      const length = (ending.get(j - 1) ?? 0) + 1;
      next.set(j, length);
      if (length > size) [bestI, bestJ, size] = [i - length + 1, j - length + 1, length];
    }
    ending = next;
  }
  // Frequent characters start no run, but one that touches it belongs to it.
  while (bestI > aFrom && bestJ > bFrom && x[bestI - 1] === y[bestJ - 1])
    [bestI, bestJ, size] = [bestI - 1, bestJ - 1, size + 1];
  while (bestI + size < aTo && bestJ + size < bTo && x[bestI + size] === y[bestJ + size]) size += 1;
  return [bestI, bestJ, size];
}
