import { describe, expect, it } from 'vitest';
import { byScheme, type InitScheme, initSchemes } from '../../ts/nn/index.ts';
import { setThreads, threads, zeros } from '../../ts/tensor/index.ts';

function drawn(
  scheme: InitScheme,
  [rows, width]: readonly [number, number],
  std?: number,
  seed = 1,
): number[][] {
  using x = zeros([rows, width], { dtype: 'f64' });
  byScheme(scheme, std)(x, { seed, name: 'x' });
  const values = x.toArray();
  return Array.from({ length: rows }, (_, r) => values.slice(r * width, (r + 1) * width));
}
const product = (a: number[], b: number[]): number => a.reduce((sum, x, i) => sum + x * b[i]!, 0);
const rms = (m: number[][]): number =>
  Math.sqrt(m.flat().reduce((sum, x) => sum + x * x, 0) / m.flat().length);
const turned = (m: number[][]): number[][] => m[0]!.map((_, c) => m.map((row) => row[c]!));

describe('initialisation schemes', () => {
  it.each(initSchemes)(
    '%s has the standard deviation asked for, the same bits for the same seed',
    (scheme) => {
      const before = threads();
      setThreads(1);
      const one = drawn(scheme, [40, 64], 0.05);
      setThreads(2);
      expect(drawn(scheme, [40, 64], 0.05)).toEqual(one);
      setThreads(before);
      expect(drawn(scheme, [40, 64], 0.05, 2)).not.toEqual(one);
      expect(rms(one) / 0.05).toBeCloseTo(1, 1);
      expect(rms(drawn(scheme, [40, 64])) / (3 * 64) ** -0.5).toBeCloseTo(1, 1);
    },
  );

  it('orthogonal: rows, or columns where there are more rows, at right angles and of one norm', () => {
    for (const size of [
      [5, 24],
      [24, 5],
    ] as const) {
      const m = drawn('orthogonal', size, 0.1);
      const vectors = size[0] < size[1] ? m : turned(m);
      expect(rms(m)).toBeCloseTo(0.1, 12);
      for (const [i, a] of vectors.entries())
        for (const [j, b] of vectors.entries())
          expect(product(a, b)).toBeCloseTo(i === j ? 0.01 * 24 : 0, 10);
    }
  });

  it('equal-norm: every row has the norm std · √width', () => {
    for (const row of drawn('equal-norm', [7, 24], 0.1))
      expect(Math.sqrt(product(row, row))).toBeCloseTo(0.1 * Math.sqrt(24), 12);
    const norms = drawn('normal', [7, 24], 0.1).map((row) => Math.sqrt(product(row, row)));
    expect(Math.max(...norms) - Math.min(...norms)).toBeGreaterThan(0.02);
  });

  it('kaiming-uniform: within √3 · std, by default within 1/√width', () => {
    const most = (m: number[][]): number => Math.max(...m.flat().map(Math.abs));
    const given = most(drawn('kaiming-uniform', [40, 64], 0.1));
    expect(given).toBeLessThanOrEqual(Math.sqrt(3) * 0.1);
    expect(given).toBeGreaterThan(0.99 * Math.sqrt(3) * 0.1);
    const usual = most(drawn('kaiming-uniform', [40, 64]));
    expect(usual).toBeLessThanOrEqual(1 / 8);
    expect(usual).toBeGreaterThan(0.99 / 8);
  });
});
