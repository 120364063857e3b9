import { isDeepStrictEqual } from 'node:util';
import { fail } from '../native/index.ts';
import { registeredTask, registeredTaskNames, type Task } from './task.ts';
import {
  ReadTasks,
  readTaskOrGroup,
  resolveTask,
  type TaskChoice,
  taskFolder,
  taskNames,
  taskPaths,
  unknownTask,
} from './task-files.ts';
import { defineGroup, type TaskGroup } from './task-groups.ts';

/** What a list of names stands for. */
export interface ChosenTasks {
  tasks: Task[];
  groups: TaskGroup[];
}

type FileOrGroup = ReturnType<typeof readTaskOrGroup>;

/**
 * The tasks and groups that a caller means: names of tasks, groups and tags, shell wildcards over names (`lm.*`), paths of YAML files, tasks
 * written out. A task that several of them bring is taken once.
 * @throws ERR_LIBMOE_CONFIG for an unknown name (the nearest known one is suggested) or an invalid file, ERR_LIBMOE_ARGUMENT for a task that is
 * named twice or is meant in two ways
 */
export function chooseTasks(choices: readonly TaskChoice[], folder: string = taskFolder): ChosenTasks {
  return new Chooser(folder).all(choices);
}

class Chooser {
  private readonly tasks = new Map<string, { task: Task; named: boolean }>();
  private readonly groups: TaskGroup[] = [];
  private files: Map<string, FileOrGroup> | undefined;
  private readonly reading = new ReadTasks();

  constructor(private readonly folder: string) {}

  all(choices: readonly TaskChoice[]): ChosenTasks {
    for (const choice of choices) this.choose(choice);
    return { tasks: [...this.tasks.values()].map(({ task }) => task), groups: this.groups };
  }

  private choose(choice: TaskChoice): void {
    if (typeof choice !== 'string') this.add(resolveTask(choice, this.folder, this.reading), true);
    else if (/\.ya?ml$/.test(choice)) this.file(readTaskOrGroup(choice, this.reading));
    else if (/[*?[]/.test(choice)) this.wildcard(choice);
    else this.named(choice);
  }

  private named(name: string): void {
    const fromCode = registeredTask(name);
    const path = fromCode === undefined ? taskPaths(this.folder, this.reading).get(name) : undefined;
    if (fromCode !== undefined) this.add(fromCode, true);
    else if (path !== undefined) this.file(readTaskOrGroup(path, this.reading));
    else if (!this.grouped(name) && !this.tagged(name)) unknownTask(name, this.names());
  }

  private file(found: FileOrGroup): void {
    if ('output_type' in found) this.add(found, true);
    else this.groups.push(this.group(found));
  }

  private add(task: Task, named: boolean): string {
    const before = this.tasks.get(task.task);
    if (before === undefined) this.tasks.set(task.task, { task, named });
    else if (named && before.named) fail('ERR_LIBMOE_ARGUMENT', `task ${task.task} is listed twice`);
    else if (!isDeepStrictEqual(before.task, task))
      fail(
        'ERR_LIBMOE_ARGUMENT',
        `task ${task.task} is meant in two ways, with other keys in a group: give one another name`,
      );
    return task.task;
  }

  /** Every task that says it belongs to the group. */
  private grouped(name: string): boolean {
    const members = this.leaves().filter(({ group = [] }) => [group].flat().includes(name));
    if (members.length === 0) return false;
    this.groups.push({
      group: name,
      members: members.map((task) => this.add(task, false)),
      aggregates: 'every',
    });
    return true;
  }

  private tagged(name: string): boolean {
    const tagged = this.leaves().filter(({ tag = [] }) => [tag].flat().includes(name));
    for (const task of tagged) this.add(task, false);
    return tagged.length > 0;
  }

  private wildcard(pattern: string): void {
    const source = pattern
      .replace(/[.+^${}()|\\]/g, '\\$&')
      .replaceAll('*', '.*')
      .replaceAll('?', '.')
      .replaceAll('[!', '[^');
    let fits: RegExp;
    try {
      fits = new RegExp(`^${source}$`, 'u');
    } catch (cause) {
      fail(
        'ERR_LIBMOE_CONFIG',
        `"${pattern}" is no wildcard: expected *, ? and [a-z] or [!a-z] (${(cause as Error).message})`,
        cause,
      );
    }
    const found = this.leaves().filter(({ task }) => fits.test(task));
    if (found.length === 0) fail('ERR_LIBMOE_CONFIG', `no task fits "${pattern}": --tasks list shows all`);
    for (const task of found) this.add(task, false);
  }

  private group(content: Exclude<FileOrGroup, Task>): TaskGroup {
    const { group, group_alias: alias, aggregate_metric_list: list, metadata } = content;
    return {
      group,
      members: content.task.map((member) => this.member(member, content.folder)),
      ...(alias !== undefined && { alias }),
      ...(list !== undefined && { aggregates: [list].flat() }),
      ...(metadata.version !== undefined && { version: metadata.version }),
    };
  }

  private member(member: string | Record<string, unknown>, folder: string): string | TaskGroup {
    if (typeof member !== 'string') {
      if (Array.isArray(member.task)) return this.group({ ...defineGroup(member), folder });
      const near = typeof member.task === 'string' && taskPaths(folder, this.reading).has(member.task);
      return this.add(
        resolveTask(member as { task: string }, near ? folder : this.folder, this.reading),
        false,
      );
    }
    const fromCode = registeredTask(member);
    if (fromCode !== undefined) return this.add(fromCode, false);
    const path =
      taskPaths(folder, this.reading).get(member) ?? taskPaths(this.folder, this.reading).get(member);
    if (path === undefined) return unknownTask(member, this.names());
    const found = readTaskOrGroup(path, this.reading);
    return 'output_type' in found ? this.add(found, false) : this.group(found);
  }

  private read(): Map<string, FileOrGroup> {
    if (this.files === undefined) {
      this.files = new Map();
      for (const [name, path] of taskPaths(this.folder, this.reading)) {
        const found = readOrError(path, this.reading);
        // A file that is wrong says so when it is named; it stands in the way of no other.
        if (!(found instanceof Error)) this.files.set(name, found);
      }
    }
    return this.files;
  }

  /** All tasks, in the order of their names. */
  private leaves(): Task[] {
    const files = [...this.read().values()].filter((found): found is Task => 'output_type' in found);
    const codes = registeredTaskNames().map((name) => registeredTask(name)!);
    const known = new Map([...files, ...codes].map((task) => [task.task, task]));
    return [...known.values()].sort((a, b) => (a.task < b.task ? -1 : 1));
  }

  private names(): string[] {
    const labels = this.leaves().flatMap(({ group = [], tag = [] }) => [group, tag].flat());
    return [...new Set([...taskNames(this.folder, this.reading), ...labels])].sort();
  }
}

function readOrError(path: string, read: ReadTasks): FileOrGroup | Error {
  try {
    return readTaskOrGroup(path, read);
  } catch (error) {
    return error as Error;
  }
}

/** A line about a task or group, for lists. */
export interface TaskSummary {
  name: string;
  /** `group`, or what the task asks, or `invalid`. */
  kind: string;
  /** Where its documents come from; of a group its members, of an invalid file what is wrong. */
  data: string;
  tags: string[];
}

/** All tasks and groups with their kinds and data sets. */
export function listTasks(folder: string = taskFolder): TaskSummary[] {
  const read = new ReadTasks();
  const files = [...taskPaths(folder, read)].map(([name, path]) => [name, readOrError(path, read)] as const);
  const codes = registeredTaskNames().map((name) => [name, registeredTask(name)!] as const);
  const summaries = [...files, ...codes].map(([file, found]): TaskSummary => {
    if (found instanceof Error) return { name: file, kind: 'invalid', data: found.message, tags: [] };
    if (!('output_type' in found))
      return {
        name: found.group,
        kind: 'group',
        data: `${found.task.length} members`,
        tags: [found.tag ?? []].flat(),
      };
    const { dataset_path: path = 'inline', dataset_name: name, dataset_kwargs: kwargs } = found;
    const files = typeof kwargs.data_files === 'string' ? ` ${kwargs.data_files}` : '';
    return {
      name: found.task,
      kind:
        found.output_type +
        (found.requires !== undefined
          ? ' + video (unavailable)'
          : found.doc_to_visual === undefined
            ? ''
            : ' + images'),
      data: `${path}${name ? `/${name}` : ''}${files}`,
      tags: [found.tag ?? []].flat(),
    };
  });
  return summaries.sort((a, b) => (a.name < b.name ? -1 : 1));
}
