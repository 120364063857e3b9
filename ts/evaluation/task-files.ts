import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { basename, dirname, join, resolve } from 'node:path';
import type { z } from 'zod';
import { fail, packageRoot } from '../native/index.ts';
import { explainIssues, nearestKey } from '../storage/schema-errors.ts';
import {
  checkedTask,
  defineTask,
  registeredTask,
  registeredTaskNames,
  type Task,
  type TaskInput,
  taskSchema,
} from './task.ts';
import { defineGroup, type groupSchema } from './task-groups.ts';
import { type LocatedYaml, parseLocated } from './task-location.ts';

/** A task by name, by file path, or written out; `{ task: 'piqa', dataset_kwargs: … }` overrides keys of a known task. */
export type TaskChoice = string | TaskInput | ({ task: string } & Record<string, unknown>);

/** The folder of the tasks that come with the package. */
export const taskFolder: string = join(packageRoot, 'tasks');

/**
 * Names of all tasks: those registered from code and the files of `tasks/` (files that only serve as a base, whose names
 * begin with `_`, are left out).
 */
export function taskNames(folder: string = taskFolder, read = new ReadTasks()): string[] {
  return [...new Set([...registeredTaskNames(), ...taskPaths(folder, read).keys()])].sort();
}

/** What has been read of task files: given to several calls, folders are listed once, and a base of many tasks is parsed once. */
export class ReadTasks {
  /** Files by name, by folder. */
  readonly paths = new Map<string, Map<string, string>>();
  /** @internal */
  readonly files = new Map<string, LocatedYaml>();
}

/** Files of tasks and groups by name. */
export function taskPaths(folder: string, read = new ReadTasks()): Map<string, string> {
  const known = read.paths.get(folder);
  if (known !== undefined) return known;
  const paths = new Map<string, string>();
  read.paths.set(folder, paths);
  if (!existsSync(folder)) return paths;
  for (const file of readdirSync(folder, { recursive: true, encoding: 'utf8' }).sort()) {
    if (!/\.ya?ml$/.test(file) || basename(file).startsWith('_')) continue;
    paths.set(basename(file).replace(/\.ya?ml$/, ''), join(folder, file));
  }
  return paths;
}

/** What a file of tasks holds: keys, and which file (with its lines) each stands in. */
interface FileContent {
  content: Record<string, unknown>;
  origins: Map<string, LocatedYaml>;
}

/**
 * Reads a task file, its `include`d bases first: the file's own keys win; with several bases the first listed wins over
 * the later ones. Maps of `dataset_kwargs`, `pair` and `metadata` are merged key by key.
 * @throws ERR_LIBMOE_FILE if it cannot be read, ERR_LIBMOE_CONFIG naming file, line and key if it is no valid task or includes itself
 */
export function readTaskFile(path: string, read = new ReadTasks()): Task {
  const file = readTaskOrGroup(path, read);
  if ('output_type' in file) return file;
  return fail('ERR_LIBMOE_CONFIG', `${path} is the group ${file.group} and no task`);
}

/** As {@link readTaskFile}, of a file that may also be a group. */
export function readTaskOrGroup(
  path: string,
  read = new ReadTasks(),
): Task | (z.output<typeof groupSchema> & { folder: string }) {
  const { content, origins } = readWithBases(resolve(path), [], read);
  const name = basename(path).replace(/\.ya?ml$/, '');
  const folder = dirname(resolve(path));
  if (Array.isArray(content.task)) return { ...defineGroup({ group: name, ...content }), folder };
  if (content.task === undefined) content.task = name;
  const parsed = taskSchema.safeParse(content);
  if (parsed.success) return checkedTask(parsed.data, content, folder);
  const [issue] = parsed.error.issues;
  const keys = issue!.code === 'unrecognized_keys' ? [...issue!.path, issue!.keys[0]!] : issue!.path;
  const origin = origins.get(String(keys[0]));
  const line = origin?.lineOf(keys);
  return fail(
    'ERR_LIBMOE_CONFIG',
    `${origin?.file ?? path}${line === undefined ? '' : `:${line}`}: task ${String(content.task)}: ${explainIssues(taskSchema, parsed.error.issues, content)}`,
  );
}

function readWithBases(path: string, above: readonly string[], read: ReadTasks): FileContent {
  if (above.includes(path))
    fail('ERR_LIBMOE_CONFIG', `task file ${path} includes itself: ${[...above, path].join(' → ')}`);
  const located = read.files.get(path) ?? parseLocated(sourceOf(path), path);
  read.files.set(path, located);
  const { content } = located;
  if (typeof content !== 'object' || content === null || Array.isArray(content))
    fail(
      'ERR_LIBMOE_CONFIG',
      `task file ${path} must hold a map of keys, got ${JSON.stringify(content)?.slice(0, 60)}`,
    );
  const { include, ...own } = content as Record<string, unknown>;
  const bases = include === undefined ? [] : Array.isArray(include) ? include : [include];
  let merged: Record<string, unknown> = {};
  const origins = new Map<string, LocatedYaml>();
  for (const base of bases.toReversed()) {
    if (typeof base !== 'string')
      fail('ERR_LIBMOE_CONFIG', `${path}: include takes file names, got ${JSON.stringify(base)}`);
    const below = readWithBases(resolve(dirname(path), base), [...above, path], read);
    merged = merge(merged, below.content);
    for (const [key, origin] of below.origins) origins.set(key, origin);
  }
  for (const key of Object.keys(own)) origins.set(key, located);
  return { content: merge(merged, own), origins };
}

function sourceOf(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch (cause) {
    return fail('ERR_LIBMOE_FILE', `cannot read task file ${path}`, cause);
  }
}

function merge(base: Record<string, unknown>, own: Record<string, unknown>): Record<string, unknown> {
  const merged = { ...base, ...own };
  for (const key of ['dataset_kwargs', 'generation_kwargs', 'pair', 'metadata']) {
    const [under, over] = [base[key], own[key]];
    if (isMap(under) && isMap(over)) merged[key] = { ...under, ...over };
  }
  return merged;
}

function isMap(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/**
 * The task that a caller means.
 * @throws ERR_LIBMOE_CONFIG for an unknown name (the nearest known one is suggested) or an invalid task
 */
export function resolveTask(choice: TaskChoice, folder: string = taskFolder, read = new ReadTasks()): Task {
  if (typeof choice !== 'string') {
    const known = findTask(choice.task, folder, read);
    return known === undefined || 'output_type' in choice
      ? defineTask(choice)
      : defineTask(merge(known as unknown as Record<string, unknown>, choice));
  }
  if (/\.ya?ml$/.test(choice)) return readTaskFile(choice, read);
  return findTask(choice, folder, read) ?? unknownTask(choice, taskNames(folder, read));
}

/** Says that there is no such task, and which one was probably meant. */
export function unknownTask(name: string, names: readonly string[]): never {
  const near = nearestKey(name, names);
  return fail(
    'ERR_LIBMOE_CONFIG',
    `no task "${name}"${near ? `, did you mean "${near}"?` : '.'} Known tasks: ${names.join(', ')}`,
  );
}

function findTask(name: string, folder: string, read: ReadTasks): Task | undefined {
  const fromCode = registeredTask(name);
  if (fromCode !== undefined) return fromCode;
  const path = taskPaths(folder, read).get(name);
  return path === undefined ? undefined : readTaskFile(path, read);
}
