import { createReadStream } from 'node:fs';
import { open } from 'node:fs/promises';
import { Readable, type Transform } from 'node:stream';
import * as zlib from 'node:zlib';
import type { AsyncBuffer, FileMetaData } from 'hyparquet';
import { codeOf, fail } from '../native/index.ts';
import { reasonOf } from '../storage/json.ts';
import type { CorpusDocument } from './corpora.ts';

/**
 * How a text file is cut into documents: not at all, at blank lines, or before each line that the regular expression `begin` matches. What stands
 * before the first such line belongs to no document.
 */
export type TextDocuments = 'file' | 'blocks' | { begin: string };

/** What the readers need to know; {@link CorpusOptions} with its defaults filled in. */
export interface CorpusSettings {
  column: string;
  metaColumns: readonly string[];
  textDocuments: TextDocuments;
}

/** Documents of a plain text file. Files without text, and empty blocks, give none. */
export async function* readTextFile(file: string, settings: CorpusSettings): AsyncGenerator<CorpusDocument> {
  const { textDocuments } = settings;
  const begin = typeof textDocuments === 'object' ? new RegExp(textDocuments.begin) : undefined;
  const lines: string[] = [];
  let started = 1;
  let begun = begin === undefined;
  const take = (): CorpusDocument | undefined => {
    const joined = lines.join('\n');
    const text = begin ? joined.trimEnd() : joined;
    lines.length = 0;
    const id = textDocuments === 'file' ? file : `${file}:${started}`;
    return text.trim() === '' ? undefined : { text, id, meta: { file } };
  };
  for await (const [line, number] of numberedLines(file)) {
    const blank = textDocuments === 'blocks' && line.trim() === '';
    if (blank || begin?.test(line)) {
      const document = take();
      if (document) yield document;
      begun = true;
    }
    if (blank || !begun) continue;
    if (lines.length === 0) started = number;
    lines.push(line);
  }
  const document = take();
  if (document) yield document;
}

/** Documents of a JSON-lines file, one object per line; blank lines are passed over. */
export async function* readJsonlFile(file: string, settings: CorpusSettings): AsyncGenerator<CorpusDocument> {
  for await (const [line, number] of numberedLines(file)) {
    if (line.trim() === '') continue;
    const where = `${file}:${number}`;
    let row: unknown;
    try {
      row = JSON.parse(line);
    } catch (error) {
      fail('ERR_LIBMOE_DATA', `${where} is not JSON: ${(error as Error).message}`, error);
    }
    if (row === null || typeof row !== 'object' || Array.isArray(row))
      fail('ERR_LIBMOE_DATA', `${where} must be a JSON object`);
    yield documentOf(row as Record<string, unknown>, where, file, settings);
  }
}

/** Documents of a parquet file, one per row, read a row group at a time. */
export async function* readParquetFile(
  file: string,
  settings: CorpusSettings,
): AsyncGenerator<CorpusDocument> {
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
    const columns = [settings.column, ...settings.metaColumns];
    for (const column of columns) {
      if (!known.includes(column))
        fail('ERR_LIBMOE_DATA', `${file} has no column "${column}"; it has ${known.join(', ')}`);
    }
    let rowStart = 0;
    for (const group of metadata.row_groups) {
      const rowEnd = rowStart + Number(group.num_rows);
      const rows = await parquetReadObjects({
        file: buffer,
        metadata,
        columns,
        rowStart,
        rowEnd,
        compressors,
      }).catch(damaged);
      for (const [i, row] of rows.entries()) {
        yield documentOf(row as Record<string, unknown>, `${file}:${rowStart + i + 1}`, file, settings);
      }
      rowStart = rowEnd;
    }
  } finally {
    await handle.close();
  }
}

function documentOf(
  row: Record<string, unknown>,
  where: string,
  file: string,
  settings: CorpusSettings,
): CorpusDocument {
  const text = row[settings.column];
  if (typeof text !== 'string') {
    const got =
      settings.column in row
        ? `a ${text === null ? 'null' : typeof text}`
        : `only ${Object.keys(row).join(', ')}`;
    fail('ERR_LIBMOE_DATA', `${where} must have a string in "${settings.column}", got ${got}`);
  }
  const meta: Record<string, unknown> = { file };
  for (const column of settings.metaColumns) meta[column] = row[column];
  return { text, id: where, meta };
}

/** The lines of a text file, unpacked where it is packed, with their numbers from 1. */
async function* numberedLines(file: string): AsyncGenerator<[string, number]> {
  const source = createReadStream(file, { highWaterMark: 1 << 18 });
  const plain = file.endsWith('.gz')
    ? source.pipe(zlib.createGunzip())
    : file.endsWith('.zst')
      ? unpackZstd(source)
      : source;
  // An error of the file has to reach whoever reads the unpacked lines.
  if (plain !== source) source.once('error', (error) => plain.destroy(error));
  let number = 0;
  try {
    let rest = '';
    const decoder = new TextDecoder('utf-8');
    for await (const chunk of plain) {
      const lines = (rest + decoder.decode(chunk as Uint8Array, { stream: true })).split('\n');
      rest = lines.pop()!;
      for (const line of lines) yield [withoutReturn(line), ++number];
    }
    rest += decoder.decode();
    if (rest !== '') yield [withoutReturn(rest), ++number];
  } catch (error) {
    if (codeOf(error) !== undefined) throw error;
    const missing = ['ENOENT', 'EACCES', 'EISDIR'].includes(String((error as { code?: unknown }).code));
    if (missing) fail('ERR_LIBMOE_FILE', `cannot read ${file} (${reasonOf(error)})`, error);
    fail('ERR_LIBMOE_DATA', `${file} is damaged after line ${number}: ${reasonOf(error)}`, error);
  } finally {
    source.destroy();
    plain.destroy();
  }
}

const withoutReturn = (line: string): string => (line.endsWith('\r') ? line.slice(0, -1) : line);

interface NodeZstd {
  createZstdDecompress?: (options: { params: Record<number, number> }) => Transform;
  zstdDecompressSync: (data: Uint8Array) => Uint8Array;
  constants: Record<string, number>;
}

/** Two frames of one byte each ("a", "b" stored raw), to see whether a decoder goes on after the first. */
const twoFrames = Buffer.from('28b52ffd200109000061'.concat('28b52ffd200109000062'), 'hex');
let nodeZstd: NodeZstd | null | undefined;

/**
 * Node's own zstd, where there is one that reads all frames of a file: Node 22 stops after the first without a word, and parallel
 * compressors write many.
 */
function wholeNodeZstd(): NodeZstd | null {
  if (nodeZstd === undefined) {
    const candidate = zlib as unknown as NodeZstd;
    const whole = candidate.createZstdDecompress && candidate.zstdDecompressSync(twoFrames).length === 2;
    nodeZstd = whole ? candidate : null;
  }
  return nodeZstd;
}

/** Node's zstd, else a decoder in JavaScript at about a quarter of its speed. */
function unpackZstd(source: Readable): Readable {
  const node = wholeNodeZstd();
  if (!node) return Readable.from(unpackInScript(source));
  // SlimPajama's files look back over 2 GiB.
  return source.pipe(node.createZstdDecompress!({ params: { [node.constants.ZSTD_d_windowLogMax!]: 31 } }));
}

async function* unpackInScript(source: Readable): AsyncGenerator<Uint8Array> {
  const { Decompress } = await import('fzstd');
  let ready: Uint8Array[] = [];
  const decoder = new Decompress((data) => ready.push(data));
  for await (const chunk of source) {
    decoder.push(chunk as Uint8Array);
    yield* ready;
    ready = [];
  }
  decoder.push(new Uint8Array(0), true);
  yield* ready;
}
