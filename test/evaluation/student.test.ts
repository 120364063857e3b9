import { describe, expect, it } from 'vitest';
import { pairedTTest, studentInterval, studentQuantile, studentTwoSided } from '../../ts/evaluation/index.ts';

describe("Student's distribution", () => {
  // From the tables.
  it.each([
    [0.95, 1, 12.706204736432095],
    [0.95, 2, 4.302652729696144],
    [0.95, 9, 2.2621571627409915],
    [0.99, 4, 4.604094871415898],
    [0.9, 200, 1.6525081009697022],
  ])('has its quantile: %f with %i degrees of freedom', (confidence, degrees, t) => {
    expect(studentQuantile(confidence, degrees)).toBeCloseTo(t, 9);
  });

  // The last two by the closed form for 3 degrees of freedom and by integrating the density.
  it.each([
    [2, 5, 0.10193947526083068],
    [1, 1, 0.5],
    [-1, 1, 0.5],
    [0, 3, 1],
    [40, 3, 3.438068078909229e-5],
    [0.1, 50, 0.9207442136529701],
  ])('has its tails: |t| ≥ %f with %i degrees of freedom', (t, degrees, p) => {
    expect(Math.abs(studentTwoSided(t, degrees) / p - 1)).toBeLessThan(1e-6);
  });

  it('gives intervals of means, none for a single value', () => {
    // s = 1, n = 3: 4.302653 / √3
    const { value, low, high } = studentInterval([4, 5, 6]);
    expect([value, low, high].map((x) => x.toFixed(5))).toEqual(['5.00000', '2.51586', '7.48414']);
    expect(studentInterval([3])).toEqual({ value: 3, low: Number.NaN, high: Number.NaN });
  });

  it('tests pairs', () => {
    // differences 1, 0, 2: mean 1, s 1, t = √3
    const test = pairedTTest([1, 2, 3], [0, 2, 1]);
    expect(test).toMatchObject({ pairs: 3, difference: { value: 1 } });
    expect(test.t).toBeCloseTo(Math.sqrt(3), 12);
    expect(test.p).toBeCloseTo(0.2254033307585166, 9);
    expect(pairedTTest([1, 2], [0, 1])).toMatchObject({ t: Number.NaN, p: Number.NaN });
    expect(() => pairedTTest([1], [1, 2])).toThrow(/ERR_LIBMOE_ARGUMENT.*1 and 2/);
  });
});
