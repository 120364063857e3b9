import { existsSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { isDeepStrictEqual } from 'node:util';
import { fail } from '../native/index.ts';
import { nearestKey } from '../storage/schema-errors.ts';
import { type ComparedNumber, comparedNumbers } from './compared-numbers.ts';
import { takesJudge } from './judging.ts';
import type { ScorerMode } from './metrics.ts';
import { type PairedError, pairedP } from './paired-difference.ts';
import { pairSamples } from './paired-samples.ts';
import { type Results, readResults, readSamples } from './results.ts';
import { groupStandardError } from './statistics.ts';
import type { Task } from './task.ts';

/** Which tasks are compared, and how strictly. */
export interface CompareOptions {
  /** Names of tasks, and of groups of the first folder for theirs. Default: all that every folder has. */
  tasks?: readonly string[];
  /** Compare also documents that were asked with other prompts (another chat template, other examples). */
  otherPrompts?: boolean;
}

/** Runs against the first of them, number by number. */
export interface ResultsComparison {
  scorer: ScorerMode;
  /** The folder that the others are compared with. */
  baseline: string;
  /** Per task the documents that are compared, by number: `0-99,120`. */
  documents: Record<string, string>;
  /** Tasks that not every folder has, and groups that are made of other tasks or in another way. */
  leftOut: string[];
  /** Groups that have a number, and the tasks that it is made of. */
  groups: Record<string, string[]>;
  runs: { run: string; numbers: ComparedNumber[] }[];
}

interface Opened {
  name: string;
  folder: string;
  results: Results;
}

/**
 * Compares evaluations of the same documents with the first one, by paired tests: what is hard in a document is hard for both runs and cancels.
 * Means are tested over the differences per document (by clusters where rows share an image), all other numbers by a jackknife over both runs.
 * @param paths folders that evaluations wrote, or their results.json
 * @throws ERR_LIBMOE_DATA when documents, prompts or the tasks' scoring differ, ERR_LIBMOE_FILE for a folder without results or samples
 */
export function compareResults(paths: readonly string[], options: CompareOptions = {}): ResultsComparison {
  const [baseline, ...others] = paths.map(openResults);
  if (baseline === undefined || others.length === 0)
    fail('ERR_LIBMOE_ARGUMENT', `compare expects two or more result folders, got ${paths.length}`);
  for (const other of others) {
    checkScorers(baseline, other);
    checkGuesses(baseline, other);
  }
  const all = [baseline, ...others];
  const { tasks, leftOut } = commonTasks(all, options.tasks);
  const comparison: ResultsComparison = {
    scorer: baseline.results.libmoe.scorer_mode,
    baseline: baseline.name,
    documents: {},
    groups: {},
    leftOut: [...new Set([...leftOut, ...others.flatMap((other) => otherGroups(baseline, other))])],
    runs: others.map(({ name }) => ({ run: name, numbers: [] })),
  };
  for (const task of tasks) {
    const before = readSamples(baseline.folder, task);
    comparison.documents[task] = ranges([...new Set(before.map(({ doc_id: id }) => id))]);
    for (const [i, other] of others.entries()) {
      checkScoring(task, baseline, other);
      checkJudges(task, baseline, other);
      const names = [baseline.name, other.name] as const;
      const after = pairSamples(task, before, readSamples(other.folder, task), names, options.otherPrompts);
      const pair = [
        { results: baseline.results, samples: before },
        { results: other.results, samples: after },
      ] as const;
      comparison.runs[i]!.numbers.push(...comparedNumbers(task, pair));
    }
  }
  for (const [i, other] of others.entries()) {
    const numbers = groupNumbers([baseline.results, other.results], comparison.runs[i]!.numbers);
    comparison.runs[i]!.numbers.push(...numbers);
    for (const { task } of numbers) comparison.groups[task] ??= leaves(task, baseline.results);
  }
  return comparison;
}

function openResults(path: string): Opened {
  const folder = basename(path) === 'results.json' ? dirname(path) : path;
  if (!existsSync(join(folder, 'results.json')))
    fail(
      'ERR_LIBMOE_FILE',
      `${path} has no results.json: expected a folder that eval --out wrote and finished (of a training run: eval/final in its folder)`,
    );
  return { name: folder, folder, results: readResults(folder) };
}

function checkScorers(a: Opened, b: Opened): void {
  const [one, other] = [a, b].map(({ results }) => results.libmoe?.scorer_mode);
  if (one === undefined || other === undefined)
    fail('ERR_LIBMOE_FILE', `${one === undefined ? a.name : b.name}: these are no results of libmoe eval`);
  if (one !== other)
    fail(
      'ERR_LIBMOE_DATA',
      `${a.name} has ${one} scores, ${b.name} has ${other} scores: "libmoe rescore ${b.name} --scorer ${one} --out FOLDER" makes them comparable`,
    );
}

function checkGuesses(a: Opened, b: Opened): void {
  const [one, other] = [a, b].map(({ results }) => results.libmoe.legacy_random_fallback ?? false);
  if (one !== other)
    fail(
      'ERR_LIBMOE_DATA',
      `${one ? a.name : b.name} has random guesses where no answer could be read, ${one ? b.name : a.name} has none: "libmoe rescore ${one ? a.name : b.name} --no-legacy-random-fallback --out FOLDER" makes them comparable`,
    );
}

function commonTasks(
  all: readonly Opened[],
  wanted: readonly string[] | undefined,
): { tasks: string[]; leftOut: string[] } {
  const every = [...new Set(all.flatMap(({ results }) => Object.keys(results.results)))];
  const lacking = (task: string): Opened | undefined => all.find(({ results }) => !(task in results.results));
  const chosen = wanted && [...new Set(wanted.flatMap((name) => leaves(name, all[0]!.results)))];
  for (const task of chosen ?? []) {
    const without = lacking(task);
    if (without === undefined) continue;
    const { results, groups = {} } = without.results;
    const near = nearestKey(task, [...Object.keys(results), ...Object.keys(groups)]);
    fail(
      'ERR_LIBMOE_ARGUMENT',
      `${without.name} has no results of task "${task}", ${near === undefined ? `it has ${Object.keys(results).join(', ')}` : `is "${near}" meant?`}`,
    );
  }
  const common = every.filter((task) => lacking(task) === undefined);
  if (common.length === 0)
    fail(
      'ERR_LIBMOE_DATA',
      `no task that all have: ${all.map(({ name, results }) => `${name} has ${Object.keys(results.results).join(', ')}`).join('; ')}`,
    );
  return {
    tasks: chosen ?? common,
    leftOut: every.filter((task) => lacking(task) !== undefined),
  };
}

function checkScoring(task: string, a: Opened, b: Opened): void {
  const keys = ['output_type', 'score', 'report', 'metric_list', 'filter_list'];
  const differing = keys.filter(
    (key) => !isDeepStrictEqual(a.results.configs[task]?.[key], b.results.configs[task]?.[key]),
  );
  if (differing.length > 0)
    fail(
      'ERR_LIBMOE_DATA',
      `task ${task} is scored otherwise in ${a.name} than in ${b.name} (${differing.join(', ')}): "libmoe rescore" scores both as the task is defined now`,
    );
}

/** Two judges are two measures; a run without one has the scores of what stands in for it. */
function checkJudges(task: string, a: Opened, b: Opened): void {
  const { libmoe, configs } = a.results;
  if (!takesJudge({ ...configs[task], task } as unknown as Task, libmoe.scorer_mode)) return;
  const [one, other] = [a, b].map(({ results }) => results.libmoe.judge?.model);
  if (one === other) return;
  const named = (model: string | undefined): string =>
    model === undefined ? 'without a judge' : `by the judge ${model}`;
  const [folder, model] = one === undefined ? [a.name, other] : [b.name, one];
  fail(
    'ERR_LIBMOE_DATA',
    `task ${task} is scored ${named(one)} in ${a.name} and ${named(other)} in ${b.name}: "libmoe rescore ${folder} --judge URL --judge-model ${model} --out FOLDER" makes them comparable`,
  );
}

/** Whether a group is made of the same tasks in the same way in both runs. */
function sameGroup(name: string, a: Results, b: Results): boolean {
  const [one, other] = [a, b].map((results) => ({
    tasks: leaves(name, results).toSorted(),
    aggregates: results.libmoe.groups?.find(({ group }) => group === name)?.aggregates,
  }));
  return isDeepStrictEqual(one, other);
}

/** Groups that both runs have under one name, made of other tasks or in another way: their numbers say nothing of each other. */
function otherGroups({ results: a }: Opened, { results: b }: Opened): string[] {
  return Object.keys(a.groups ?? {}).filter(
    (name) => b.groups?.[name] !== undefined && !sameGroup(name, a, b),
  );
}

/** Numbers of groups that both runs asked for; their error is that of their tasks' differences together. */
function groupNumbers(
  [a, b]: readonly [Results, Results],
  numbers: readonly ComparedNumber[],
): ComparedNumber[] {
  return (a.libmoe.groups ?? []).flatMap(({ group }) => {
    const [rowA = {}, rowB = {}] = [a.groups?.[group], b.groups?.[group]];
    if (!sameGroup(group, a, b)) return [];
    const tasks = leaves(group, a);
    return Object.keys(rowA).flatMap((key): ComparedNumber[] => {
      const [metric = '', filter] = key.split(',');
      const [x, y] = [rowA[key], rowB[key]];
      if (filter === undefined || metric.endsWith('_stderr')) return [];
      if (typeof x !== 'number' || typeof y !== 'number') return [];
      const members = tasks.map((task) =>
        numbers.find((one) => one.task === task && one.metric === metric && one.filter === filter),
      );
      if (!members.every((one) => one !== undefined)) return [];
      const sizes = members.map(({ documents }) => documents);
      const total = sizes.reduce((sum, n) => sum + n, 0);
      const errors = members.map(({ standardError }) => standardError ?? Number.NaN);
      const weighted = weighsBySize(a, group, metric);
      const together = groupStandardError(errors, sizes, weighted);
      const error: PairedError = {
        degrees: total - members.length,
        ...(Number.isFinite(together) && { standardError: together }),
      };
      const p = pairedP(y - x, error);
      const [full, ...rest] = new Set(members.map((one) => one.full));
      return [
        {
          task: group,
          metric,
          filter,
          higherIsBetter: a.higher_is_better[group]?.[metric] ?? true,
          ...(full !== undefined && rest.length === 0 && { full }),
          documents: total,
          differing: members.reduce((sum, { differing }) => sum + differing, 0),
          baseline: x,
          value: y,
          difference: y - x,
          ...(error.standardError !== undefined && { standardError: error.standardError }),
          ...(p !== undefined && { p }),
        },
      ];
    });
  });
}

function leaves(name: string, results: Results): string[] {
  const members = results.group_subtasks[name] ?? [];
  return members.length === 0 ? [name] : members.flatMap((member) => leaves(member, results));
}

function weighsBySize({ libmoe }: Results, group: string, metric: string): boolean {
  const aggregates = libmoe.groups?.find((one) => one.group === group)?.aggregates;
  if (aggregates === undefined || aggregates === 'every') return true;
  return aggregates.find((one) => one.metric === metric)?.weight_by_size ?? true;
}

/** Numbers in order as text: `0-99,120`. */
function ranges(numbers: readonly number[]): string {
  const sorted = numbers.toSorted((a, b) => a - b);
  const parts: [first: number, last: number][] = [];
  for (const n of sorted) {
    const part = parts.at(-1);
    if (part?.[1] === n - 1) part[1] = n;
    else parts.push([n, n]);
  }
  return parts.map(([first, last]) => (first === last ? `${first}` : `${first}-${last}`)).join(',');
}
