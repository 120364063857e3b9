import { fail } from '../../../native/index.ts';
import { csvRows } from '../readers/csv.ts';
import type { PlacedRow, SplitRows } from '../row.ts';
import type { SourceFile, SourceTree } from '../sources.ts';

const columns = ['question', 'A', 'B', 'C', 'D', 'answer'];
const splitNames: Record<string, string> = { dev: 'dev', val: 'validation', test: 'test' };

/**
 * MMLU's folders `dev`, `val` and `test` of `<subject>_<folder>.csv` without header. As on the hub: a config per subject and `all`, rows with question,
 * subject, choices, answer (0…3).
 * @throws ERR_LIBMOE_DATA for other files, and for an answer that is no letter from A to D
 */
export function mmluLayout(tree: SourceTree): SplitRows[] {
  const found = tree.files.flatMap((file) => {
    const [, subject, folder] =
      /(?:^|\/)(?:dev|val|test)\/([^/]+)_(dev|val|test)\.csv$/.exec(file.name) ?? [];
    return subject === undefined ? [] : [{ subject, split: splitNames[folder!]!, file }];
  });
  if (found.length === 0)
    fail(
      'ERR_LIBMOE_DATA',
      'MMLU has folders dev, val and test with files SUBJECT_test.csv: expected them in the source',
    );
  const splits: SplitRows[] = [];
  for (const split of Object.values(splitNames)) {
    const files = found.filter((each) => each.split === split);
    if (files.length === 0) continue;
    splits.push(splitOf('all', split, files));
    for (const one of files) splits.push(splitOf(one.subject, split, [one]));
  }
  return splits;
}

const splitOf = (
  config: string,
  split: string,
  files: readonly { subject: string; file: SourceFile }[],
): SplitRows => ({
  config,
  split,
  imageFolders: [],
  async *rows() {
    for (const { subject, file } of files)
      for await (const placed of csvRows(file.path, { columns })) yield rowOf(placed, subject);
  },
});

function rowOf({ row, where }: PlacedRow, subject: string): PlacedRow {
  const answer = ['A', 'B', 'C', 'D'].indexOf(String(row.answer).trim());
  if (answer < 0)
    fail('ERR_LIBMOE_DATA', `${where}: the answer must be A, B, C or D, got ${JSON.stringify(row.answer)}`);
  return { row: { question: row.question, subject, choices: [row.A, row.B, row.C, row.D], answer }, where };
}
