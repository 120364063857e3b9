import { basename, join } from 'node:path';
import { fail } from '../../../native/index.ts';
import { jsonRows } from '../readers/json.ts';
import { LocalImage, type PlacedRow, type SplitRows } from '../row.ts';
import type { SourceFile, SourceTree } from '../sources.ts';

const categories = ['adversarial', 'popular', 'random'];

/** Options of {@link popeLayout}. */
export interface PopeOptions {
  /** The folder of COCO's images, where they are not in the sources. */
  images?: string;
}

/**
 * POPE's files `…_pope_<category>.json` of `{question_id, image, text, label}` lines. As on the hub: split `test` of all, and a config `Full` with a
 * split per category; rows with id, question_id, question, answer, image_source, image, category.
 * @throws ERR_LIBMOE_DATA for other files
 */
export function popeLayout(tree: SourceTree, options: PopeOptions): SplitRows[] {
  const found = categories.flatMap((category) =>
    tree.files
      .filter(({ name }) => new RegExp(`(?:^|[^a-z])${category}\\.jsonl?$`).test(name))
      .map((file) => ({ category, file })),
  );
  if (found.length === 0)
    fail(
      'ERR_LIBMOE_DATA',
      `POPE has files coco_pope_random.json, _popular and _adversarial: expected them in the source`,
    );
  const inTree = new Map(tree.files.map(({ name, path }) => [basename(name), path]));
  const locate = (image: string) => inTree.get(image) ?? join(options.images ?? tree.roots[0] ?? '.', image);
  const splitOf = (config: string | null, split: string, parts: typeof found): SplitRows => ({
    config,
    split,
    imageFolders: [],
    async *rows() {
      let id = 0;
      for (const { category, file } of parts)
        for await (const row of rowsOf(file, category, locate)) {
          yield { ...row, row: { id: String(id), ...row.row } };
          id += 1;
        }
    },
  });
  return [
    splitOf(null, 'test', found),
    ...categories.flatMap((category) => {
      const parts = found.filter((each) => each.category === category);
      return parts.length === 0 ? [] : [splitOf('Full', category, parts)];
    }),
  ];
}

async function* rowsOf(
  file: SourceFile,
  category: string,
  locate: (image: string) => string,
): AsyncGenerator<PlacedRow> {
  for await (const { row, where } of jsonRows(file.path)) {
    const { question_id, image, text, label } = row;
    if (typeof image !== 'string' || typeof text !== 'string' || typeof label !== 'string')
      fail(
        'ERR_LIBMOE_DATA',
        `${where} must have texts in image, text and label, got ${JSON.stringify(row)}`,
      );
    const name = image as string;
    yield {
      where,
      row: {
        question_id: String(question_id),
        question: text,
        answer: label,
        image_source: name.replace(/\.\w+$/, ''),
        image: new LocalImage(locate(name)),
        category,
      },
    };
  }
}
