import { isDeepStrictEqual } from 'node:util';
import { fail } from '../native/index.ts';
import { loadDocuments } from './dataset.ts';
import { processRows } from './document-steps.ts';
import { MersenneTwister } from './mersenne.ts';
import type { Row, Task } from './task.ts';

/** lm-eval's default seed of few-shot sampling. */
export const fewshotSeed = 1234;

/**
 * The few-shot examples of a task's documents, drawn as lm-eval draws them: one generator per task, asked for document after document
 * in the order of the data set, so that the examples of a document do not depend on which others are evaluated.
 */
export class FewShots {
  private readonly random: MersenneTwister;

  /**
   * @param rows to draw from
   * @param own whether these are the evaluated rows too: then a document is never its own example
   */
  constructor(
    private readonly task: Task,
    private readonly rows: readonly Row[],
    private readonly own: boolean,
    seed: number = fewshotSeed,
  ) {
    const { num_fewshot: count } = task;
    if (rows.length < count + Number(own))
      fail(
        'ERR_LIBMOE_DATA',
        `task ${task.task}: ${count} few-shot examples are asked for, and there are ${rows.length} rows to take them from`,
      );
    this.random = new MersenneTwister(seed);
  }

  /** The examples of the next document. */
  next(doc: Row): Row[] {
    const { task, own } = this;
    const count = task.num_fewshot;
    if (count === 0) return [];
    const others = (rows: readonly Row[]): Row[] => rows.filter((row) => !isDeepStrictEqual(row, doc));
    if (task.fewshot_config?.sampler === 'first_n')
      return this.checked(own ? this.firstBeside(doc) : this.rows, doc);
    if (!own) return this.checked(this.random.sample(this.rows, count), doc);
    const drawn = others(this.random.sample(this.rows, count + 1)).slice(0, count);
    // Copies of the document among the rows: lm-eval draws anew from those that are none.
    return drawn.length === count ? drawn : this.checked(this.random.sample(others(this.rows), count), doc);
  }

  /** The first rows but the document, as many as are needed: rows may lie on disk. */
  private firstBeside(doc: Row): Row[] {
    const found: Row[] = [];
    for (let i = 0; i < this.rows.length && found.length < this.task.num_fewshot; i++)
      if (!isDeepStrictEqual(this.rows[i], doc)) found.push(this.rows[i]!);
    return found;
  }

  private checked(rows: readonly Row[], doc: Row): Row[] {
    const { task } = this;
    const taken = rows.slice(0, task.num_fewshot);
    if (taken.length < task.num_fewshot)
      fail(
        'ERR_LIBMOE_DATA',
        `task ${task.task}: there are not ${task.num_fewshot} rows beside the document itself`,
      );
    if (taken.some((row) => isDeepStrictEqual(row, doc)))
      fail(
        'ERR_LIBMOE_DATA',
        `task ${task.task}: a document would be its own few-shot example, answer included: name a fewshot_split with other rows`,
      );
    return taken;
  }
}

/**
 * Opens the rows that a task takes its few-shot examples from: those written out, else `fewshot_split`, else the training, validation
 * or test split. @throws as loadDocuments
 */
export async function fewShotsOf(
  task: Task,
  evaluated: readonly Row[],
  dataFolder: string | undefined,
): Promise<FewShots | undefined> {
  if (task.num_fewshot === 0) return undefined;
  const { samples, split: named } = task.fewshot_config ?? {};
  const split = named ?? task.fewshot_split ?? undefined;
  if (split === undefined && samples !== undefined) return new FewShots(task, samples, false);
  const from = split ?? task.training_split ?? task.validation_split ?? task.test_split ?? undefined;
  const own = task.test_split ?? task.validation_split ?? undefined;
  if (task.documents !== undefined || from === own) return new FewShots(task, evaluated, true);
  const { rows } = await loadDocuments(
    { ...task, test_split: from, validation_split: undefined },
    dataFolder,
  );
  return new FewShots(task, processRows(rows, task.process_docs, task.task), false);
}
