import { fail } from '../native/index.ts';
import { type Interval, mean, meanStandardError } from './statistics.ts';

/** ln Γ(x) for x > 0: Stirling's series above 12, reached by the recurrence. */
function logGamma(x: number): number {
  let shift = 0;
  let at = x;
  while (at < 12) {
    shift += Math.log(at);
    at += 1;
  }
  const square = 1 / (at * at);
  const series = (1 / 12 - square * (1 / 360 - square * (1 / 1260 - square / 1680))) / at;
  return (at - 0.5) * Math.log(at) - at + 0.5 * Math.log(2 * Math.PI) + series - shift;
}

/** The regularised incomplete beta function I_x(a, b) by its continued fraction (Abramowitz & Stegun 26.5.8, evaluated after Lentz). */
function incompleteBeta(x: number, a: number, b: number): number {
  if (x <= 0) return 0;
  if (x >= 1) return 1;
  if (x > (a + 1) / (a + b + 2)) return 1 - incompleteBeta(1 - x, b, a);
  const front = Math.exp(
    logGamma(a + b) - logGamma(a) - logGamma(b) + a * Math.log(x) + b * Math.log1p(-x) - Math.log(a),
  );
  let numerator = 1;
  let denominator = 1 / (1 - ((a + b) * x) / (a + 1));
  let value = denominator;
  for (let m = 1; m < 300; m++) {
    const even = (m * (b - m) * x) / ((a + 2 * m - 1) * (a + 2 * m));
    denominator = 1 / (1 + even * denominator);
    numerator = 1 + even / numerator;
    value *= numerator * denominator;
    const odd = (-(a + m) * (a + b + m) * x) / ((a + 2 * m) * (a + 2 * m + 1));
    denominator = 1 / (1 + odd * denominator);
    numerator = 1 + odd / numerator;
    const step = numerator * denominator;
    value *= step;
    if (Math.abs(step - 1) < 1e-15) break;
  }
  return front * value;
}

/** P(|T| ≥ |t|) of Student's distribution with `degrees` degrees of freedom. */
export function studentTwoSided(t: number, degrees: number): number {
  if (!(degrees > 0)) fail('ERR_LIBMOE_ARGUMENT', `degrees of freedom must be positive, got ${degrees}`);
  return incompleteBeta(degrees / (degrees + t * t), degrees / 2, 0.5);
}

/** The t for which P(|T| ≤ t) is `confidence`: 12.706 for 1 degree of freedom and 0.95, 4.303 for 2, 1.960 for many. */
export function studentQuantile(confidence: number, degrees: number): number {
  if (!(confidence > 0 && confidence < 1))
    fail('ERR_LIBMOE_ARGUMENT', `confidence must lie between 0 and 1, got ${confidence}`);
  let [low, high] = [0, 1];
  while (studentTwoSided(high, degrees) > 1 - confidence) high *= 2;
  for (let i = 0; i < 200 && high - low > 1e-15 * high; i++) {
    const middle = (low + high) / 2;
    if (studentTwoSided(middle, degrees) > 1 - confidence) low = middle;
    else high = middle;
  }
  return (low + high) / 2;
}

/** The mean with its two-sided Student t interval; both ends are NaN for fewer than two values. */
export function studentInterval(values: readonly number[], confidence = 0.95): Interval {
  const value = mean(values);
  if (values.length < 2) return { value, low: Number.NaN, high: Number.NaN };
  const half = studentQuantile(confidence, values.length - 1) * meanStandardError(values);
  return { value, low: value - half, high: value + half };
}

/** A paired t test. */
export interface PairedTest {
  pairs: number;
  /** Mean of a − b with its interval. */
  difference: Interval;
  /** Mean difference over its standard error; NaN for fewer than two pairs or when all differences are equal. */
  t: number;
  /** Two-sided. */
  p: number;
}

/**
 * Paired t test of `a` against `b`, which belong together place by place (the same seed).
 * @throws ERR_LIBMOE_ARGUMENT when they are not equally many
 */
export function pairedTTest(a: readonly number[], b: readonly number[], confidence = 0.95): PairedTest {
  if (a.length !== b.length)
    fail('ERR_LIBMOE_ARGUMENT', `a paired test needs equally many values, got ${a.length} and ${b.length}`);
  const differences = a.map((value, i) => value - b[i]!);
  const error = meanStandardError(differences);
  const t = error > 0 ? mean(differences) / error : Number.NaN;
  return {
    pairs: a.length,
    difference: studentInterval(differences, confidence),
    t,
    p: Number.isNaN(t) ? Number.NaN : studentTwoSided(t, a.length - 1),
  };
}
