import { createHash } from 'node:crypto';
import { readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import type { RecipeInput } from '../../ts/experiment/index.ts';

const words = 'one two three four five six seven eight nine ten eleven twelve thirteen'.split(' ');

/** A corpus of `documents` short texts in `<folder>/corpus.txt`. */
export function tinyCorpus(folder: string, documents = 60): string {
  const file = path.join(folder, 'corpus.txt');
  const text = (i: number) => Array.from({ length: 30 }, (_, j) => words[(i * 7 + j * j) % 13]).join(' ');
  writeFileSync(file, Array.from({ length: documents }, (_, i) => text(i)).join('\n\n'));
  return file;
}

/** A mixture of experts that trains in milliseconds. */
export function tinyRecipe(corpus: string): RecipeInput {
  const expert = { hidden: 16 };
  return {
    name: 'tiny',
    tokenizer: { train: { vocabularySize: 60 } },
    data: {
      train: { files: corpus, textDocuments: 'blocks' },
      heldOut: { same: { files: corpus } },
      sequenceLength: 16,
      batchSequences: 4,
      workers: 0,
    },
    model: { dModel: 16, layers: 2, heads: 2, moe: { experts: 4, topK: 2, expert } },
    training: { steps: 6, checkpointEvery: 3 },
    evaluation: { maxCharacters: 40 },
  };
}

/** Every file below a folder with its checksum and time: equal means untouched. */
export function traces(folder: string): Record<string, string> {
  const files = readdirSync(folder, { recursive: true, withFileTypes: true }).filter((e) => e.isFile());
  return Object.fromEntries(
    files.map((entry) => {
      const file = path.join(entry.parentPath, entry.name);
      const hash = createHash('sha256').update(readFileSync(file)).digest('hex');
      return [path.relative(folder, file), `${hash} ${statSync(file).mtimeMs}`];
    }),
  );
}
