import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { basename, dirname, join, resolve } from 'node:path';
import { parse } from 'yaml';
import { fail, packageRoot } from '../native/index.ts';
import { nearestKey } from '../storage/schema-errors.ts';
import { defineTask, registeredTask, registeredTaskNames, type Task, type TaskInput } from './task.ts';

/** A task by name, by file path, or written out; `{ task: 'piqa', dataset_kwargs: … }` overrides keys of a known task. */
export type TaskChoice = string | TaskInput | ({ task: string } & Record<string, unknown>);

/** The folder of the tasks that come with the package. */
export const taskFolder: string = join(packageRoot, 'tasks');

/**
 * Names of all tasks: those registered from code and the files of `tasks/` (files that only serve as a base, whose names
 * begin with `_`, are left out).
 */
export function taskNames(folder: string = taskFolder): string[] {
  return [...new Set([...registeredTaskNames(), ...taskPaths(folder).keys()])].sort();
}

function taskPaths(folder: string): Map<string, string> {
  const paths = new Map<string, string>();
  if (!existsSync(folder)) return paths;
  for (const file of readdirSync(folder, { recursive: true, encoding: 'utf8' }).sort()) {
    if (!/\.ya?ml$/.test(file) || basename(file).startsWith('_')) continue;
    paths.set(basename(file).replace(/\.ya?ml$/, ''), join(folder, file));
  }
  return paths;
}

/**
 * Reads a task file, its `include`d bases first: the file's own keys win; with several bases the first listed wins over
 * the later ones. Maps of `dataset_kwargs`, `pair` and `metadata` are merged key by key.
 * @throws ERR_LIBMOE_FILE if it cannot be read, ERR_LIBMOE_CONFIG if it is no valid task or includes itself
 */
export function readTaskFile(path: string): Task {
  const content = readWithBases(resolve(path), []);
  const name = basename(path).replace(/\.ya?ml$/, '');
  if (content.task === undefined) content.task = name;
  return defineTask({ ...content, folder: dirname(resolve(path)) });
}

function readWithBases(path: string, above: readonly string[]): Record<string, unknown> {
  if (above.includes(path))
    fail('ERR_LIBMOE_CONFIG', `task file ${path} includes itself: ${[...above, path].join(' → ')}`);
  let source: string;
  try {
    source = readFileSync(path, 'utf8');
  } catch (cause) {
    return fail('ERR_LIBMOE_FILE', `cannot read task file ${path}`, cause);
  }
  let content: unknown;
  try {
    content = parse(source);
  } catch (cause) {
    return fail(
      'ERR_LIBMOE_CONFIG',
      `task file ${path} is not valid YAML: ${(cause as Error).message}`,
      cause,
    );
  }
  if (typeof content !== 'object' || content === null || Array.isArray(content))
    fail(
      'ERR_LIBMOE_CONFIG',
      `task file ${path} must hold a map of keys, got ${JSON.stringify(content)?.slice(0, 60)}`,
    );
  const { include, ...own } = content as Record<string, unknown>;
  const bases = include === undefined ? [] : Array.isArray(include) ? include : [include];
  let merged: Record<string, unknown> = {};
  for (const base of bases.toReversed()) {
    if (typeof base !== 'string')
      fail('ERR_LIBMOE_CONFIG', `${path}: include takes file names, got ${JSON.stringify(base)}`);
    merged = merge(merged, readWithBases(resolve(dirname(path), base), [...above, path]));
  }
  return merge(merged, own);
}

function merge(base: Record<string, unknown>, own: Record<string, unknown>): Record<string, unknown> {
  const merged = { ...base, ...own };
  for (const key of ['dataset_kwargs', 'pair', 'metadata']) {
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
export function resolveTask(choice: TaskChoice, folder: string = taskFolder): Task {
  if (typeof choice !== 'string') {
    const known = findTask(choice.task, folder);
    return known === undefined || 'output_type' in choice
      ? defineTask(choice)
      : defineTask(merge(known as unknown as Record<string, unknown>, choice));
  }
  if (/\.ya?ml$/.test(choice)) return readTaskFile(choice);
  const known = findTask(choice, folder);
  if (known !== undefined) return known;
  const names = taskNames(folder);
  const near = nearestKey(choice, names);
  return fail(
    'ERR_LIBMOE_CONFIG',
    `no task "${choice}"${near ? `, did you mean "${near}"?` : '.'} Known tasks: ${names.join(', ')}`,
  );
}

function findTask(name: string, folder: string): Task | undefined {
  const fromCode = registeredTask(name);
  if (fromCode !== undefined) return fromCode;
  const path = taskPaths(folder).get(name);
  return path === undefined ? undefined : readTaskFile(path);
}
