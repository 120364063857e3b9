import { open } from 'node:fs/promises';
import type { DataType, RecordBatch } from 'apache-arrow';
import { codeOf, fail } from '../../../native/index.ts';
import { reasonOf } from '../../../storage/json.ts';
import type { PlacedRow } from '../row.ts';

type Arrow = typeof import('apache-arrow');

/**
 * Rows of an Arrow file in either form, IPC stream (what the `datasets` library keeps) or IPC file (Feather version 2). Memory: one record batch.
 * @throws ERR_LIBMOE_DATA for a file that is damaged, cut off, or packed with LZ4
 */
export async function* arrowRows(file: string): AsyncGenerator<PlacedRow> {
  const arrow = await import('apache-arrow');
  await readZstd(arrow);
  const handle = await open(file, 'r').catch((error: unknown) =>
    fail('ERR_LIBMOE_FILE', `cannot read ${file} (${reasonOf(error)})`, error),
  );
  let rows = 0;
  try {
    if ((await handle.stat()).size < 8) throw new Error('it is too short');
    const reader = await arrow.RecordBatchReader.from(handle);
    await reader.open();
    // Of an empty file nothing can be said, and nothing is said.
    if (reader.schema === undefined) throw new Error('it has no schema');
    for await (const batch of reader) {
      const whole = plainRows(arrow, batch);
      for (const row of whole) {
        rows += 1;
        yield { row, where: `${file}, row ${rows}` };
      }
    }
  } catch (cause) {
    if (codeOf(cause) !== undefined) throw cause;
    fail('ERR_LIBMOE_DATA', `${file} is no whole Arrow file (after row ${rows}): ${reasonOf(cause)}`, cause);
  } finally {
    await handle.close();
  }
}

async function readZstd({ compressionRegistry, CompressionType }: Arrow): Promise<void> {
  if (compressionRegistry.get(CompressionType.ZSTD)?.decode) return;
  const { decompress } = await import('fzstd');
  compressionRegistry.set(CompressionType.ZSTD, { decode: (data) => decompress(data) });
}

function* plainRows(arrow: Arrow, batch: RecordBatch): Generator<Record<string, unknown>> {
  const columns = batch.schema.fields.map(({ name, type }, i) => ({
    name,
    type,
    vector: batch.getChildAt(i)!,
  }));
  for (let row = 0; row < batch.numRows; ++row) {
    const values: Record<string, unknown> = {};
    for (const { name, type, vector } of columns) values[name] = plain(arrow, vector.get(row), type);
    yield values;
  }
}

/** A value as lists and objects of plain values; times as dates. */
function plain(arrow: Arrow, value: unknown, type: DataType): unknown {
  const { DataType: is } = arrow;
  if (value === null || value === undefined) return null;
  if (is.isDictionary(type)) return plain(arrow, value, type.dictionary);
  if (is.isStruct(type)) {
    const fields = value as Record<string, unknown>;
    return Object.fromEntries(
      type.children.map((child) => [child.name, plain(arrow, fields[child.name], child.type)]),
    );
  }
  if (is.isMap(type)) {
    const item = type.valueType;
    return Object.fromEntries(
      [...(value as Iterable<[unknown, unknown]>)].map(([k, v]) => [String(k), plain(arrow, v, item)]),
    );
  }
  if (is.isList(type) || is.isFixedSizeList(type)) {
    const item = type.valueType;
    return Array.from(value as Iterable<unknown>, (each) => plain(arrow, each, item));
  }
  if (is.isTimestamp(type) || is.isDate(type)) return new Date(Number(value));
  if (is.isDecimal(type))
    return fail('ERR_LIBMOE_DATA', `a column of ${String(type)} is not read: cast it to a float or a text`);
  return value;
}
