import { existsSync } from 'node:fs';
import path from 'node:path';
import { routingByLayer } from '../analysis/index.ts';
import { mean, quantile } from '../evaluation/index.ts';
import { fail } from '../native/index.ts';
import { lastEvaluation, type RunFolder, readRunFolder } from '../report/index.ts';
import { readJournal } from '../storage/index.ts';

/** What a sweep can compare; a run has those that its recipe makes possible. */
export const sweepMetrics = [
  'initialLoss',
  'finalLoss',
  'bitsPerByte',
  'accuracy',
  'trainingLoss',
  'dropped',
  'loadEntropy',
  'maxOverMean',
  'secondsPerStep',
  'parameters',
  'activeParameters',
] as const;
/** What a sweep can compare, by name. */
export type SweepMetric = (typeof sweepMetrics)[number];

/** Those that a sweep can be judged by: of losses less is better, of accuracy more. */
export const judgedMetrics = ['finalLoss', 'bitsPerByte', 'accuracy', 'trainingLoss', 'initialLoss'] as const;

/** What the runs of a sweep are evaluated on, if on anything: held-out texts, or the questions of a task. */
export interface SweepTask {
  name: string;
  kind: 'texts' | 'questions';
}

/** What one finished run measured. */
export type Measured = Partial<Record<SweepMetric, number>>;

/**
 * Reads from a run folder what a sweep compares: `initialLoss` and `finalLoss` in nats per token on the held-out texts `task` before the first step
 * (with `training.evaluateFirst`) and at the end, `bitsPerByte` of the same; `accuracy` on the questions `task`; `trainingLoss`, the mean
 * cross-entropy of the last tenth of the steps;
 * of the last fifth, as means over layers, `dropped` (share of the choices that found no room), `loadEntropy` (1 is uniform) and `maxOverMean`
 * (load of the busiest expert); `secondsPerStep`, a median; `parameters` and `activeParameters`.
 * @throws ERR_LIBMOE_FILE when the folder holds no such run
 */
export function measure(folder: string, task: SweepTask | undefined): Measured {
  const run = readRunFolder(folder);
  const { metrics, summary } = run;
  const losses = metrics.flatMap(({ crossEntropy, loss }) => crossEntropy ?? loss ?? []);
  const layers = routingByLayer(metrics);
  const overLayers = (key: 'droppedShare' | 'loadEntropy' | 'maxOverMean'): number | undefined =>
    layers.length === 0 ? undefined : mean(layers.map((layer) => layer[key]));
  const seconds = readJournal(path.join(folder, 'metrics.jsonl'))
    .flatMap((line) => (typeof line.seconds === 'number' ? line.seconds : []))
    .sort((a, b) => a - b);
  const texts = task?.kind === 'texts' ? task.name : undefined;
  const measured: Record<SweepMetric, number | undefined> = {
    initialLoss: texts === undefined ? undefined : tokenLoss(path.join(folder, 'eval', '0'), texts),
    finalLoss: texts === undefined ? undefined : tokenLoss(path.join(folder, 'eval', 'final'), texts),
    bitsPerByte: task && evaluated(run, task.name, 'bits_per_byte,none'),
    accuracy: task && evaluated(run, task.name, 'acc,none'),
    trainingLoss: losses.length === 0 ? undefined : mean(losses.slice(-Math.ceil(losses.length / 10))),
    dropped: overLayers('droppedShare'),
    loadEntropy: overLayers('loadEntropy'),
    maxOverMean: overLayers('maxOverMean'),
    secondsPerStep: seconds.length === 0 ? undefined : quantile(seconds, 0.5),
    parameters: summary.parameters,
    activeParameters: summary.activeParameters,
  };
  return Object.fromEntries(Object.entries(measured).filter(([, value]) => value !== undefined));
}

function evaluated(run: RunFolder, task: string, metric: string): number | undefined {
  const value = lastEvaluation(run)?.results.results[task]?.[metric];
  return typeof value === 'number' ? value : undefined;
}

/** Mean loss per token of an evaluation of texts, in nats; undefined when it was not made. */
function tokenLoss(folder: string, task: string): number | undefined {
  const file = path.join(folder, `samples_${task}.jsonl`);
  if (!existsSync(file)) return undefined;
  let sum = 0;
  let tokens = 0;
  for (const { libmoe } of readJournal(file) as { libmoe?: { sums?: number[]; tokens?: number[] } }[]) {
    sum += libmoe?.sums?.[0] ?? Number.NaN;
    tokens += libmoe?.tokens?.[0] ?? Number.NaN;
  }
  if (!Number.isFinite(sum / tokens))
    fail(
      'ERR_LIBMOE_DATA',
      `${file} does not hold losses of texts: a log-likelihood is missing or no number`,
    );
  return -sum / tokens;
}
