import path from 'node:path';
import {
  type AnswerPriors,
  type Comparison,
  comparePaired,
  type DocumentValue,
  type Interval,
  type PairedTest,
  pairedTTest,
  readDocumentValues,
  studentInterval,
} from '../evaluation/index.ts';
import { resolveLanguageModelConfig } from '../models/language/index.ts';
import { upcycledConfig, whyUnlikeDense } from '../upcycling/index.ts';
import type { AnyRecipe } from './recipe.ts';
import type { Sweep, SweepRun } from './sweep-file.ts';
import { type Measured, type SweepMetric, sweepMetrics } from './sweep-measure.ts';

/** What became of one run. */
export interface SweepOutcome {
  variant: string;
  seed: number;
  folder: string;
  /** `waiting`: not begun, or stopped on the way. */
  status: 'done' | 'failed' | 'waiting';
  metrics?: Measured;
  error?: string;
}

/** One variant over its seeds. */
export interface SweepVariant {
  variant: string;
  /** Finished runs. */
  runs: number;
  failed: number;
  /** Mean and Student t interval over seeds of every metric. */
  metrics: Partial<Record<SweepMetric, Interval>>;
  /** Paired t test against the baseline over the seeds that both finished; absent for the baseline itself. */
  test?: PairedTest;
  /** The test's p, corrected for all tests of the sweep by Holm's method. */
  holm?: number;
  /** Paired bootstrap over held-out documents, each document's bits per byte or right answers taken over the common seeds. */
  documents?: Comparison;
  /** Why the model does not start as the dense one it was upcycled from. */
  unlikeDense?: string[];
  note?: string;
}

/** What a sweep found: `results.json`. Rows stand best first. */
export interface SweepResults {
  name: string;
  metric: SweepMetric;
  baseline: string;
  task?: string;
  /** What guesses without image and model score on the task's questions, where it names a training split. */
  priors?: AnswerPriors;
  seeds: number[];
  confidence: number;
  variants: SweepVariant[];
  runs: SweepOutcome[];
}

const confidence = 0.95;

/** Sums up the runs of a sweep: intervals over seeds, paired tests against the baseline, rows sorted by the metric. */
export function sweepResults(sweep: Sweep, outcomes: readonly SweepOutcome[], out: string): SweepResults {
  const of = (variant: string) => outcomes.filter((outcome) => outcome.variant === variant);
  const done = (variant: string) => of(variant).filter(({ status }) => status === 'done');
  const rows = sweep.variants.map((variant): SweepVariant => {
    const finished = done(variant);
    const metrics: Partial<Record<SweepMetric, Interval>> = {};
    for (const metric of sweepMetrics) {
      const values = finished.flatMap(({ metrics: own }) => own?.[metric] ?? []);
      if (values.length > 0) metrics[metric] = studentInterval(values, confidence);
    }
    const note = sweep.notes[variant];
    const why = unlikeDense(sweep.runs.find((run) => run.variant === variant)?.recipe);
    return {
      variant,
      runs: finished.length,
      failed: of(variant).filter(({ status }) => status === 'failed').length,
      metrics,
      ...(variant !== sweep.baseline && tests(sweep, finished, done(sweep.baseline), out)),
      ...(why.length > 0 && { unlikeDense: why }),
      ...(note !== undefined && { note }),
    };
  });
  const ranked = rows
    .filter(({ test }) => test !== undefined && Number.isFinite(test.p))
    .sort((a, b) => a.test!.p - b.test!.p);
  let least = 0;
  for (const [i, row] of ranked.entries()) {
    least = Math.max(least, Math.min(1, (ranked.length - i) * row.test!.p));
    row.holm = least;
  }
  const worth = ({ metrics }: SweepVariant): number => {
    const { value } = metrics[sweep.metric] ?? {};
    if (value === undefined) return Number.POSITIVE_INFINITY;
    return sweep.metric === 'accuracy' ? -value : value;
  };
  return {
    name: sweep.name,
    metric: sweep.metric,
    baseline: sweep.baseline,
    ...(sweep.task && { task: sweep.task.name }),
    seeds: sweep.seeds,
    confidence,
    variants: rows.sort((a, b) => (worth(a) === worth(b) ? 0 : worth(a) - worth(b))),
    runs: [...outcomes],
  };
}

function unlikeDense(recipe: AnyRecipe | undefined): string[] {
  const upcycle = recipe && 'start' in recipe ? recipe.start?.upcycle : undefined;
  if (!upcycle) return [];
  const { parts: _, ...layer } = 'parts' in upcycle ? upcycle : { ...upcycle, parts: undefined };
  // The reasons lie in the layer alone, so the smallest dense model will do.
  const dense = resolveLanguageModelConfig({
    vocabularySize: 1,
    dModel: 2,
    layers: 1,
    heads: 1,
    feedForward: { hidden: upcycle.hidden ?? 1 },
  });
  return whyUnlikeDense(upcycledConfig(dense, { ...layer, layers: 'all' }), layer);
}

/** A variant against the baseline, on the seeds that both have. */
function tests(
  sweep: Sweep,
  own: readonly SweepOutcome[],
  baseline: readonly SweepOutcome[],
  out: string,
): Pick<SweepVariant, 'test' | 'documents'> {
  const pairs = own.flatMap((run) => {
    const other = baseline.find(({ seed }) => seed === run.seed);
    const [a, b] = [run.metrics?.[sweep.metric], other?.metrics?.[sweep.metric]];
    return other && a !== undefined && b !== undefined ? [{ run, other, a, b }] : [];
  });
  if (pairs.length === 0) return {};
  const { task } = sweep;
  const judged = task?.kind === 'texts' ? 'bitsPerByte' : 'accuracy';
  const metric = task?.kind === 'texts' ? 'bits_per_byte' : 'acc';
  const measured = ({ metrics }: SweepOutcome): boolean => metrics?.[judged] !== undefined;
  const documents = pairs.every(({ run, other }) => measured(run) && measured(other));
  return {
    test: pairedTTest(
      pairs.map(({ a }) => a),
      pairs.map(({ b }) => b),
      confidence,
    ),
    ...(task !== undefined &&
      documents && {
        documents: comparePaired(
          metric,
          documentsOver(
            pairs.map(({ run }) => run),
            [task.name, metric],
            out,
          ),
          documentsOver(
            pairs.map(({ other }) => other),
            [task.name, metric],
            out,
          ),
          { resamples: 2000 },
        ),
      }),
  };
}

/** Every document's value over runs: log-likelihood and bytes are added up, of right and wrong it is the mean. */
function documentsOver(
  runs: readonly Pick<SweepRun, 'folder'>[],
  [task, metric]: readonly [task: string, metric: string],
  out: string,
): DocumentValue[] {
  const [first, ...more] = runs.map(({ folder }) =>
    readDocumentValues(path.join(out, folder, 'eval', 'final'), task, metric),
  );
  const pair = (document: DocumentValue | undefined): readonly [number, number] => {
    const value = document?.value ?? [Number.NaN, Number.NaN];
    return typeof value === 'number' ? [value, 1] : value;
  };
  return (first ?? []).map((document, i) => {
    const all = [document, ...more.map((other) => other[i])].map(pair);
    const sum = (part: 0 | 1): number => all.reduce((total, value) => total + value[part], 0);
    const value = typeof document.value === 'number' ? sum(0) / sum(1) : ([sum(0), sum(1)] as const);
    return { ...document, value };
  });
}
