import { statSync } from 'node:fs';
import { type CorpusDocument, corpusFiles, readCorpus, sotuSplits, sotuVersion } from '../data/index.ts';
import type { JsonValue } from '../storage/index.ts';
import type { Source } from './recipe.ts';

/** The documents that a recipe's source names, in a fixed order. */
export async function* documentsOf(source: Source): AsyncGenerator<CorpusDocument> {
  if ('dataset' in source) {
    yield* sotuSplits()[source.split];
    return;
  }
  const { files, column, textDocuments } = source;
  yield* readCorpus(files, { ...(column && { column }), ...(textDocuments && { textDocuments }) });
}

/** Stands for the documents of a source: it is the same as long as no file has another name, size or time. */
export function stampOf(source: Source): JsonValue {
  if ('dataset' in source) return [source.dataset, sotuVersion()];
  return corpusFiles(source.files).map((file) => {
    const { size, mtimeMs } = statSync(file);
    return [file, size, mtimeMs];
  });
}

/** All of them at once, for held-out texts. */
export async function collect(source: Source): Promise<CorpusDocument[]> {
  const documents: CorpusDocument[] = [];
  for await (const document of documentsOf(source)) documents.push(document);
  return documents;
}
