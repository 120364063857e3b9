import { parquetRows } from '../../parquet.ts';
import type { PlacedRow } from '../row.ts';
import { arrowRows } from './arrow.ts';
import { type CsvOptions, csvRows } from './csv.ts';
import { jsonRows } from './json.ts';

type Reader = (file: string, options: CsvOptions) => AsyncIterable<PlacedRow>;

const readers: Record<string, Reader> = {
  parquet: parquetPlaced,
  arrow: arrowRows,
  feather: arrowRows,
  json: jsonRows,
  jsonl: jsonRows,
  ndjson: jsonRows,
  csv: csvRows,
  tsv: csvRows,
};

/** Which of the known kinds of tables a file is by its name; undefined for any other file. */
export function tableKind(name: string): string | undefined {
  const ending = /\.(\w+)(?:\.(?:gz|zst))?$/.exec(name.toLowerCase())?.[1] ?? '';
  const packed = /\.(?:gz|zst)$/i.test(name);
  if (!Object.hasOwn(readers, ending)) return undefined;
  return packed && ['parquet', 'arrow', 'feather'].includes(ending) ? undefined : ending;
}

/** Rows of a file that {@link tableKind} knows. Throws ERR_LIBMOE_FILE and ERR_LIBMOE_DATA, naming file and row. */
export function tableRows(file: string, options: CsvOptions = {}): AsyncIterable<PlacedRow> {
  return readers[tableKind(file) ?? '']!(file, options);
}

/** Endings of files that can be read, for messages. */
export const tableEndings: string = Object.keys(readers)
  .map((ending) => `.${ending}`)
  .join(', ');

async function* parquetPlaced(file: string): AsyncGenerator<PlacedRow> {
  for await (const [row, number] of parquetRows(file, { undeclared: 'bytes' }))
    yield { row, where: `${file}, row ${number}` };
}
