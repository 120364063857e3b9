import { dirname, join } from 'node:path';
import { fail } from '../../../native/index.ts';
import { readJson, readText } from '../../../storage/json.ts';
import { LocalImage, type PlacedRow, type SplitRows } from '../row.ts';
import type { SourceTree } from '../sources.ts';

/**
 * The folder of easy-VQA: `answers.txt`, and in `train` and `test` a `questions.json` of `[question, answer, image number]` and
 * `images/<number>.png`. Rows: question, answer, image, image_id, choices (all answers, in the order of the file), kind.
 * @throws ERR_LIBMOE_DATA for other files
 */
export function easyVqaLayout(tree: SourceTree): SplitRows[] {
  const answers = tree.files.find(({ name }) => /(^|\/)answers\.txt$/.test(name));
  const questions = tree.files.filter(({ name }) => /(^|\/)(train|test)\/questions\.json$/.test(name));
  if (answers === undefined || questions.length === 0)
    return fail(
      'ERR_LIBMOE_DATA',
      'easy-VQA has answers.txt, train/questions.json and test/questions.json: expected them in the source',
    );
  const choices = readText(answers.path, 'ERR_LIBMOE_DATA')
    .split('\n')
    .map((line) => line.trim())
    .filter((line) => line !== '');
  return questions.map(({ path }) => {
    const split = dirname(path).endsWith('train') ? 'train' : 'test';
    return { config: null, split, imageFolders: [], rows: () => rowsOf(path, choices) };
  });
}

async function* rowsOf(path: string, choices: readonly string[]): AsyncGenerator<PlacedRow> {
  const list = readJson(path, 'ERR_LIBMOE_DATA');
  if (!Array.isArray(list)) return fail('ERR_LIBMOE_DATA', `${path} must hold a list of questions`);
  for (const [i, item] of list.entries()) {
    const where = `${path}, question ${i + 1}`;
    const [question, answer, image] = Array.isArray(item) ? item : [];
    if (typeof question !== 'string' || typeof answer !== 'string' || !Number.isInteger(image))
      fail(
        'ERR_LIBMOE_DATA',
        `${where} must be [question, answer, image number], got ${JSON.stringify(item)}`,
      );
    if (!choices.includes(answer as string))
      fail('ERR_LIBMOE_DATA', `${where}: the answer ${JSON.stringify(answer)} is not in answers.txt`);
    const file = new LocalImage(join(dirname(path), 'images', `${image}.png`));
    yield {
      row: { question, answer, image: file, image_id: image, choices, kind: kindOf(answer as string) },
      where,
    };
  }
}

/** The three kinds of questions, by their answers. */
function kindOf(answer: string): string {
  if (answer === 'yes' || answer === 'no') return 'yes/no';
  return ['circle', 'rectangle', 'triangle'].includes(answer) ? 'shape' : 'colour';
}
