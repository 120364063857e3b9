import { basename, dirname, join } from 'node:path';
import { fail } from '../../../native/index.ts';
import { readText } from '../../../storage/json.ts';
import { LocalImage, type PlacedRow, type SplitRows } from '../row.ts';
import type { SourceFile, SourceTree } from '../sources.ts';

/**
 * MME in either of its forms: `<category>.txt` with lines of image, question and answer (what may follow is passed over), or one `<image>.txt` per
 * image with lines of question and answer, beside the image or in `questions_answers_YN` with the images in `images`. Parts of a line are separated by
 * tabs. As on the hub: split `test`, rows with question_id (`category/image`), image, question, answer, category.
 * @throws ERR_LIBMOE_DATA for other files, a line that is none of these, or a question without its image
 */
export function mmeLayout(tree: SourceTree): SplitRows[] {
  const images = new Map<string, SourceFile>();
  for (const file of tree.files) if (/\.(?:jpe?g|png)$/i.test(file.name)) images.set(file.path, file);
  const texts = tree.files
    .filter(({ name }) => /\.txt$/.test(name) && !/^readme/i.test(basename(name)))
    .sort((a, b) => (a.name < b.name ? -1 : 1));
  if (texts.length === 0)
    fail('ERR_LIBMOE_DATA', 'MME has a .txt per category or per image: expected them in the source');
  return [
    {
      config: null,
      split: 'test',
      imageFolders: [],
      async *rows() {
        for (const file of texts) yield* rowsOf(file, images);
      },
    },
  ];
}

function* rowsOf(file: SourceFile, images: ReadonlyMap<string, SourceFile>): Generator<PlacedRow> {
  const stem = basename(file.name, '.txt');
  for (const [i, line] of readText(file.path, 'ERR_LIBMOE_DATA').split('\n').entries()) {
    if (line.trim() === '') continue;
    const where = `${file.path}:${i + 1}`;
    const parts = line.replace(/\r$/, '').split('\t');
    const perImage = parts.length === 2;
    if (parts.length < 2)
      fail(
        'ERR_LIBMOE_DATA',
        `${where} must have image, question and answer (or the latter two) between tabs, got ${JSON.stringify(line)}`,
      );
    const [question, answer] = (perImage ? parts : parts.slice(1)).map((part) => part.trim());
    if (answer !== 'Yes' && answer !== 'No')
      fail('ERR_LIBMOE_DATA', `${where}: the answer must be Yes or No, got ${JSON.stringify(answer)}`);
    const folder = dirname(file.path);
    const category = perImage ? basename(withoutQuestions(folder)) : stem;
    const places = perImage
      ? ['.jpg', '.png', '.jpeg'].flatMap((ending) => [
          join(folder, stem + ending),
          join(folder, '..', 'images', stem + ending),
        ])
      : ['', 'images'].map((between) => join(folder, category, between, parts[0]!));
    const image = places.find((place) => images.has(place));
    if (image === undefined)
      fail('ERR_LIBMOE_DATA', `${where}: its image is missing: looked for ${places.join(', ')}`);
    yield {
      where,
      row: {
        question_id: `${category}/${basename(image as string)}`,
        image: new LocalImage(image as string),
        question,
        answer,
        category,
      },
    };
  }
}

const withoutQuestions = (folder: string): string =>
  basename(folder) === 'questions_answers_YN' ? dirname(folder) : folder;
