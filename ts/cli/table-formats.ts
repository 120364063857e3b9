import { table } from './output.ts';

/** How a table may be printed. */
export const tableFormats = ['text', 'markdown', 'csv', 'latex'] as const;
/** One of {@link tableFormats}. */
export type TableFormat = (typeof tableFormats)[number];

/** A cell, in bold where the format can. */
export type Cell = string | { bold: string };

/** Rows under a header in one of the formats; of `latex` a `tabular` with the rules of booktabs. Text shows what is bold by a star. */
export function formatTable(
  header: readonly string[],
  cells: readonly (readonly Cell[])[],
  format: TableFormat,
): string {
  const rows = cells.map((row) => row.map(textOf));
  switch (format) {
    case 'text':
      return table(
        header,
        cells.map((row) => row.map((cell) => textOf(cell) + (isBold(cell) ? '*' : ''))),
      );
    case 'markdown': {
      const shown = (cell: Cell): string => textOf(cell).replaceAll('|', '\\|');
      const line = (row: readonly Cell[]): string =>
        `| ${row.map((cell) => (isBold(cell) ? `**${shown(cell)}**` : shown(cell))).join(' | ')} |`;
      return [line(header), line(header.map(() => '---')), ...cells.map(line)].join('\n');
    }
    case 'csv':
      return [header, ...rows].map((row) => row.map(quoted).join(',')).join('\n');
    case 'latex': {
      const shown = (cell: Cell): string =>
        isBold(cell) ? `\\textbf{${escaped(cell.bold)}}` : escaped(cell);
      const line = (row: readonly Cell[]): string => `${row.map(shown).join(' & ')} \\\\`;
      const columns = header.map((_, i) => (rows.every((row) => isNumber(row[i]!)) ? 'r' : 'l')).join('');
      return [
        `\\begin{tabular}{${columns}}`,
        '\\toprule',
        line(header),
        '\\midrule',
        ...cells.map(line),
        '\\bottomrule',
        '\\end{tabular}',
      ].join('\n');
    }
  }
}

const isBold = (cell: Cell): cell is { bold: string } => typeof cell !== 'string';
const textOf = (cell: Cell): string => (isBold(cell) ? cell.bold : cell);
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
