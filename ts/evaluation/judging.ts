import { resolve } from 'node:path';
import { fail } from '../native/index.ts';
import type { ScorerMode } from './metrics.ts';
import { imagesAtHand } from './request-images.ts';
import { scoreBlockOf } from './response-scoring.ts';
import type { Results } from './results.ts';
import { type Judge, type JudgeClient, taskScorer } from './scorers/index.ts';
import type { AnsweredTask } from './scoring.ts';
import type { Task } from './task.ts';

/** What results say of the judge that was asked. */
export function judgeRecord(judge: Judge | JudgeClient): NonNullable<Results['libmoe']['judge']> {
  const { model } = judge;
  return 'calls' in judge ? { model, calls: judge.calls, failed: judge.failed } : { model };
}

/** Whether a judge takes part in the scores of a task, where one is at hand. */
export function takesJudge(task: Task, mode: ScorerMode): boolean {
  return (
    task.output_type === 'generate_until' &&
    taskScorer(task.task, scoreBlockOf(task), mode).judge !== undefined
  );
}

/**
 * A judge that is to look at images would leave documents whose files are gone without a score, in place of the one that they have.
 * Images that are made of others are no files: their documents have no score in the first place.
 * @throws ERR_LIBMOE_UNSUPPORTED naming documents whose images are not at hand
 */
export function checkJudgedImages({ task, questions, imageFiles }: AnsweredTask): void {
  if (task.output_type !== 'generate_until' || !looksAtImages(scoreBlockOf(task))) return;
  const without = questions.filter(
    ({ images }, i) =>
      images.every((name) => typeof name === 'string') &&
      (imageFiles?.[i] ?? imagesAtHand(images)) === undefined,
  );
  if (without.length > 0)
    fail(
      'ERR_LIBMOE_UNSUPPORTED',
      `task ${task.task}: the judge is to see the images of ${without.length} documents (${without
        .slice(0, 5)
        .map(({ docId }) => docId)
        .join(
          ', ',
        )}${without.length > 5 ? ', …' : ''}) whose files are not where the run found them: put them back, or evaluate again`,
    );
}

/** Whether a scorer, or one that it names, shows images to a judge. */
function looksAtImages(block: unknown): boolean {
  if (typeof block !== 'object' || block === null) return false;
  const { use, images } = block as { use?: unknown; images?: unknown };
  return (use === 'llm_judge' && images === true) || Object.values(block).some(looksAtImages);
}

/**
 * A judge's scores cannot be made again without one: they may be left out of new results, never out of those that have them.
 * @throws ERR_LIBMOE_UNSUPPORTED when results with a judge's scores were to be replaced by results without
 */
export function keepJudged(
  tasks: readonly Task[],
  before: Results,
  { folder, out, judge }: { folder: string; out: string; judge: Judge | undefined },
): void {
  const asked = before.libmoe.judge;
  if (asked === undefined || judge !== undefined || resolve(folder) !== resolve(out)) return;
  const judged = tasks.filter((task) => takesJudge(task, before.libmoe.scorer_mode));
  if (judged.length > 0)
    fail(
      'ERR_LIBMOE_UNSUPPORTED',
      `${folder} has scores by the judge ${asked.model} (${judged.map(({ task }) => task).join(', ')}), which would be lost: give a judge (--judge URL --judge-model ${asked.model}; what it answered is in judge-cache.jsonl), or another folder for the results without one (--out)`,
    );
}
