import { resolve } from 'node:path';
import { fail } from '../native/index.ts';
import { scoreBlockOf } from './response-scoring.ts';
import type { Results } from './results.ts';
import { type Judge, type JudgeClient, taskScorer } from './scorers/index.ts';
import type { Task } from './task.ts';

/** What results say of the judge that was asked. */
export function judgeRecord(judge: Judge | JudgeClient): NonNullable<Results['libmoe']['judge']> {
  const { model } = judge;
  return 'calls' in judge ? { model, calls: judge.calls, failed: judge.failed } : { model };
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
  const judged = tasks.filter(
    (task) =>
      task.output_type === 'generate_until' &&
      taskScorer(task.task, scoreBlockOf(task), before.libmoe.scorer_mode).judge !== undefined,
  );
  if (judged.length > 0)
    fail(
      'ERR_LIBMOE_UNSUPPORTED',
      `${folder} has scores by the judge ${asked.model} (${judged.map(({ task }) => task).join(', ')}), which would be lost: give a judge (--judge URL --judge-model ${asked.model}; what it answered is in judge-cache.jsonl), or another folder for the results without one (--out)`,
    );
}
