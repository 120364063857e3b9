import {
  chooseTasks,
  heldOutTextTask,
  type Task,
  type TaskChoice,
  wordOrderTask,
} from '../evaluation/index.ts';
import { taskMetrics } from '../evaluation/scoring.ts';
import { fail } from '../native/index.ts';
import { nearestKey } from '../storage/schema-errors.ts';
import type { AnyRecipe } from './recipe.ts';

type Evaluated = Exclude<AnyRecipe, { kind: 'image-text' }>;

/** What is asked during training: the tasks that are asked at the end, or those that `evaluation.during` names; a name means the recipe's own first. */
export function askedDuring({ evaluation }: Evaluated, tasks: readonly TaskChoice[]): readonly TaskChoice[] {
  const named = (name: TaskChoice): TaskChoice =>
    tasks.find((own) => own === name || (typeof own === 'object' && own.task === name)) ??
    // A file's or a group's task by its own name.
    (tasks.length > 0 ? chooseTasks(tasks).tasks.find(({ task }) => task === name) : undefined) ??
    name;
  return evaluation.during?.tasks?.map(named) ?? tasks;
}

/**
 * Refuses a recipe whose best is one by a number that its evaluations cannot give, as far as the tasks tell without their data: which numbers there
 * are of written answers, of groups of tasks and by column shows when the evaluation is rehearsed, before the first step.
 * @throws ERR_LIBMOE_RECIPE, and ERR_LIBMOE_CONFIG for an unknown task
 */
export function checkBestMetric(recipe: AnyRecipe): void {
  if (recipe.kind === 'image-text' || !recipe.evaluation.best) return;
  const { metric } = recipe.evaluation.best;
  const asked = askedDuring(recipe, [...ownTasks(recipe), ...recipe.evaluation.tasks]);
  if (asked.length === 0)
    refuse('nothing is evaluated during training: set data.heldOut or evaluation.tasks');
  const { tasks, groups } = chooseTasks(asked);
  const isOpen = ({ output_type, group_by }: Task): boolean =>
    output_type === 'generate_until' || group_by !== undefined;
  const open = [...tasks.filter(isOpen).map(({ task }) => task), ...groups.map(({ group }) => group)];
  const known = tasks.flatMap((task) =>
    task.output_type === 'generate_until'
      ? []
      : [...taskMetrics(task).keys()].map((name) => `${task.task}/${name}`),
  );
  if (known.includes(metric) || open.some((name) => metric.startsWith(`${name}/`))) return;
  refuseMetric(metric, [...known, ...open.map((name) => `${name}/…`)]);
}

/** Held-out texts and word order without their texts. */
function ownTasks(recipe: Evaluated): Task[] {
  if (recipe.kind !== 'language') return [];
  return [
    ...Object.keys(recipe.data.heldOut).map((name) => heldOutTextTask(name, [])),
    ...(recipe.evaluation.wordOrder ? [wordOrderTask('word-order', [])] : []),
  ];
}

/** A metric that no evaluation during training gives. */
export function refuseMetric(metric: string, known: readonly string[]): never {
  const near = nearestKey(metric, known);
  const listed = known.slice(0, 12).join(', ') + (known.length > 12 ? ', …' : '');
  return refuse(
    `no evaluation during training gives "${metric}"; ${near === undefined ? `expected TASK/METRIC: ${listed}` : `did you mean "${near}"?`}`,
  );
}

const refuse = (message: string): never => fail('ERR_LIBMOE_RECIPE', `evaluation.best.metric: ${message}`);
