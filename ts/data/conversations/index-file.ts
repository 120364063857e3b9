import { createHash } from 'node:crypto';
import { existsSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { writeFileAtomically } from '../../storage/atomic.ts';
import type { BadRecords, RecordIndex } from './record-index.ts';

/** What an index was made from: it is made again when any of it differs. */
export interface IndexStamp {
  size: number;
  modified: number;
  compat: string;
}

interface Header {
  format: 'libmoe-conversations';
  version: 1;
  stamp: IndexStamp;
  records: number;
  contentHash: string;
  bad: BadRecords;
  /** SHA-256 of the columns. */
  columnsHash: string;
}

const bytesPerRecord = 20;

/** Where the index of a file is kept: beside it, or in a folder for such things. */
export function indexPath(file: string, compat: string, folder?: string): string {
  const kind = compat === 'fixed' ? '' : `.${compat}`;
  if (folder === undefined) return `${file}${kind}.libmoe-index`;
  const place = createHash('sha256').update(path.resolve(file)).digest('hex').slice(0, 12);
  return path.join(folder, `${path.basename(file)}-${place}${kind}.libmoe-index`);
}

/** Header line, then starts (f64), lengths (u32), words (i32) and numbers (u32) of all records, little endian. */
export function writeIndex(file: string, stamp: IndexStamp, index: RecordIndex): void {
  const { starts, lengths, words, numbers, bad, contentHash } = index;
  const columns = Buffer.concat(
    [starts, lengths, words, numbers].map(({ buffer, byteOffset, byteLength }) =>
      Buffer.from(buffer as ArrayBuffer, byteOffset, byteLength),
    ),
  );
  const header: Header = {
    format: 'libmoe-conversations',
    version: 1,
    stamp,
    records: starts.length,
    contentHash,
    bad,
    columnsHash: createHash('sha256').update(columns).digest('hex'),
  };
  writeFileAtomically(file, Buffer.concat([Buffer.from(`${JSON.stringify(header)}\n`), columns]));
}

/** The index if it is there, whole, and of this stamp. */
export function readIndex(file: string, stamp: IndexStamp): RecordIndex | undefined {
  if (!existsSync(file)) return undefined;
  try {
    const bytes = readFileSync(file);
    const end = bytes.indexOf(0x0a);
    const header = JSON.parse(bytes.toString('utf8', 0, end)) as Header;
    const columns = bytes.subarray(end + 1);
    const { records, bad, contentHash } = header;
    const fits =
      header.format === 'libmoe-conversations' &&
      header.version === 1 &&
      header.stamp.size === stamp.size &&
      header.stamp.modified === stamp.modified &&
      header.stamp.compat === stamp.compat &&
      columns.length === records * bytesPerRecord &&
      createHash('sha256').update(columns).digest('hex') === header.columnsHash;
    if (!fits) return undefined;
    // Typed arrays want an aligned beginning.
    const { buffer } = Uint8Array.from(columns);
    return {
      starts: new Float64Array(buffer, 0, records),
      lengths: new Uint32Array(buffer, 8 * records, records),
      words: new Int32Array(buffer, 12 * records, records),
      numbers: new Uint32Array(buffer, 16 * records, records),
      bad,
      contentHash,
    };
  } catch {
    return undefined; // it is simply made again
  }
}
