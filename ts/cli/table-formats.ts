import { table } from './output.ts';

/** How a table may be printed. */
export const tableFormats = ['text', 'markdown', 'csv', 'latex'] as const;
/** One of {@link tableFormats}. */
export type TableFormat = (typeof tableFormats)[number];

/** Rows under a header in one of the formats; of `latex` a `tabular` with the rules of booktabs. */
export function formatTable(
  header: readonly string[],
  rows: readonly (readonly string[])[],
  format: TableFormat,
): string {
  switch (format) {
    case 'text':
      return table(header, rows);
    case 'markdown': {
      const line = (cells: readonly string[]): string =>
        `| ${cells.map((cell) => cell.replaceAll('|', '\\|')).join(' | ')} |`;
      return [line(header), line(header.map(() => '---')), ...rows.map(line)].join('\n');
    }
    case 'csv':
      return [header, ...rows].map((row) => row.map(quoted).join(',')).join('\n');
    case 'latex': {
      const line = (cells: readonly string[]): string => `${cells.map(escaped).join(' & ')} \\\\`;
      const columns = header.map((_, i) => (rows.every((row) => isNumber(row[i]!)) ? 'r' : 'l')).join('');
      return [
        `\\begin{tabular}{${columns}}`,
        '\\toprule',
        line(header),
        '\\midrule',
        ...rows.map(line),
        '\\bottomrule',
        '\\end{tabular}',
      ].join('\n');
    }
  }
}

const isNumber = (cell: string): boolean => /^[<+−-]?[\d.]*(e-\d+)?$/.test(cell);

/** RFC 4180. */
function quoted(cell: string): string {
  return /[",\r\n]/.test(cell) ? `"${cell.replaceAll('"', '""')}"` : cell;
}

const symbols: Record<string, string> = {
  '\\': '\\textbackslash{}',
  '~': '\\textasciitilde{}',
  '^': '\\textasciicircum{}',
  '−': '$-$',
  '±': '$\\pm$',
  '<': '$<$',
  '↑': '$\\uparrow$',
  '↓': '$\\downarrow$',
};

function escaped(cell: string): string {
  return cell.replace(/[\\~^−±<↑↓&%$#_{}]/g, (sign) => symbols[sign] ?? `\\${sign}`);
}
