import { open } from 'node:fs/promises';
import type { AsyncBuffer, FileMetaData } from 'hyparquet';
import { fail } from '../native/index.ts';
import { reasonOf } from '../storage/json.ts';

/** Options of {@link parquetRows}. */
export interface ParquetReadOptions {
  /** Default: all. */
  columns?: readonly string[];
  /** Texts that the file does not declare as texts: decoded (`text`, default) or left as they are. */
  undeclared?: 'text' | 'bytes';
}

/**
 * Rows of a parquet file with their numbers from 1, read a row group at a time: memory is that of the largest row group.
 * @throws ERR_LIBMOE_FILE, ERR_LIBMOE_DATA for a file that is damaged, cut off, or lacks one of the columns
 */
export async function* parquetRows(
  file: string,
  options: ParquetReadOptions = {},
): AsyncGenerator<[row: Record<string, unknown>, number: number]> {
  // Forty-odd modules that only this function needs.
  const { parquetMetadataAsync, parquetReadObjects, parquetSchema } = await import('hyparquet');
  const { compressors } = await import('hyparquet-compressors');
  const handle = await open(file, 'r').catch((error: unknown) =>
    fail('ERR_LIBMOE_FILE', `cannot read ${file} (${reasonOf(error)})`, error),
  );
  try {
    const { size } = await handle.stat();
    const buffer: AsyncBuffer = {
      byteLength: size,
      async slice(start, end = size) {
        // A damaged footer asks for anything.
        if (!(start >= 0 && start <= end && end <= size))
          throw new Error(`it speaks of bytes ${start} to ${end}, but has ${size}`);
        const bytes = new Uint8Array(end - start);
        const { bytesRead } = await handle.read(bytes, 0, bytes.length, start);
        if (bytesRead < bytes.length) throw new Error(`cut off at byte ${start + bytesRead}`);
        return bytes.buffer;
      },
    };
    const damaged = (error: unknown): never =>
      fail('ERR_LIBMOE_DATA', `${file} is not a whole parquet file: ${reasonOf(error)}`, error);
    const metadata: FileMetaData = await parquetMetadataAsync(buffer).catch(damaged);
    const known = parquetSchema(metadata).children.map((child) => child.element.name);
    for (const column of options.columns ?? []) {
      if (!known.includes(column))
        fail('ERR_LIBMOE_DATA', `${file} has no column "${column}"; it has ${known.join(', ')}`);
    }
    let rowStart = 0;
    for (const group of metadata.row_groups) {
      const rowEnd = rowStart + Number(group.num_rows);
      const rows = await parquetReadObjects({
        file: buffer,
        metadata,
        ...(options.columns && { columns: [...options.columns] }),
        rowStart,
        rowEnd,
        compressors,
        utf8: options.undeclared !== 'bytes',
      }).catch(damaged);
      if (rows.length !== rowEnd - rowStart)
        damaged(new Error(`rows ${rowStart + 1} to ${rowEnd} are ${rows.length} only`));
      for (const [i, row] of rows.entries()) yield [row as Record<string, unknown>, rowStart + i + 1];
      rowStart = rowEnd;
    }
  } finally {
    await handle.close();
  }
}
