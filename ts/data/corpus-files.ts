import { fail } from '../native/index.ts';
import type { CorpusDocument } from './corpora.ts';
import { unpackedBytes } from './packed-file.ts';
import { parquetRows } from './parquet.ts';

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
  const columns = [settings.column, ...settings.metaColumns];
  for await (const [row, number] of parquetRows(file, { columns }))
    yield documentOf(row, `${file}:${number}`, file, settings);
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
  let number = 0;
  let rest = '';
  const decoder = new TextDecoder('utf-8');
  for await (const chunk of unpackedBytes(file, () => `line ${number}`)) {
    const lines = (rest + decoder.decode(chunk, { stream: true })).split('\n');
    rest = lines.pop()!;
    for (const line of lines) yield [withoutReturn(line), ++number];
  }
  rest += decoder.decode();
  if (rest !== '') yield [withoutReturn(rest), ++number];
}

const withoutReturn = (line: string): string => (line.endsWith('\r') ? line.slice(0, -1) : line);
