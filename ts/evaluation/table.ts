import { codePoints } from './python-text.ts';
import type { Results } from './results.ts';

/**
 * The table lm-eval prints, as Markdown text: `Tasks | Version | Filter | n-shot | Metric | ↑/↓ | Value | ± | Stderr`,
 * one row per metric; groups in a table of their own below, and the numbers of the other scorer where both were asked for.
 */
export function printTable(results: Results): string {
  const tables = [tableOf(results, results.results, 'Tasks')];
  if (results.groups) tables.push(tableOf(results, results.groups, 'Groups'));
  const { fixed_results: fixed } = results.libmoe;
  if (fixed) tables.push(`With the scorer "fixed":\n${tableOf(results, fixed, 'Tasks')}`);
  return tables.join('\n\n');
}

function tableOf(results: Results, entries: Results['results'], title: string): string {
  const rows: string[][] = [[title, 'Version', 'Filter', 'n-shot', 'Metric', '', 'Value', '', 'Stderr']];
  for (const [task, values] of Object.entries(entries)) {
    let first = true;
    for (const [key, value] of Object.entries(values)) {
      const [metric = '', filter] = key.split(',');
      if (filter === undefined || metric.endsWith('_stderr')) continue;
      const error = values[`${metric}_stderr,${filter}`];
      const better = results.higher_is_better[task]?.[metric.split('/')[0] ?? ''];
      rows.push([
        first ? String(values.alias ?? task) : '',
        first ? String(results.versions[task] ?? '') : '',
        filter,
        String(results['n-shot'][task] ?? (title === 'Groups' ? '' : 0)),
        metric,
        better === undefined ? '' : better ? '↑' : '↓',
        typeof value === 'number' ? value.toFixed(4) : value,
        '±',
        typeof error === 'number' ? error.toFixed(4) : 'N/A',
      ]);
      first = false;
    }
  }
  const numeric = new Set([1, 3, 6, 8]);
  const widths = rows[0]!.map((_, column) => Math.max(...rows.map((row) => codePoints(row[column]!))));
  const line = (row: readonly string[]): string =>
    `|${row.map((cell, i) => (numeric.has(i) ? pad(cell, widths[i]!) + cell : cell + pad(cell, widths[i]!))).join('|')}|`;
  const rule = `|${widths.map((width, i) => (numeric.has(i) ? `${'-'.repeat(Math.max(1, width - 1))}:` : '-'.repeat(Math.max(1, width)))).join('|')}|`;
  return [line(rows[0]!), rule, ...rows.slice(1).map(line)].join('\n');
}

function pad(cell: string, width: number): string {
  return ' '.repeat(Math.max(0, width - codePoints(cell)));
}
