import { fail } from '../native/index.ts';
import type { ResultsComparison } from './compare-results.ts';
import type { ComparedNumber } from './compared-numbers.ts';
import { mean } from './statistics.ts';

/** A benchmark of a {@link BenchmarkTable}. */
export interface BenchmarkColumn {
  /** A task or a group. */
  task: string;
  metric: string;
  higherIsBetter: boolean;
  /** Whether the numbers are percentages; only these are averaged. */
  percent: boolean;
}

/** Runs as rows and benchmarks as columns, as LibMoE's papers (arXiv 2411.00918) print results. */
export interface BenchmarkTable {
  columns: BenchmarkColumn[];
  /** The baseline first. */
  rows: {
    run: string;
    values: number[];
    /** Plain mean of the percentages. */
    average: number;
    /** Mean place among the runs, over all columns; equal runs share the mean of their places. */
    rank: number;
  }[];
}

/**
 * A column for every group and every task in no group, each with its first number. Shares become percentages. What is no percentage (perplexity, CIDEr,
 * MME's points, as in the papers) has a column and a rank, and no part in the average.
 * @param wanted columns in their order, `task` or `task=metric`
 * @throws ERR_LIBMOE_ARGUMENT for a column that the comparison has no number for
 */
export function benchmarkTable(comparison: ResultsComparison, wanted?: readonly string[]): BenchmarkTable {
  const { runs, baseline, groups } = comparison;
  const numbers = runs[0]!.numbers.filter(({ metric }) => metric !== 'unparsed_rate');
  const inGroups = new Set(Object.values(groups).flat());
  const names = wanted ?? [
    ...new Set(numbers.map(({ task }) => task).filter((task) => !inGroups.has(task) || task in groups)),
  ];
  const chosen = names.map((name) => {
    const [task, metric] = name.split('=');
    const own = numbers.filter((number) => number.task === task);
    const one = metric === undefined ? own[0] : own.find((number) => number.metric === metric);
    return (
      one ??
      fail(
        'ERR_LIBMOE_ARGUMENT',
        own.length === 0
          ? `no number of "${task}" to make a column of; there is ${[...new Set(numbers.map((number) => number.task))].join(', ')}`
          : `"${task}" has no number "${metric}", only ${own.map((number) => number.metric).join(', ')}`,
      )
    );
  });
  const found = (all: readonly ComparedNumber[], { task, metric, filter }: ComparedNumber): number =>
    all.find((one) => one.task === task && one.metric === metric && one.filter === filter)?.value ??
    Number.NaN;
  const inPercent = (value: number, { full }: ComparedNumber): number => (full === 1 ? 100 * value : value);
  const values = [
    chosen.map((one) => inPercent(one.baseline, one)),
    ...runs.map((run) => chosen.map((one) => inPercent(found(run.numbers, one), one))),
  ];
  const columns = chosen.map(({ task, metric, higherIsBetter, full }) => ({
    task,
    metric,
    higherIsBetter,
    percent: full !== undefined,
  }));
  return {
    columns,
    rows: [baseline, ...runs.map(({ run }) => run)].map((run, i) => ({
      run,
      values: values[i]!,
      average: mean(values[i]!.filter((_, column) => columns[column]!.percent)),
      rank: mean(
        columns.map((column, at) =>
          placeOf(
            values[i]![at]!,
            values.map((row) => row[at]!),
            column.higherIsBetter,
          ),
        ),
      ),
    })),
  };
}

/** Its place among all from 1 on; none without a number. */
function placeOf(value: number, all: readonly number[], higherIsBetter: boolean): number {
  if (Number.isNaN(value)) return Number.NaN;
  const ahead = all.filter((other) => (higherIsBetter ? other > value : other < value)).length;
  const equal = all.filter((other) => other === value).length;
  return ahead + (equal + 1) / 2;
}
