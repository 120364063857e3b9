import { describe, expect, it } from 'vitest';
import { benchmarkTable, type ComparedNumber, type ResultsComparison } from '../../ts/evaluation/index.ts';

type Given = [task: string, metric: string, baseline: number, value: number, more?: Partial<ComparedNumber>];
const share = { full: 1 };
const number = ([task, metric, baseline, value, more = {}]: Given): ComparedNumber => ({
  task,
  metric,
  filter: 'none',
  higherIsBetter: true,
  documents: 10,
  differing: 3,
  baseline,
  value,
  difference: value - baseline,
  ...more,
});
const comparison = (
  runs: Record<string, Given[]>,
  groups: Record<string, string[]> = {},
): ResultsComparison => ({
  scorer: 'libmoe',
  baseline: 'dense',
  documents: {},
  leftOut: [],
  groups,
  runs: Object.entries(runs).map(([run, numbers]) => ({ run, numbers: numbers.map(number) })),
});

describe('runs by benchmarks', () => {
  const runs = comparison(
    {
      moe: [
        ['one', 'acc', 0.5, 0.25, share],
        ['one', 'acc_norm', 0.5, 0.75, share],
        ['two', 'acc', 0.5, 0.75, share],
        ['mme', 'total', 1200, 1400],
        ['mme', 'unparsed_rate', 0, 0, { higherIsBetter: false }],
        ['bench', 'accuracy', 40, 50, { full: 100 }],
        ['words', 'perplexity', 20, 10, { higherIsBetter: false }],
        ['pair', 'acc', 0.5, 0.5, share],
      ],
      late: [
        ['one', 'acc', 0.5, 0.5, share],
        ['one', 'acc_norm', 0.5, 0.5, share],
        ['two', 'acc', 0.5, 1, share],
        ['mme', 'total', 1200, 1300],
        ['bench', 'accuracy', 40, 60, { full: 100 }],
        ['words', 'perplexity', 20, 30, { higherIsBetter: false }],
        ['pair', 'acc', 0.5, 0.75, share],
      ],
    },
    { pair: ['one', 'two'] },
  );

  it('have a column per group or task in none, averages of percentages and ranks of all', () => {
    const { columns, rows } = benchmarkTable(runs);
    expect(columns.map(({ task, metric, percent }) => [task, metric, percent])).toEqual([
      ['mme', 'total', false],
      ['bench', 'accuracy', true],
      ['words', 'perplexity', false],
      ['pair', 'acc', true],
    ]);
    expect(rows).toEqual([
      { run: 'dense', values: [1200, 40, 20, 50], average: 45, rank: (3 + 3 + 2 + 2.5) / 4 },
      { run: 'moe', values: [1400, 50, 10, 50], average: 50, rank: (1 + 2 + 1 + 2.5) / 4 },
      { run: 'late', values: [1300, 60, 30, 75], average: 67.5, rank: (2 + 1 + 3 + 1) / 4 },
    ]);
  });

  it('have the columns that are asked for, in their order', () => {
    const { columns, rows } = benchmarkTable(runs, ['two', 'one=acc_norm']);
    expect(columns.map(({ task, metric }) => `${task} ${metric}`)).toEqual(['two acc', 'one acc_norm']);
    expect(rows.map(({ values }) => values)).toEqual([
      [50, 50],
      [75, 75],
      [100, 50],
    ]);
    expect(() => benchmarkTable(runs, ['three'])).toThrow(/no number of "three".*there is one, two, mme/);
    expect(() => benchmarkTable(runs, ['one=f1'])).toThrow(/"one" has no number "f1", only acc, acc_norm/);
  });
});
