import { describe, expect, it } from 'vitest';
import {
  bootstrapInterval,
  bootstrapStandardError,
  clusteredStandardError,
  exactSum,
  groupStandardError,
  mean,
  meanStandardError,
  quantile,
  standardDeviation,
} from '../../ts/evaluation/index.ts';

describe('exact sums', () => {
  it('round once, whatever the order (Python: math.fsum)', () => {
    const values = [1e16, 1, -1e16, 1e-3, 3.3, 1e16, 1, -1e16, 1e-3, 3.3, 1e16, 1, -1e16, 1e-3, 3.3];
    expect(exactSum(values)).toBe(12.902999999999999);
    expect(exactSum(values.toReversed())).toBe(12.902999999999999);
    expect(values.reduce((a, b) => a + b)).not.toBe(12.902999999999999);
    expect(exactSum([])).toBe(0);
    expect(exactSum(Array(10).fill(0.1))).toBe(1);
  });
  it('keep infinities and NaN', () => {
    expect(exactSum([1, Number.POSITIVE_INFINITY])).toBe(Number.POSITIVE_INFINITY);
    expect(exactSum([Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY])).toBeNaN();
    expect(exactSum([Number.NaN, 1])).toBeNaN();
  });
});

describe('standard errors (§1.10)', () => {
  const sixty = [...Array(12).fill(1), ...Array(48).fill(0)] as number[];

  it('of a mean: .2 over 60 items is ± .0521', () => {
    expect(mean(sixty)).toBe(0.2);
    expect(meanStandardError(sixty)).toBeCloseTo(0.05207556439232955, 14);
  });
  it('of 17 right of 60 is ± .0587, the other number of the verified run', () => {
    const values = [...Array(17).fill(1), ...Array(43).fill(0)] as number[];
    expect(mean(values).toFixed(4)).toBe('0.2833');
    expect(meanStandardError(values).toFixed(4)).toBe('0.0587');
  });
  it('of clusters: each row its own cluster changes nothing, equal rows in a cluster count once', () => {
    const values = [1, 0, 1, 1, 0, 0];
    expect(clusteredStandardError(values, [0, 1, 2, 3, 4, 5])).toBeCloseTo(meanStandardError(values), 14);
    const doubled = values.flatMap((x) => [x, x]);
    const clustered = clusteredStandardError(
      doubled,
      values.flatMap((_, i) => [i, i]),
    );
    expect(clustered).toBeGreaterThan(1.3 * meanStandardError(doubled));
    expect(() => clusteredStandardError([1, 2], [1])).toThrow('ERR_LIBMOE_ARGUMENT');
  });
  it('of groups, pooled by size or plain', () => {
    // By hand: (9·10·.01 + 19·20·.04) / (30 − 2) = 16.1/28, over 30, rooted.
    expect(groupStandardError([0.1, 0.2], [10, 20])).toBeCloseTo(Math.sqrt(16.1 / 28 / 30), 14);
    expect(groupStandardError([0.1, 0.2], [10, 20], false)).toBeCloseTo(Math.sqrt(0.05) / 2, 14);
    expect(() => groupStandardError([], [])).toThrow('ERR_LIBMOE_ARGUMENT');
  });
  it('by bootstrap: the draws of lm-eval, chunk i from Random(i)', async () => {
    const sums = [-1.0, -2.5, -0.3, -4.0, -1.7];
    const perplexity = (drawn: Int32Array): number =>
      Math.exp(-drawn.reduce((total, i) => total + sums[i]!, 0) / drawn.length);
    expect(await bootstrapStandardError(5, perplexity, 2000)).toBeCloseTo(5.167112008453081, 11); // from Python
    expect(await bootstrapStandardError(1, perplexity, 2000)).toBeNaN();
  });
});

describe('intervals', () => {
  it('cover the true mean about as often as they say', () => {
    let covered = 0;
    for (let trial = 0; trial < 200; trial++) {
      // Sums of sines: mean 0, no generator of ours involved.
      const values = Array.from(
        { length: 40 },
        (_, i) => Math.sin(1 + trial * 1.7 + i * (2.399 + trial * 0.013)) * 2,
      );
      const statistic = (drawn: Int32Array): number =>
        drawn.reduce((sum, i) => sum + values[i]!, 0) / drawn.length;
      const { low, high } = bootstrapInterval(40, statistic, { resamples: 400 });
      if (low < 0.05 && high > -0.05) covered++;
    }
    expect(covered).toBeGreaterThan(180);
  });
  it('are the same for the same seed and differ for another', () => {
    const values = [1, 2, 4, 8, 16];
    const statistic = (drawn: Int32Array): number => drawn.reduce((sum, i) => sum + values[i]!, 0);
    const one = bootstrapInterval(5, statistic, { resamples: 500, seed: 3 });
    expect(bootstrapInterval(5, statistic, { resamples: 500, seed: 3 }).samples).toEqual(one.samples);
    expect(bootstrapInterval(5, statistic, { resamples: 500, seed: 4 }).samples).not.toEqual(one.samples);
    expect(one.value).toBe(31);
  });
  it('refuse nonsense', () => {
    expect(() => bootstrapInterval(0, () => 0)).toThrow('at least one document');
    expect(() => bootstrapInterval(3, () => 0, { confidence: 1 })).toThrow('confidence');
    expect(() => bootstrapInterval(3, () => 0, { resamples: 0 })).toThrow('resamples');
  });
  it('interpolate quantiles as NumPy', () => {
    expect(quantile([1, 2, 4, 8], 0.5)).toBe(3);
    expect(quantile([1, 2, 4, 8], 0.9)).toBeCloseTo(6.8, 12);
    expect(quantile([], 0.5)).toBeNaN();
    expect(standardDeviation([2, 4, 4, 4, 5, 5, 7, 9])).toBeCloseTo(2.138089935299395, 14);
  });
});
