import path from 'node:path';
import {
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
import type { Recipe } from './language-recipe.ts';
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
  /** Paired bootstrap over held-out documents, each document's bits per byte taken over the common seeds. */
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
  const worth = ({ metrics }: SweepVariant): number =>
    metrics[sweep.metric]?.value ?? Number.POSITIVE_INFINITY;
  return {
    name: sweep.name,
    metric: sweep.metric,
    baseline: sweep.baseline,
    ...(sweep.task !== undefined && { task: sweep.task }),
    seeds: sweep.seeds,
    confidence,
    variants: rows.sort((a, b) => (worth(a) === worth(b) ? 0 : worth(a) - worth(b))),
    runs: [...outcomes],
  };
}

function unlikeDense(recipe: Recipe | undefined): string[] {
  const upcycle = recipe?.start?.upcycle;
  if (!upcycle) return [];
  // The reasons lie in the layer alone, so the smallest dense model will do.
  const dense = resolveLanguageModelConfig({
    vocabularySize: 1,
    dModel: 2,
    layers: 1,
    heads: 1,
    feedForward: { hidden: upcycle.hidden ?? 1 },
  });
  return whyUnlikeDense(upcycledConfig(dense, { ...upcycle, layers: 'all' }), upcycle);
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
  const documents = pairs.every(({ run, other }) => run.metrics?.bitsPerByte && other.metrics?.bitsPerByte);
  return {
    test: pairedTTest(
      pairs.map(({ a }) => a),
      pairs.map(({ b }) => b),
      confidence,
    ),
    ...(task !== undefined &&
      documents && {
        documents: comparePaired(
          'bits_per_byte',
          documentsOver(
            pairs.map(({ run }) => run),
            task,
            out,
          ),
          documentsOver(
            pairs.map(({ other }) => other),
            task,
            out,
          ),
          { resamples: 2000 },
        ),
      }),
  };
}

/** Log-likelihood and bytes of every document, added up over runs. */
function documentsOver(
  runs: readonly Pick<SweepRun, 'folder'>[],
  task: string,
  out: string,
): DocumentValue[] {
  const [first, ...more] = runs.map(({ folder }) =>
    readDocumentValues(path.join(out, folder, 'eval', 'final'), task, 'bits_per_byte'),
  );
  const pair = (document: DocumentValue | undefined): readonly [number, number] =>
    document ? (document.value as readonly [number, number]) : [Number.NaN, Number.NaN];
  return (first ?? []).map((document, i) => {
    const all = [document, ...more.map((other) => other[i])].map(pair);
    const sum = (part: 0 | 1): number => all.reduce((total, value) => total + value[part], 0);
    return { ...document, value: [sum(0), sum(1)] as const };
  });
}
