import { fail } from '../native/index.ts';
import { type Metric, type MetricValue, metricNamed, type ScorerMode } from './metrics.ts';
import { bootstrapInterval, type Interval, mean, meanStandardError } from './statistics.ts';

/** What one run scored on one document; samples files and results carry it. */
export interface DocumentValue {
  docId: number;
  /** Hash of the document: two runs are paired only on the same documents. */
  docHash: string;
  value: MetricValue;
}

/** A paired comparison of two runs on the same documents. */
export interface Comparison {
  metric: string;
  documents: number;
  a: number;
  b: number;
  /** a − b with its bootstrap interval over documents. */
  difference: Interval;
  confidence: number;
  higherIsBetter: boolean;
  /** The run that is better with the whole interval on its side; undefined when the interval holds 0. */
  winner?: 'a' | 'b';
  /** Mean of the differences per document over its standard error; for metrics that are plain means. */
  t?: number;
}

/**
 * Paired bootstrap over documents: each resample draws documents with replacement and takes both runs on them, so what
 * is common to both (a hard document) cancels. Percentile interval, seeded (MT19937).
 * @throws ERR_LIBMOE_DATA when the two runs did not score the same documents
 */
export function comparePaired(
  metricName: string,
  a: readonly DocumentValue[],
  b: readonly DocumentValue[],
  { resamples = 10_000, seed = 1234, confidence = 0.95 } = {},
): Comparison {
  const metric = metricNamed(metricName);
  const key = (item: DocumentValue): string => `${item.docId}:${item.docHash}`;
  const other = new Map(b.map((item) => [key(item), item.value]));
  if (
    a.length === 0 ||
    a.length !== b.length ||
    other.size !== b.length ||
    !a.every((item) => other.has(key(item)))
  )
    fail(
      'ERR_LIBMOE_DATA',
      `a paired comparison of ${metricName} needs two runs over the same documents, got ${a.length} and ${b.length} documents of which ${a.filter((item) => other.has(key(item))).length} agree`,
    );
  const valuesA = a.map((item) => item.value);
  const valuesB = a.map((item) => other.get(key(item)) as MetricValue);
  const { value, low, high } = bootstrapInterval(a.length, differenceOf(valuesA, valuesB, metricName), {
    resamples,
    seed,
    confidence,
  });
  const differences = differencesOf(valuesA, valuesB, metricName);
  const better = metric.higherIsBetter ? 1 : -1;
  const winner =
    low * better > 0 && high * better > 0 ? 'a' : low * better < 0 && high * better < 0 ? 'b' : undefined;
  return {
    metric: metricName,
    documents: a.length,
    a: metric.aggregate(valuesA, 'fixed'),
    b: metric.aggregate(valuesB, 'fixed'),
    difference: { value, low, high },
    confidence,
    higherIsBetter: metric.higherIsBetter,
    ...(winner === undefined ? {} : { winner }),
    ...(differences === undefined || differences.length < 2
      ? {}
      : { t: mean(differences) / meanStandardError(differences) }),
  };
}

/** The statistic that is resampled; plain sums in place of exact ones where ten thousand resamples would be slow. */
function differenceOf(
  a: readonly MetricValue[],
  b: readonly MetricValue[],
  metricName: string,
): (drawn: Int32Array) => number {
  const plain = differencesOf(a, b, metricName);
  if (plain !== undefined)
    return (drawn) => {
      let sum = 0;
      for (let i = 0; i < drawn.length; i++) sum += plain[drawn[i]!]!;
      return sum / drawn.length;
    };
  if (metricName === 'bits_per_byte') {
    const [x, y] = [Float64Array.from(a.flat()), Float64Array.from(b.flat())];
    return (drawn) => bitsPerByte(x, drawn) - bitsPerByte(y, drawn);
  }
  // The fixed mode: a comparison is of our own making, there is no original number to reproduce.
  const metric = metricNamed(metricName);
  const aggregate = (values: readonly MetricValue[], drawn: Int32Array): number =>
    metric.aggregate(
      Array.from(drawn, (i) => values[i]!),
      'fixed',
    );
  return (drawn) => aggregate(a, drawn) - aggregate(b, drawn);
}

/** Whether a metric of these values is their mean and nothing else, so that differences per document say all. */
export function isPlainMean(metric: Metric, values: readonly MetricValue[], mode: ScorerMode): boolean {
  const numbers = values.filter((value) => typeof value === 'number');
  return numbers.length === values.length && metric.aggregate(values, mode) === mean(numbers);
}

/** Differences per document of a metric that is a plain mean. */
function differencesOf(
  a: readonly MetricValue[],
  b: readonly MetricValue[],
  metricName: string,
): number[] | undefined {
  const metric = metricNamed(metricName);
  if (!isPlainMean(metric, a, 'fixed') || !isPlainMean(metric, b, 'fixed')) return undefined;
  return a.map((x, i) => (x as number) - (b[i] as number));
}

/** @param pairs log-likelihood and bytes of each document, one after the other */
function bitsPerByte(pairs: Float64Array, drawn: Int32Array): number {
  let sum = 0;
  let bytes = 0;
  for (let i = 0; i < drawn.length; i++) {
    sum += pairs[2 * drawn[i]!]!;
    bytes += pairs[2 * drawn[i]! + 1]!;
  }
  return -sum / bytes / Math.LN2;
}

/** Bits per byte of one run with its bootstrap interval over documents. */
export function bitsPerByteInterval(
  documents: readonly DocumentValue[],
  options?: { resamples?: number; seed?: number },
): Interval {
  const pairs = Float64Array.from(documents.flatMap((document) => document.value));
  if (pairs.length !== 2 * documents.length)
    fail('ERR_LIBMOE_DATA', 'bits per byte need a log-likelihood and a byte count per document');
  const { value, low, high } = bootstrapInterval(
    documents.length,
    (drawn) => bitsPerByte(pairs, drawn),
    options,
  );
  return { value, low, high };
}

/** One plain sentence that says who won, by how much, and how sure that is. */
export function verdict(comparison: Comparison, nameA: string, nameB: string): string {
  const { difference, documents, confidence, winner, metric } = comparison;
  const digits = metric === 'bits_per_byte' ? 4 : 3;
  const show = (x: number): string => x.toFixed(digits).replace('-', '−');
  const signed = (x: number): string => (x > 0 ? `+${show(x)}` : show(x));
  // The winner comes first; without one the order of the arguments stays.
  const swap = winner === 'b';
  const [first, second] = swap ? [nameB, nameA] : [nameA, nameB];
  const [x, y] = swap ? [comparison.b, comparison.a] : [comparison.a, comparison.b];
  const [low, high] = swap ? [-difference.high, -difference.low] : [difference.low, difference.high];
  const facts =
    `${show(x)} against ${show(y)} ${metric.replaceAll('_', ' ')}, difference ${signed(x - y)} ` +
    `(${Math.round(confidence * 100)} % interval ${signed(low)} to ${signed(high)}, paired bootstrap over ${documents} documents)`;
  return winner === undefined
    ? `No winner between ${first} and ${second}: ${facts}; the interval includes 0.`
    : `${first} is better than ${second}: ${facts}.`;
}
