import { Command, Option } from 'commander';
import type { BenchmarkTable, ComparedNumber, ResultsComparison } from '../evaluation/index.ts';
import { fail } from '../native/index.ts';
import { log, printJson } from './output.ts';
import { type Cell, formatTable, type TableFormat, tableFormats } from './table-formats.ts';

interface Options {
  tasks?: string;
  otherPrompts?: boolean;
  layout: 'numbers' | 'paper';
  columns?: string;
  names?: string;
  format: TableFormat;
  json?: boolean;
}

const help = `
Every number is compared on the documents that made it, pair by pair: what is hard in a document is hard for both runs and cancels, so a paired
test sees differences that two separate standard errors hide. "difference" is a run's number less that of the first folder, ± its standard error:
of means over the differences per document (by clusters where rows share an image), of all other numbers (perplexity, F1, BLEU) by a
jackknife over both runs. "p" is two-sided, by Student's t; "differ" says how many of the documents are worth something else in the two runs.
"unparsed_rate" is by document: rows that share an image count as if they did not, so its ± may be too small.

Refused: other documents or right answers (other data, --limit), other prompts (--other-prompts takes them), other scoring (libmoe or fixed).

With --layout paper the table is the one of LibMoE's papers: a row per run, the baseline first, a column per group (or task in no group) with its first number, the best in bold (text: *),
shares as percentages, their plain mean as the average (MME's points and perplexities stay out of it), and the mean rank over all columns. --columns says which, and of which metric.

Examples: npx libmoe compare eval/dense eval/moe
          npx libmoe compare eval/dense eval/smoe eval/xmoe --layout paper --names Dense,SMoE,X-MoE --columns blimp,piqa=acc_norm,arc --format latex
          npx libmoe compare eval/dense eval/moe eval/moe-shared --tasks piqa,mme --format latex
More: docs/evaluation.md`;

export function compareCommand(): Command {
  return new Command('compare')
    .description('paired test of evaluations on the same documents: is one run better than another?')
    .argument(
      '<results...>',
      'what eval --out wrote, folders or their results.json; the first is the baseline',
    )
    .option(
      '--tasks <list>',
      'only these tasks and groups, separated by commas (default: all that every folder has)',
    )
    .option('--other-prompts', 'compare also documents that were asked with other prompts')
    .addOption(
      new Option('--layout <layout>', 'numbers: every number with its test; paper: runs × benchmarks')
        .choices(['numbers', 'paper'])
        .default('numbers'),
    )
    .option('--columns <list>', 'of the layout paper: tasks or groups in their order, TASK or TASK=METRIC')
    .option('--names <list>', 'of the layout paper: what the runs are called, the baseline first')
    .addOption(new Option('--format <format>', 'of the table').choices(tableFormats).default('text'))
    .option('--json', 'print one JSON object')
    .addHelpText('after', help)
    .action(async (paths: string[], o: Options) => {
      const { benchmarkTable, compareResults } = await import('../evaluation/index.ts');
      const [tasks, columns, names] = [o.tasks, o.columns, o.names].map((list) =>
        list?.split(',').map((item) => item.trim()),
      );
      if (o.layout !== 'paper' && (columns || names))
        fail('ERR_LIBMOE_ARGUMENT', '--columns and --names go with --layout paper');
      if (names && names.length !== paths.length)
        fail(
          'ERR_LIBMOE_ARGUMENT',
          `--names expects ${paths.length} names, one per folder, got ${names.length}`,
        );
      const comparison = compareResults(paths, {
        ...(tasks && { tasks }),
        ...(o.otherPrompts && { otherPrompts: true }),
      });
      if (comparison.leftOut.length > 0)
        log(
          `left out, since not every folder has them, or not made of the same: ${comparison.leftOut.join(', ')}`,
        );
      if (o.layout === 'paper') {
        const made = benchmarkTable(comparison, columns);
        const rows = made.rows.map((row, i) => ({ ...row, run: names?.[i] ?? row.run }));
        if (o.json) printJson({ ...made, rows });
        else printBenchmarks({ ...made, rows }, o.format);
      } else if (o.json) printJson(comparison);
      else printComparison(comparison, o.format);
    });
}

function printBenchmarks({ columns, rows }: BenchmarkTable, format: TableFormat): void {
  const all = [
    ...columns.map(({ task, metric, higherIsBetter, percent }, i) => ({
      header: `${task}${columns.filter((other) => other.task === task).length > 1 ? ` ${metric}` : ''}${higherIsBetter ? '' : ' ↓'}`,
      values: rows.map(({ values }) => values[i]!),
      higherIsBetter,
      digits: percent || rows.some(({ values }) => Math.abs(values[i]!) >= 10) ? 2 : 4,
    })),
    { header: 'Average', values: rows.map(({ average }) => average), higherIsBetter: true, digits: 2 },
    { header: 'Rank ↓', values: rows.map(({ rank }) => rank), higherIsBetter: false, digits: 2 },
  ].filter(({ values }) => values.some((value) => !Number.isNaN(value)));
  const cells = all.map(({ values, higherIsBetter, digits }): Cell[] => {
    const best = (higherIsBetter ? Math.max : Math.min)(...values.filter((value) => !Number.isNaN(value)));
    return values.map((value) => {
      if (format === 'csv') return String(value);
      const shown = Number.isNaN(value) ? '–' : value.toFixed(digits).replace('-', '−');
      return value === best ? { bold: shown } : shown;
    });
  });
  console.log(
    formatTable(
      ['', ...all.map(({ header }) => header)],
      rows.map(({ run }, i) => [i === 0 ? `${run} (baseline)` : run, ...cells.map((column) => column[i]!)]),
      format,
    ),
  );
}

function printComparison(
  { baseline, scorer, documents, runs }: ResultsComparison,
  format: TableFormat,
): void {
  const [first] = runs;
  const several = runs.length > 1;
  const header = [
    'task',
    'metric',
    '',
    'documents',
    'differ',
    ...(several ? ['run', 'baseline', 'value'] : [baseline, first!.run]),
    'difference',
    '±',
    'p',
  ];
  // Number by number, all runs below each other.
  const name = ({ task, metric, filter }: ComparedNumber): string => `${task} ${metric},${filter}`;
  const rows = [...new Set(runs.flatMap(({ numbers }) => numbers.map(name)))].flatMap((wanted) =>
    runs.flatMap(({ run, numbers }) => {
      const one = numbers.find((number) => name(number) === wanted);
      return one === undefined ? [] : [rowOf(one, several ? run : undefined, format)];
    }),
  );
  console.log(formatTable(header, rows, format));
  if (format !== 'text') return;
  console.log(`difference: to ${baseline}; ${scorer} scores; documents by number:`);
  for (const [task, ids] of Object.entries(documents)) console.log(`  ${task}: ${ids}`);
}

function rowOf(one: ComparedNumber, run: string | undefined, format: TableFormat): string[] {
  const raw = format === 'csv';
  const shown = (x: number | undefined, sign = ''): string =>
    x === undefined ? '' : raw ? String(x) : (x > 0 ? sign : '') + x.toFixed(4).replace('-', '−');
  const { filter, metric, p } = one;
  return [
    one.task,
    filter === 'none' ? metric : `${metric},${filter}`,
    one.higherIsBetter ? '↑' : '↓',
    String(one.documents),
    String(one.differing),
    ...(run === undefined ? [] : [run]),
    shown(one.baseline),
    shown(one.value),
    shown(one.difference, '+'),
    shown(one.standardError),
    p !== undefined && !raw && p < 0.0001 ? '<0.0001' : shown(p),
  ];
}
