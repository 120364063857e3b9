import { expect } from 'vitest';

/** `count` rows of `width` numbers between −2 and 2, the same every time; with a salt others, without the period of a sine. */
export const waves = (count: number, width = 5, salt = 0): number[] =>
  Array.from(
    { length: count * width },
    (_, i) => 2 * Math.sin(1.7 * i + 0.3 + salt * Math.cos(2.9 * i + salt)),
  );

export const rowsOf = (flat: readonly number[], width: number): number[][] =>
  Array.from({ length: flat.length / width }, (_, r) => flat.slice(r * width, (r + 1) * width));

export const dot = (a: readonly number[], b: readonly number[]): number =>
  a.reduce((sum, x, i) => sum + x * b[i]!, 0);

export const normOf = (a: readonly number[]): number => Math.sqrt(dot(a, a));

/** tokens Wᵀ, row by row. */
export const product = (tokens: readonly number[], w: readonly number[], width: number): number[] =>
  rowsOf(tokens, width).flatMap((t) => rowsOf(w, width).map((row) => dot(row, t)));

/** exp(x) / Σ exp(x). */
export function softmaxOf(row: readonly number[]): number[] {
  const top = Math.max(...row);
  const e = row.map((x) => Math.exp(x - top));
  const z = e.reduce((a, b) => a + b, 0);
  return e.map((x) => x / z);
}

/** Indices of the k largest, best first, ties to the lower one. */
export const best = (row: readonly number[], k: number): number[] =>
  row
    .map((_, i) => i)
    .sort((a, b) => row[b]! - row[a]! || a - b)
    .slice(0, k);

/**
 * Softmax, top k, weights and losses from logits, one token at a time; with `bias`: choice by p + bias, weights a softmax over the chosen sums.
 * `balance(slots)` counts so many choices of each token.
 */
export function softmaxRouting(logits: number[][], k: number, bias?: number[]) {
  const p = logits.map(softmaxOf);
  const shifted = bias ? p.map((row) => row.map((v, i) => v + bias[i]!)) : p;
  const experts = shifted.map((row) => best(row, k));
  const weights = experts.flatMap((chosen, t) => {
    if (bias) return softmaxOf(chosen.map((e) => shifted[t]![e]!));
    const all = chosen.reduce((a, e) => a + p[t]![e]!, 0);
    return chosen.map((e) => p[t]![e]! / all);
  });
  const mean = (e: number) => p.reduce((a, row) => a + row[e]!, 0) / p.length;
  const balance = (slots: number) =>
    p[0]!.reduce((sum, _, e) => {
      const f = experts.flatMap((c) => c.slice(0, slots)).filter((i) => i === e).length / (p.length * slots);
      return sum + p[0]!.length * f * mean(e);
    }, 0);
  const z =
    logits.reduce((a, row) => a + Math.log(row.reduce((s, l) => s + Math.exp(l), 0)) ** 2, 0) / p.length;
  return { experts: experts.flat(), weights, balance, z };
}

export function near(actual: readonly number[], expected: readonly number[], digits = 9): void {
  expect(actual.length).toBe(expected.length);
  actual.forEach((x, i) => {
    expect(x, `element ${i}`).toBeCloseTo(expected[i]!, digits);
  });
}
