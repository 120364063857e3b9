import { fail } from '../native/index.ts';
import { MersenneTwister } from './mersenne.ts';

/**
 * The sum of `values` rounded once (Shewchuk 1997, as Python's `math.fsum`), so that a mean does not depend on the order
 * in which documents finished.
 */
export function exactSum(values: Iterable<number>): number {
  const partials: number[] = [];
  let special = 0;
  for (let x of values) {
    if (!Number.isFinite(x)) {
      special += x;
      continue;
    }
    let kept = 0;
    for (let y of partials) {
      if (Math.abs(x) < Math.abs(y)) [x, y] = [y, x];
      const high = x + y;
      const low = y - (high - x);
      if (low !== 0) partials[kept++] = low;
      x = high;
    }
    partials.length = kept;
    partials.push(x);
  }
  if (special !== 0 || Number.isNaN(special)) return special;
  return roundPartials(partials);
}

function roundPartials(partials: readonly number[]): number {
  let n = partials.length;
  if (n === 0) return 0;
  let high = partials[--n]!;
  let low = 0;
  while (n > 0) {
    const x = high;
    const y = partials[--n]!;
    high = x + y;
    low = y - (high - x);
    if (low !== 0) break;
  }
  // Half-way cases: the next partial decides which way the sum is rounded.
  if (n > 0 && ((low < 0 && partials[n - 1]! < 0) || (low > 0 && partials[n - 1]! > 0))) {
    const doubled = low * 2;
    const x = high + doubled;
    if (doubled === x - high) high = x;
  }
  return high;
}

/** The exact mean; NaN for no values. */
export function mean(values: readonly number[]): number {
  return values.length === 0 ? Number.NaN : exactSum(values) / values.length;
}

/** Sample standard deviation (n − 1); NaN for fewer than two values. */
export function standardDeviation(values: readonly number[]): number {
  if (values.length < 2) return Number.NaN;
  const centre = mean(values);
  return Math.sqrt(exactSum(values.map((x) => (x - centre) ** 2)) / (values.length - 1));
}

/** Standard error of the mean, s/√n. */
export function meanStandardError(values: readonly number[]): number {
  return standardDeviation(values) / Math.sqrt(values.length);
}

/** Standard error of a mean whose rows come in clusters (several rows of one image, one passage): Miller 2024, arXiv 2411.00640. */
export function clusteredStandardError(values: readonly number[], clusters: readonly unknown[]): number {
  if (values.length !== clusters.length)
    fail(
      'ERR_LIBMOE_ARGUMENT',
      `one cluster per value expected: ${values.length} values, ${clusters.length} clusters`,
    );
  const centre = mean(values);
  const byCluster = new Map<unknown, number[]>();
  for (const [i, value] of values.entries()) {
    const members = byCluster.get(clusters[i]);
    if (members === undefined) byCluster.set(clusters[i], [value - centre]);
    else members.push(value - centre);
  }
  const extra = exactSum(
    [...byCluster.values()].map((d) => exactSum(d) ** 2 - exactSum(d.map((x) => x * x))),
  );
  return Math.sqrt(Math.max(0, meanStandardError(values) ** 2 + extra / values.length ** 2));
}

/** Standard error of a group's number from its members': pooled by size, or of the plain mean of members, as lm-eval has it. */
export function groupStandardError(
  errors: readonly number[],
  sizes: readonly number[],
  weightBySize = true,
): number {
  if (errors.length !== sizes.length || errors.length === 0)
    fail(
      'ERR_LIBMOE_ARGUMENT',
      `one size per member expected, got ${errors.length} errors and ${sizes.length} sizes`,
    );
  if (!weightBySize) return Math.sqrt(exactSum(errors.map((e) => e * e))) / errors.length;
  const total = exactSum(sizes);
  const pooled = exactSum(errors.map((e, i) => (sizes[i]! - 1) * sizes[i]! * e * e)) / (total - sizes.length);
  return Math.sqrt(pooled / total);
}

/**
 * Bootstrap standard error as lm-eval computes it: resamples in chunks of 1000, chunk i drawn from `Random(i)`, sample
 * standard deviation of the statistic over all resamples. `statistic` gets the drawn positions.
 * The event loop gets a turn after every chunk.
 */
export async function bootstrapStandardError(
  count: number,
  statistic: (drawn: Int32Array) => number,
  resamples = 100_000,
): Promise<number> {
  if (count < 2) return Number.NaN;
  const chunks = Math.max(1, Math.floor(resamples / 1000));
  const results: number[] = [];
  const drawn = new Int32Array(count);
  for (let chunk = 0; chunk < chunks; chunk++) {
    const random = new MersenneTwister(chunk);
    for (let i = 0; i < Math.min(1000, resamples); i++) {
      for (let k = 0; k < count; k++) drawn[k] = Math.floor(random.random() * count);
      results.push(statistic(drawn));
    }
    await new Promise((resolve) => setImmediate(resolve));
  }
  return standardDeviation(results);
}

/** A value with its two-sided percentile interval. */
export interface Interval {
  value: number;
  low: number;
  high: number;
}

/**
 * Percentile bootstrap interval of `statistic` over `count` documents (drawn with replacement, seeded).
 * @throws ERR_LIBMOE_ARGUMENT for a confidence outside (0, 1) or no documents
 */
export function bootstrapInterval(
  count: number,
  statistic: (drawn: Int32Array) => number,
  { resamples = 10_000, seed = 1234, confidence = 0.95 } = {},
): Interval & { samples: Float64Array } {
  if (count < 1) fail('ERR_LIBMOE_ARGUMENT', 'a bootstrap needs at least one document, got none');
  if (!(confidence > 0 && confidence < 1))
    fail('ERR_LIBMOE_ARGUMENT', `confidence must lie between 0 and 1, got ${confidence}`);
  if (!Number.isInteger(resamples) || resamples < 1)
    fail('ERR_LIBMOE_ARGUMENT', `resamples must be a positive integer, got ${resamples}`);
  const random = new MersenneTwister(seed);
  const samples = new Float64Array(resamples);
  const drawn = new Int32Array(count);
  for (let i = 0; i < resamples; i++) {
    for (let k = 0; k < count; k++) drawn[k] = Math.floor(random.random() * count);
    samples[i] = statistic(drawn);
  }
  samples.sort();
  const tail = (1 - confidence) / 2;
  return {
    value: statistic(Int32Array.from({ length: count }, (_, i) => i)),
    low: quantile(samples, tail),
    high: quantile(samples, 1 - tail),
    samples,
  };
}

/** Linear-interpolated quantile of sorted values (NumPy's default). */
export function quantile(sorted: ArrayLike<number>, q: number): number {
  if (sorted.length === 0) return Number.NaN;
  const position = (sorted.length - 1) * q;
  const below = Math.floor(position);
  const low = sorted[below]!;
  const high = sorted[Math.min(below + 1, sorted.length - 1)]!;
  return low + (high - low) * (position - below);
}

/** What was counted most often, of several the first that was counted; undefined of nothing. */
export function mostFrequent<T>(counts: ReadonlyMap<T, number>): T | undefined {
  let best: T | undefined;
  let most = 0;
  for (const [value, count] of counts) if (count > most) [best, most] = [value, count];
  return best;
}
