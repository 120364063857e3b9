import { statSync } from 'node:fs';
import { type CorpusDocument, corpusFiles, readCorpus, sotuSplits, sotuVersion } from '../data/index.ts';
import type { JsonValue } from '../storage/index.ts';
import type { Source } from './language-recipe.ts';

/** The documents that a recipe's source names, in a fixed order. */
export async function* documentsOf(source: Source): AsyncGenerator<CorpusDocument> {
  if ('dataset' in source) {
    yield* sotuSplits()[source.split];
    return;
  }
  const { files, column, textDocuments, select } = source;
  const documents = readCorpus(files, { ...(column && { column }), ...(textDocuments && { textDocuments }) });
  yield* select ? selected(documents, select) : documents;
}

type Select = NonNullable<Extract<Source, { files: unknown }>['select']>;

/** Documents of a fitting length (in Unicode characters); of these the `first` so many after `skip`. */
async function* selected(
  documents: AsyncIterable<CorpusDocument>,
  { minCharacters = 0, maxCharacters = Number.POSITIVE_INFINITY, skip = 0, first }: Select,
): AsyncGenerator<CorpusDocument> {
  const end = first === undefined ? Number.POSITIVE_INFINITY : skip + first;
  let number = 0;
  for await (const document of documents) {
    const { length } = Array.from(document.text);
    if (length < minCharacters || length > maxCharacters) continue;
    if (number >= skip) yield document;
    number += 1;
    if (number >= end) return;
  }
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
