import { type CorpusDocument, readCorpus, sotuSplits } from '../data/index.ts';
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

/** All of them at once, for held-out texts. */
export async function collect(source: Source): Promise<CorpusDocument[]> {
  const documents: CorpusDocument[] = [];
  for await (const document of documentsOf(source)) documents.push(document);
  return documents;
}
