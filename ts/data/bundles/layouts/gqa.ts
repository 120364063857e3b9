import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fail } from '../../../native/index.ts';
import { LocalImage, type PlacedRow, type SplitRows } from '../row.ts';
import type { SourceTree } from '../sources.ts';
import { type FilesLayoutOptions, filesLayout } from '../split-files.ts';

/**
 * The hub's GQA keeps questions (`…_instructions`) and images (`…_images`) in configs of their own: joined here by imageId, under the name of the
 * questions' config, with a column `image`.
 * @throws ERR_LIBMOE_DATA where a config of questions has none of images, or a question's image is not among them
 */
export function gqaLayout(tree: SourceTree, options: FilesLayoutOptions): SplitRows[] {
  const splits = filesLayout(tree, options);
  const joined = splits.flatMap((questions) => {
    const base = /^(.+)_instructions$/.exec(questions.config ?? '')?.[1];
    if (base === undefined) return [];
    const images = splits.find(
      ({ config, split }) => config === `${base}_images` && split === questions.split,
    );
    if (images === undefined)
      return fail(
        'ERR_LIBMOE_DATA',
        `${questions.config} has questions, but ${base}_images with their images is not in the sources`,
      );
    return [{ ...questions, rows: () => rowsOf(questions, images, join(tree.scratch, 'gqa', base)) }];
  });
  if (joined.length === 0)
    fail('ERR_LIBMOE_DATA', 'GQA has configs …_instructions and …_images: expected them in the source');
  return joined;
}

async function* rowsOf(questions: SplitRows, images: SplitRows, scratch: string): AsyncGenerator<PlacedRow> {
  const files = new Map<string, LocalImage>();
  mkdirSync(scratch, { recursive: true });
  for await (const { row, where } of images.rows()) {
    const { bytes } = (row.image ?? {}) as { bytes?: unknown };
    if (typeof row.id !== 'string' || !(bytes instanceof Uint8Array))
      fail('ERR_LIBMOE_DATA', `${where} must have an id and an image with bytes`);
    // On disk until it is asked for: all images of the training split are several gigabytes.
    const file = join(scratch, String(files.size));
    writeFileSync(file, bytes as Uint8Array);
    files.set(row.id as string, new LocalImage(file));
  }
  for await (const { row, where } of questions.rows()) {
    const image = files.get(String(row.imageId));
    if (image === undefined)
      fail(
        'ERR_LIBMOE_DATA',
        `${where}: there is no image ${JSON.stringify(row.imageId)} in ${images.config}`,
      );
    yield { row: { ...row, image }, where };
  }
}
