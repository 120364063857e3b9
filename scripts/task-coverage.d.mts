import type { checkExamples, resolveTask, taskNames } from '../ts/evaluation/index.ts';

/** One of LibMoE's tasks. */
export interface LibmoeTask {
  task: string;
  class: string;
  video?: boolean;
}
export function libmoeTasks(): {
  source: string;
  tasks: LibmoeTask[];
  reasons: { matches?: string; class?: string; why: string }[];
};
export function coveragePage(evaluation: {
  resolveTask: typeof resolveTask;
  taskNames: typeof taskNames;
  checkExamples: typeof checkExamples;
}): Promise<string>;
