import { existsSync, readdirSync, statSync } from 'node:fs';
import { join, relative, resolve, sep } from 'node:path';
import { fail } from '../native/index.ts';
import { readJsonlFile, readParquetFile, readTextFile, type TextDocuments } from './corpus-files.ts';
import { quoted } from './word-encoder.ts';

/** One document of a corpus. */
export interface CorpusDocument {
  text: string;
  /** Unique in the corpus: file, then line or row where a file holds several. */
  id: string;
  meta: Readonly<Record<string, unknown>>;
}

/** Options of {@link readCorpus}. */
export interface CorpusOptions {
  /** Column that holds the text in jsonl and parquet files (default `text`). */
  column?: string;
  /** Further columns to keep in `meta`. */
  metaColumns?: readonly string[];
  /** A .txt file is one document (default), one per block between blank lines, or one from each line that matches `begin` to the next. */
  textDocuments?: TextDocuments;
}

const kinds = /\.(?:txt|jsonl|ndjson|parquet|(?:txt|jsonl|ndjson)\.(?:gz|zst))$/;

/**
 * The files of a corpus in the order in which they are read. A source is a file, a folder (searched to any depth, file names sorted) or a
 * pattern with `*`, `**` and `?`.
 * @throws ERR_LIBMOE_FILE when a source matches nothing that can be read.
 */
export function corpusFiles(sources: string | readonly string[]): string[] {
  const files: string[] = [];
  for (const source of typeof sources === 'string' ? [sources] : sources) {
    const found = existsSync(source) ? existing(source) : matching(source);
    if (found.length === 0) {
      fail(
        'ERR_LIBMOE_FILE',
        `expected corpus files (.txt, .jsonl, .parquet; .txt and .jsonl also .gz and .zst), but ${source} ` +
          `${existsSync(source) ? 'holds none' : 'does not exist and matches none'}`,
      );
    }
    files.push(...found);
  }
  return files;
}

/**
 * Reads the documents of text, JSON-lines and parquet files, one at a time and always in the same order.
 * @throws ERR_LIBMOE_FILE for missing or unreadable files, ERR_LIBMOE_DATA with file and line for damaged content or a missing column.
 */
export async function* readCorpus(
  sources: string | readonly string[],
  options: CorpusOptions = {},
): AsyncGenerator<CorpusDocument> {
  const settings = {
    column: options.column ?? 'text',
    metaColumns: options.metaColumns ?? [],
    textDocuments: options.textDocuments ?? ('file' as const),
  };
  for (const file of corpusFiles(sources)) {
    if (file.endsWith('.parquet')) yield* readParquetFile(file, settings);
    else if (/\.txt(\.gz|\.zst)?$/.test(file)) yield* readTextFile(file, settings);
    else yield* readJsonlFile(file, settings);
  }
}

/** Only the texts of documents, for {@link trainTokenizer}. */
export async function* textsOf(
  documents: Iterable<CorpusDocument> | AsyncIterable<CorpusDocument>,
): AsyncGenerator<string> {
  for await (const document of documents) yield document.text;
}

function existing(source: string): string[] {
  if (!statSync(source).isDirectory()) {
    if (!kinds.test(source)) {
      fail(
        'ERR_LIBMOE_FILE',
        `${source} must end in .txt, .jsonl or .parquet (.txt and .jsonl also with .gz or .zst)`,
      );
    }
    return [source];
  }
  return filesBelow(source).filter((file) => kinds.test(file));
}

function filesBelow(folder: string): string[] {
  return readdirSync(folder, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name))
    .sort();
}

function matching(pattern: string): string[] {
  if (!/[*?]/.test(pattern)) return [];
  const whole = resolve(pattern);
  const parts = whole.split(sep);
  const root =
    parts
      .slice(
        0,
        parts.findIndex((part) => /[*?]/.test(part)),
      )
      .join(sep) || sep;
  if (!existsSync(root)) return [];
  const expression = relative(root, whole)
    .split(/(\*\*\/|\*\*|\*|\?)/)
    .map((part) => ({ '**/': '(?:.*/)?', '**': '.*', '*': '[^/]*', '?': '[^/]' })[part] ?? quoted(part))
    .join('');
  const test = new RegExp(`^${expression}$`);
  return filesBelow(root).filter(
    (file) => test.test(relative(root, file).split(sep).join('/')) && kinds.test(file),
  );
}
