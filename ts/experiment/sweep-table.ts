import type { Interval } from '../evaluation/index.ts';
import { intervalFigure } from '../report/index.ts';
import type { SweepMetric } from './sweep-measure.ts';
import type { SweepResults } from './sweep-results.ts';

const headers: Record<SweepMetric, string> = {
  initialLoss: 'loss at step 0',
  finalLoss: 'loss at the end',
  bitsPerByte: 'bits per byte',
  accuracy: 'accuracy',
  trainingLoss: 'training loss',
  dropped: 'dropped',
  loadEntropy: 'load entropy',
  maxOverMean: 'busiest expert / mean',
  secondsPerStep: 'ms per step',
  parameters: 'parameters',
  activeParameters: 'active',
};
const missing = '–';
const fixed = (value: number, digits: number): string => value.toFixed(digits).replace('-', '−');
const signed = (value: number, digits: number): string => (value > 0 ? '+' : '') + fixed(value, digits);

/** A mean with half the width of its interval; counts and times as they are. */
function cell(metric: SweepMetric, interval: Interval | undefined): string {
  if (interval === undefined) return missing;
  const { value, high } = interval;
  if (metric === 'parameters' || metric === 'activeParameters') return Math.round(value).toLocaleString('en');
  if (metric === 'secondsPerStep') return (1000 * value).toFixed(0);
  if (metric === 'dropped') return `${(100 * value).toFixed(1)} %`;
  if (metric === 'accuracy') return percent(value) + halfWidth(100 * (high - value), 2);
  const digits = metric === 'loadEntropy' || metric === 'maxOverMean' ? 2 : 4;
  return fixed(value, digits) + (digits === 4 ? halfWidth(high - value, 4) : '');
}

const percent = (share: number): string => `${(100 * share).toFixed(2)} %`;
const halfWidth = (half: number, digits: number): string =>
  Number.isFinite(half) ? ` ± ${fixed(half, digits)}` : '';

/** With its interval; of accuracies in percentage points. */
function difference(interval: Interval | undefined, metric: SweepMetric): string {
  if (interval === undefined) return missing;
  const [scale, digits] = metric === 'accuracy' ? [100, 2] : [1, 4];
  const shown = (value: number): string => signed(scale * value, digits);
  const { value, low, high } = interval;
  return shown(value) + (Number.isFinite(low) ? ` (${shown(low)} to ${shown(high)})` : '');
}

const probability = (p: number | undefined): string =>
  p === undefined || !Number.isFinite(p) ? missing : p < 0.001 ? '< 0.001' : p.toFixed(3);

/** The results as a Markdown table with a legend, ready to paste. */
export function sweepTable(results: SweepResults, columns: readonly SweepMetric[]): string {
  const { variants, baseline, metric, seeds, task, priors } = results;
  const shown = columns.filter((column) => variants.some(({ metrics }) => metrics[column] !== undefined));
  const tested = variants.some(({ test }) => test !== undefined);
  const onDocuments = variants.some((row) => row.documents !== undefined);
  const answers = variants.some(({ metrics }) => metrics.accuracy !== undefined);
  const compared = variants.filter(({ holm }) => holm !== undefined).length;
  const header = [
    'variant',
    'runs',
    ...shown.map((column) => headers[column]),
    ...(tested ? [`${headers[metric]}, difference to ${baseline}`, 'p', 'p (Holm)'] : []),
    ...(onDocuments ? [`${answers ? 'accuracy' : 'bits per byte'}, difference over documents`] : []),
  ];
  const notes = variants.flatMap(({ variant, note, unlikeDense = [] }) => {
    const start =
      unlikeDense.length > 0 ? [`does not start as the dense model: ${unlikeDense.join('; ')}`] : [];
    const all = [...start, ...(note === undefined ? [] : [note])];
    return all.length === 0 ? [] : [{ variant, note: all.join('. ') }];
  });
  const mark = (variant: string): string => {
    const at = notes.findIndex((noted) => noted.variant === variant);
    return at < 0 ? variant : `${variant} [${at + 1}]`;
  };
  const body = variants.map((row) => [
    mark(row.variant),
    row.failed > 0 ? `${row.runs} (${row.failed} failed)` : String(row.runs),
    ...shown.map((column) => cell(column, row.metrics[column])),
    ...(tested
      ? [difference(row.test?.difference, metric), probability(row.test?.p), probability(row.holm)]
      : []),
    ...(onDocuments ? [difference(row.documents?.difference, answers ? 'accuracy' : 'bitsPerByte')] : []),
  ]);
  const line = (cells: readonly string[]): string => `| ${cells.join(' | ')} |`;
  const legend =
    `${results.name}: ${seeds.length === 1 ? 'seed' : 'seeds'} ${seeds.join(', ')}; means, ± half of the 95 % interval (Student t over seeds)` +
    `${task === undefined ? '' : answers ? `; accuracy on the questions "${task}", differences in percentage points` : `; losses on the held-out texts "${task}" in nats per token`}` +
    `${tested ? `; differences: paired t test against ${baseline} over common seeds; p is of each test alone, p (Holm) allows for all ${compared} of them` : ''}` +
    `${onDocuments ? '; over documents: paired bootstrap, 95 % interval' : ''}.`;
  const guesses = priors
    ? [
        `Without looking: the most frequent answer ${percent(priors.majority)}, the most frequent answer to the same question ${percent(priors.question)}.`,
      ]
    : [];
  const failures = results.runs.flatMap(({ folder, status, error }) =>
    status === 'failed' ? [`* failed: ${folder}: ${error ?? 'unknown error'}`] : [],
  );
  return [
    line(header),
    line(header.map((_, i) => (i === 0 ? '---' : '---:'))),
    ...body.map(line),
    '',
    legend,
    ...guesses,
    ...notes.map(({ variant, note }, i) => `* [${i + 1}] ${variant}: ${note}`),
    ...failures,
    '',
  ].join('\n');
}

/** The judged metric of every variant with its interval, as an SVG file; undefined when nothing has finished. */
export async function sweepFigure(results: SweepResults): Promise<string | undefined> {
  const { metric, baseline } = results;
  const rows = results.variants.flatMap(({ variant, metrics }) => {
    const interval = metrics[metric];
    const runs = results.runs.flatMap((run) =>
      run.variant === variant && run.status === 'done' ? (run.metrics?.[metric] ?? []) : [],
    );
    return interval === undefined ? [] : [{ name: variant, ...interval, runs }];
  });
  if (rows.length === 0) return undefined;
  const reference = rows.find(({ name }) => name === baseline)?.value;
  const svg = await intervalFigure(rows, {
    title: headers[metric],
    ...(reference !== undefined && { reference }),
  });
  return `${svg.replace('<svg', '<svg xmlns="http://www.w3.org/2000/svg"')}\n`;
}
