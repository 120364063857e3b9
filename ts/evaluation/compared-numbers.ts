import { isDeepStrictEqual } from 'node:util';
import { isPlainMean } from './compare.ts';
import { type MetricValue, metricNamed } from './metrics.ts';
import {
  jackknifeError,
  type PairedError,
  pairedMeanError,
  pairedP,
  pairedStrataError,
} from './paired-difference.ts';
import type { ResponseFacts, Results, Sample } from './results.ts';
import { type Report, type ReportBlock, type ReportedDocument, reportSchema } from './scorers/index.ts';
import { type ReportRows, reportRows } from './scorers/report-rows.ts';

/** A number of two runs and how sure their difference is. */
export interface ComparedNumber {
  /** A task or, its tasks together, a group. */
  task: string;
  metric: string;
  /** Pipeline that the responses went through; `none` where there is none. */
  filter: string;
  higherIsBetter: boolean;
  /** What it would be if everything were right, of shares (1) and percentages (100); absent for others (perplexity, CIDEr, MME's points). */
  full?: number;
  /** That the number is made of; units (images, rotated questions) where it is made of those. */
  documents: number;
  /** Of these, how many are worth something else in the two runs. */
  differing: number;
  baseline: number;
  value: number;
  /** value − baseline. */
  difference: number;
  /** Of the paired difference; absent where it cannot be told. */
  standardError?: number;
  /** Two-sided. */
  p?: number;
}

/** One run's part of a task; the samples of two runs belong together line by line. */
export interface RunSamples {
  results: Results;
  samples: readonly Sample[];
}

/** What a number is made of in both runs. */
interface Made {
  full?: number;
  pieces: readonly string[];
  facts: readonly [readonly unknown[], readonly unknown[]];
  /** Where the number is the mean of a value per row. */
  values?: readonly [readonly (number | null)[], readonly (number | null)[]];
  strata?: ReportRows['strata'];
  /** One run's number over some of the rows. */
  of(run: 0 | 1, kept: (row: number) => boolean): number;
}

/** All numbers of a task that both runs have, those for parts of it (`name/part`) left out. */
export function comparedNumbers(task: string, runs: readonly [RunSamples, RunSamples]): ComparedNumber[] {
  const [a, b] = runs;
  const [rowA = {}, rowB = {}] = [a.results.results[task], b.results.results[task]];
  return Object.keys(rowA).flatMap((key): ComparedNumber[] => {
    const [metric = '', filter] = key.split(',');
    const [x, y] = [rowA[key], rowB[key]];
    if (filter === undefined || metric.endsWith('_stderr') || metric.includes('/')) return [];
    if (typeof x !== 'number' || typeof y !== 'number') return [];
    const samples = [a, b].map((run) => run.samples.filter((sample) => sample.filter === filter));
    const made = madeOf(task, metric, a.results, samples as [Sample[], Sample[]]);
    const error = pairedError(made);
    const p = pairedP(y - x, error);
    return [
      {
        task,
        metric,
        filter,
        higherIsBetter: a.results.higher_is_better[task]?.[metric] ?? true,
        ...(made.full !== undefined && { full: made.full }),
        documents: made.facts[0].length,
        differing: made.facts[0].filter((fact, i) => !isDeepStrictEqual(fact, made.facts[1][i])).length,
        baseline: x,
        value: y,
        difference: y - x,
        ...(error.standardError !== undefined && { standardError: error.standardError }),
        ...(p !== undefined && { p }),
      },
    ];
  });
}

function pairedError({ values, strata, pieces, of }: Made): PairedError {
  if (values !== undefined) {
    const [a, b] = values;
    if (strata !== undefined)
      return a.length === b.length
        ? pairedStrataError(
            a.map((x, i) => b[i]! - x!),
            strata.of,
            strata.together,
          )
        : { degrees: 0 };
    const rows = a.flatMap((x, i) => (x === null || b[i] === null ? [] : [i]));
    // Where a judge failed in one of the runs, the means are not over the same rows.
    if (a.every((x, i) => (x === null) === (b[i] === null)))
      return pairedMeanError(
        rows.map((i) => b[i]! - a[i]!),
        rows.map((i) => pieces[i]!),
      );
  }
  return jackknifeError(pieces, (kept) => of(1, kept) - of(0, kept));
}

function madeOf(task: string, metric: string, results: Results, samples: [Sample[], Sample[]]): Made {
  const config = results.configs[task] ?? {};
  if (config.output_type !== 'generate_until') return madeOfLikelihoods(metric, results, samples);
  if (metric === 'unparsed_rate') {
    const values = [unparsed(samples[0]), unparsed(samples[1])] as const;
    return { pieces: values[0].map((_, i) => `${i}`), facts: values, values, of: () => Number.NaN };
  }
  const report: Report = config.report === undefined ? {} : reportSchema.parse(config.report);
  const plain: ReportBlock = { of: metric, agg: 'mean', scale: 1, higher_is_better: true };
  const mode = results.libmoe.scorer_mode;
  const rows = samples.map((lines) =>
    reportRows(report[metric] ?? plain, lines.map(documentOf), mode, `task ${task}, report ${metric}`),
  );
  const [a, b] = [rows[0]!, rows[1]!];
  const full = fullOf(report[metric] ?? plain, samples);
  return {
    ...(full !== undefined && { full }),
    pieces: a.pieces,
    facts: [a.facts, b.facts],
    ...(a.values && b.values && { values: [a.values, b.values] }),
    ...(a.strata && { strata: a.strata }),
    of: (run, kept) => (run === 0 ? a : b).of(kept),
  };
}

/** See {@link ComparedNumber.full}. */
function fullOf(block: ReportBlock, samples: readonly (readonly Sample[])[]): number | undefined {
  if (!block.higher_is_better || (block.scale !== 1 && block.scale !== 100)) return undefined;
  if (!('use' in block)) {
    const isMean = ['mean', 'mean_of_group_means', 'ratio'].includes(block.agg);
    const isShare = isMean && samples.flat().every((sample) => isWithinOne(sample[block.of] ?? 0));
    return isShare ? block.scale : undefined;
  }
  if (block.use === 'mme') return block.part === 'percent' ? 100 : undefined;
  return block.use === 'caption' ? undefined : block.scale;
}

const isWithinOne = (value: unknown): boolean => typeof value === 'number' && value >= 0 && value <= 1;

const unparsed = (samples: readonly Sample[]): number[] =>
  samples.map(({ libmoe }) => Number((libmoe as ResponseFacts).parsed === null));

function documentOf(sample: Sample): ReportedDocument {
  const { parsed, detail, missing } = sample.libmoe as ResponseFacts;
  const values = Object.fromEntries(
    sample.metrics.map((name) => [name, (sample[name] ?? null) as number | null]),
  );
  return {
    doc: sample.doc,
    docId: sample.doc_id,
    response: sample.filtered_resps[0] as string,
    target: sample.target as ReportedDocument['target'],
    score: { values, parsed, ...(detail && { detail }), ...(missing !== undefined && { missing }) },
  };
}

function madeOfLikelihoods(metric: string, results: Results, samples: [Sample[], Sample[]]): Made {
  const named = metricNamed(metric);
  const mode = results.libmoe.scorer_mode;
  const facts = samples.map((lines) => lines.map((sample) => sample[metric])) as [unknown[], unknown[]];
  const numbers = facts as [MetricValue[], MetricValue[]];
  const isMean = numbers.every((all) => isPlainMean(named, all, mode));
  return {
    pieces: samples[0].map((_, i) => `${i}`),
    facts,
    ...(isMean && named.higherIsBetter && numbers.flat().every(isWithinOne) && { full: 1 }),
    ...(isMean && { values: numbers as unknown as [number[], number[]] }),
    of: (run, kept) =>
      named.aggregate(
        numbers[run].filter((_, i) => kept(i)),
        mode,
      ),
  };
}
