import { z } from 'zod';
import { fail } from '../native/index.ts';
import { explainIssues } from '../storage/schema-errors.ts';
import type { Results } from './results.ts';
import { orMissing } from './scoring.ts';
import { exactSum, groupStandardError } from './statistics.ts';

const aggregateSchema = z.strictObject({
  metric: z.string(),
  aggregation: z.literal('mean', 'groups have means only').default('mean'),
  /** Every document counts alike; false: every task. */
  weight_by_size: z.boolean().default(true),
  /** Pipelines of responses; default: all. */
  filter_list: z.union([z.string(), z.array(z.string())]).optional(),
});

/** A file that lists tasks: `task` is a list of names, of known tasks with keys overridden, or of groups written out. */
export const groupSchema = z.strictObject({
  group: z.string(),
  group_alias: z.string().optional(),
  task: z.array(z.union([z.string(), z.record(z.string(), z.unknown())])).min(1),
  tag: z.union([z.string(), z.array(z.string())]).optional(),
  aggregate_metric_list: z.union([aggregateSchema, z.array(aggregateSchema).min(1)]).optional(),
  metadata: z.looseObject({ version: z.union([z.string(), z.number()]).optional() }).default({}),
});

/** How a group's number is made of its tasks'. */
export type GroupAggregate = z.output<typeof aggregateSchema>;

/** Tasks under one name. */
export interface TaskGroup {
  group: string;
  alias?: string;
  /** Names of tasks, and groups within. */
  members: (string | TaskGroup)[];
  /** Undefined: no number of its own. `every`: the mean over documents of each metric that all members have (LibMoE's groups). */
  aggregates?: readonly GroupAggregate[] | 'every';
  version?: string | number;
}

/** Checks the content of a group file. @throws ERR_LIBMOE_CONFIG */
export function defineGroup(content: unknown): z.output<typeof groupSchema> {
  const parsed = groupSchema.safeParse(content);
  if (parsed.success) return parsed.data;
  const { group } = content as { group?: unknown };
  return fail(
    'ERR_LIBMOE_CONFIG',
    `group ${String(group)}: ${explainIssues(groupSchema, parsed.error.issues, content)}`,
  );
}

/** Names of all tasks of a group. */
export function tasksOfGroup({ members }: TaskGroup): string[] {
  return members.flatMap((member) => (typeof member === 'string' ? [member] : tasksOfGroup(member)));
}

/** Enters the numbers of groups into results that have those of their tasks. */
export function enterGroups(results: Results, groups: readonly TaskGroup[]): void {
  for (const group of groups) {
    enterGroups(
      results,
      group.members.filter((member) => typeof member !== 'string'),
    );
    const name = group.group;
    results.group_subtasks[name] = group.members.map((member) =>
      typeof member === 'string' ? member : member.group,
    );
    results.versions[name] = group.version ?? 'N/A';
    const row: Record<string, number | string> = { alias: group.alias ?? name };
    const tasks = tasksOfGroup(group);
    row.sample_len = tasks.reduce((sum, task) => sum + (results['n-samples'][task]?.effective ?? 0), 0);
    const better: Record<string, boolean> = {};
    for (const [key, weighted] of keysOf(group, tasks, results)) {
      const [metric = '', filter = ''] = key.split(',');
      const { value, error } = together(results, tasks, metric, filter, weighted);
      row[key] = orMissing(value);
      row[`${metric}_stderr,${filter}`] = orMissing(error);
      better[metric] = results.higher_is_better[tasks[0]!]?.[metric] ?? true;
    }
    results.higher_is_better[name] = better;
    results.groups = { ...results.groups, [name]: row };
  }
}

/** Keys `metric,filter` that a group has numbers for, and whether documents or tasks count alike. */
function keysOf(
  { group, aggregates }: TaskGroup,
  tasks: readonly string[],
  results: Results,
): [key: string, weighted: boolean][] {
  if (aggregates === undefined) return [];
  const metricsOf = (task: string): string[] =>
    Object.keys(results.results[task] ?? {}).filter((key) => {
      const [metric, filter] = key.split(',');
      return filter !== undefined && !metric?.endsWith('_stderr') && !metric?.includes('/');
    });
  const all = metricsOf(tasks[0]!).filter((key) => tasks.every((task) => metricsOf(task).includes(key)));
  if (aggregates === 'every') return all.map((key) => [key, true]);
  return aggregates.flatMap(({ metric, weight_by_size: weighted, filter_list: filters }) => {
    const wanted = filters === undefined ? undefined : [filters].flat();
    const keys = all.filter((key) => {
      const [name, filter] = key.split(',');
      return name === metric && (wanted === undefined || wanted.includes(filter!));
    });
    if (keys.length === 0)
      fail(
        'ERR_LIBMOE_CONFIG',
        `group ${group}: not all of its tasks have the metric "${metric}"; they share ${all.join(' ') || 'none'}`,
      );
    return keys.map((key): [string, boolean] => [key, weighted]);
  });
}

function together(
  results: Results,
  tasks: readonly string[],
  metric: string,
  filter: string,
  weighted: boolean,
): { value?: number; error?: number } {
  const values = tasks.map((task) => results.results[task]![`${metric},${filter}`]);
  const errors = tasks.map((task) => results.results[task]![`${metric}_stderr,${filter}`]);
  const sizes = tasks.map((task) => results['n-samples'][task]!.effective);
  if (!values.every((value) => typeof value === 'number')) return {};
  const weights = weighted ? sizes : sizes.map(() => 1);
  const value = exactSum(values.map((one, i) => one * weights[i]!)) / exactSum(weights);
  if (!errors.every((error) => typeof error === 'number')) return { value };
  return { value, error: groupStandardError(errors, sizes, weighted) };
}
