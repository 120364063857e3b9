import { Readable } from 'node:stream';
import { fail } from '../../../native/index.ts';
import { reasonOf } from '../../../storage/json.ts';
import { unpackedBytes } from '../../packed-file.ts';
import type { PlacedRow } from '../row.ts';

/** Options of {@link csvRows}. */
export interface CsvOptions {
  /** Names for a file without a header line; else its first line names the columns. */
  columns?: readonly string[];
}

/**
 * Rows of a comma-separated file (RFC 4180: quotes, doubled quotes and line ends within them; a BOM may stand in front), or with tabs where the name has `.tsv`;
 * `.gz` and `.zst` too. Every value is a text. Memory: one row.
 * @throws ERR_LIBMOE_DATA naming the line for rows of another length, quotes that do not end, and bytes that are no UTF-8
 */
export async function* csvRows(file: string, options: CsvOptions = {}): AsyncGenerator<PlacedRow> {
  const { parse } = await import('csv-parse');
  const parser = parse({
    delimiter: /\.tsv(\.\w+)?$/i.test(file) ? '\t' : ',',
    bom: true,
    skip_empty_lines: true,
    // Quotes in the middle of a value that does not begin with one are no quotes: MMLU has them.
    relax_quotes: true,
    info: true,
    columns: options.columns ? [...options.columns] : (names: string[]) => checkedNames(names, file),
    max_record_size: 1 << 28,
  });
  let line = 0;
  const source = Readable.from(decoded(file, () => line));
  // A pipe does not hand errors on.
  source.once('error', (error) => parser.destroy(error));
  source.pipe(parser);
  try {
    for await (const item of parser as AsyncIterable<{
      record: Record<string, string>;
      info: { lines: number };
    }>) {
      line = item.info.lines;
      yield { row: item.record, where: `${file}:${line}` };
    }
  } catch (cause) {
    if ((cause as { code?: string }).code?.startsWith('ERR_LIBMOE_')) throw cause;
    fail('ERR_LIBMOE_DATA', `${file} is no table: ${reasonOfTable(cause)}`, cause);
  } finally {
    source.destroy();
    parser.destroy();
  }
}

function checkedNames(names: string[], file: string): string[] {
  const twice = names.find((name, i) => names.indexOf(name) !== i);
  if (twice !== undefined)
    fail(
      'ERR_LIBMOE_DATA',
      `${file}: two columns are named ${JSON.stringify(twice)}. Has it no header line? Then name the columns (--columns)`,
    );
  return names;
}

/** The parser's codes are no codes of the system. */
const reasonOfTable = (cause: unknown): string =>
  cause instanceof Error && cause.message !== '' ? cause.message : reasonOf(cause);

async function* decoded(file: string, line: () => number): AsyncGenerator<string> {
  const decoder = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });
  const text = (bytes?: Uint8Array): string => {
    try {
      return decoder.decode(bytes, { stream: bytes !== undefined });
    } catch (cause) {
      return fail('ERR_LIBMOE_DATA', `${file} is not UTF-8 after line ${line()}`, cause);
    }
  };
  for await (const bytes of unpackedBytes(file, () => `line ${line()}`)) yield text(bytes);
  yield text();
}
