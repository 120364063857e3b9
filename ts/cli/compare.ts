import { Command, Option } from 'commander';
import type { ComparedNumber, ResultsComparison } from '../evaluation/index.ts';
import { log, printJson } from './output.ts';
import { formatTable, type TableFormat, tableFormats } from './table-formats.ts';

interface Options {
  tasks?: string;
  otherPrompts?: boolean;
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

Examples: npx libmoe compare eval/dense eval/moe
          npx libmoe compare eval/dense eval/moe eval/moe-shared --tasks piqa,mme --format latex
More: docs/evaluation.md`;

export function compareCommand(): Command {
  return new Command('compare')
    .description('paired test of evaluations on the same documents: is one run better than another?')
    .argument(
      '<results...>',
      'what eval --out wrote, folders or their results.json; the first is the baseline',
    )
    .option('--tasks <list>', 'only these tasks, separated by commas (default: all that every folder has)')
    .option('--other-prompts', 'compare also documents that were asked with other prompts')
    .addOption(new Option('--format <format>', 'of the table').choices(tableFormats).default('text'))
    .option('--json', 'print one JSON object')
    .addHelpText('after', help)
    .action(async (paths: string[], o: Options) => {
      const { compareResults } = await import('../evaluation/index.ts');
      const tasks = o.tasks?.split(',').map((task) => task.trim());
      const comparison = compareResults(paths, {
        ...(tasks && { tasks }),
        ...(o.otherPrompts && { otherPrompts: true }),
      });
      if (comparison.leftOut.length > 0)
        log(
          `left out, since not every folder has them, or not made of the same: ${comparison.leftOut.join(', ')}`,
        );
      if (o.json) printJson(comparison);
      else printComparison(comparison, o.format);
    });
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
