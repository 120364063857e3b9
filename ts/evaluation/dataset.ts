import { createHash } from 'node:crypto';
import { existsSync, readFileSync, statSync } from 'node:fs';
import { basename, isAbsolute, join, resolve } from 'node:path';
import { z } from 'zod';
import { base64Image, pictureType } from '../data/bundles/base64-image.ts';
import { fail } from '../native/index.ts';
import { explainIssues } from '../storage/schema-errors.ts';
import type { Row, Task } from './task.ts';

/** What a data set function may ask about its surroundings. */
export interface DatasetContext {
  /** Finds a data file: absolute, or in the data folder of the run, or beside the task file. Throws ERR_LIBMOE_DATA. */
  find(file: string): string;
  /** Where bundles are looked for: the data folder of the run, LIBMOE_DATA, `data`. */
  folders: readonly string[];
  /** The evaluated split's name, if the task names one. */
  split?: string;
}

/** Rows, and what identifies them where their JSON does not (it names files of this machine). */
export interface LoadedRows {
  rows: readonly Row[];
  sha256: string;
}

/** A source of documents: a schema of its options and a function that yields the rows. */
export interface Dataset<Options extends z.ZodType = z.ZodType> {
  options: Options;
  /** The rows of the split that is asked for. */
  load(
    options: z.output<Options>,
    context: DatasetContext,
  ): readonly Row[] | LoadedRows | Promise<readonly Row[] | LoadedRows>;
}

const datasets = new Map<string, Dataset>();

/** Makes a data set known by name, for `dataset_path` of tasks; `dataset_kwargs` are checked by its schema. */
export function registerDataset<Options extends z.ZodType>(name: string, dataset: Dataset<Options>): void {
  datasets.set(name, dataset as unknown as Dataset);
}

/** Names that `dataset_path` may take. */
export function datasetNames(): string[] {
  return [...datasets.keys()].sort();
}

/** How many of so many documents a limit leaves: a whole number of them, or a share, rounded up. Without one all. */
export function limitedCount(count: number, limit: number = count): number {
  return Math.min(count, limit < 1 ? Math.ceil(limit * count) : limit);
}

/** Documents of a task with the facts that identify them. */
export interface LoadedDocuments {
  rows: readonly Row[];
  /** Of the rows as JSON, or of a bundle's split: goes into the results, so that a moved data set is noticed. */
  sha256: string;
}

/**
 * The documents of a task, from its inline rows or its data set.
 * @throws ERR_LIBMOE_DATA for a missing file, unreadable rows or an empty set; ERR_LIBMOE_CONFIG for wrong options
 */
export async function loadDocuments(task: Task, dataFolder?: string): Promise<LoadedDocuments> {
  const loaded = task.documents ?? (await fromDataset(task, dataFolder));
  const rows = 'rows' in loaded ? loaded.rows : loaded;
  if (rows.length === 0) fail('ERR_LIBMOE_DATA', `task ${task.task}: its data set has no documents`);
  if ('rows' in loaded) return loaded;
  const hash = createHash('sha256');
  for (const row of rows) hash.update(JSON.stringify(row)).update('\n');
  return { rows, sha256: hash.digest('hex') };
}

async function fromDataset(task: Task, dataFolder: string | undefined): Promise<readonly Row[] | LoadedRows> {
  const path = task.dataset_path ?? '';
  // An id of the hub means the bundle of that id; its dataset_name is the config.
  const hub = path.includes('/') && !datasets.has(path);
  const name = hub ? 'bundle' : path;
  const dataset = datasets.get(name);
  if (dataset === undefined)
    fail(
      'ERR_LIBMOE_CONFIG',
      `task ${task.task}: no data set "${name}"; known: ${datasetNames().join(', ')}, and ORGANISATION/NAME for the bundle of that id`,
    );
  const kwargs = hub ? hubOptions(path, task) : task.dataset_kwargs;
  const options = dataset.options.safeParse(kwargs);
  if (!options.success)
    fail(
      'ERR_LIBMOE_CONFIG',
      `task ${task.task}: dataset_kwargs of "${name}": ${explainIssues(dataset.options, options.error.issues, kwargs)}`,
    );
  const split = task.test_split ?? task.validation_split ?? undefined;
  return dataset.load(options.data, {
    ...(split === undefined ? {} : { split }),
    find: (file) => find(file, task, dataFolder),
    folders: bundleFolders(dataFolder),
  });
}

/** Of a task in the manner of the harnesses: keys that say how to fetch (`token`, `cache_dir` …) mean nothing here. */
function hubOptions(id: string, task: Task): Record<string, unknown> {
  const { revision, join } = task.dataset_kwargs;
  return {
    id,
    config: task.dataset_name ?? null,
    ...(revision !== undefined && { revision }),
    ...(join !== undefined && { join }),
  };
}

function bundleFolders(dataFolder: string | undefined): string[] {
  const folders = [dataFolder, process.env.LIBMOE_DATA, 'data'].filter(
    (each) => each !== undefined && each !== '',
  );
  return [...new Set(folders.map((each) => resolve(each as string)))];
}

function find(file: string, task: Task, dataFolder: string | undefined): string {
  const tried = isAbsolute(file)
    ? [file]
    : [dataFolder, task.folder ?? '.']
        .filter((folder) => folder !== undefined)
        .map((folder) => resolve(folder, file));
  const found = tried.find((path) => existsSync(path));
  return (
    found ??
    fail(
      'ERR_LIBMOE_DATA',
      `task ${task.task} needs the data file ${file}, looked for ${tried.join(', ')}. Put it there, or name a data folder, or override dataset_kwargs.data_files`,
    )
  );
}

/** One file, several, or files by split name. */
const dataFiles = z.union([
  z.string(),
  z.array(z.string()),
  z.record(z.string(), z.union([z.string(), z.array(z.string())])),
]);

function filesOf(files: z.output<typeof dataFiles>, context: DatasetContext): string[] {
  let chosen: string | string[] | undefined;
  if (typeof files === 'string' || Array.isArray(files)) chosen = files;
  else {
    const splits = Object.keys(files);
    chosen =
      context.split !== undefined
        ? files[context.split]
        : splits.length === 1
          ? files[splits[0]!]
          : undefined;
    if (chosen === undefined)
      fail(
        'ERR_LIBMOE_CONFIG',
        `data_files has the splits ${splits.join(', ')}; the task evaluates "${context.split ?? '(none named)'}"`,
      );
  }
  return (Array.isArray(chosen) ? chosen : [chosen]).map((file) => context.find(file));
}

/** Rows of a `.jsonl` file, or of a `.json` file that holds a list. Throws ERR_LIBMOE_DATA naming the line. */
export function readRows(path: string): Row[] {
  const source = readFileSync(path, 'utf8');
  const isRow = (value: unknown): value is Row =>
    typeof value === 'object' && value !== null && !Array.isArray(value);
  if (/\.json$/.test(path)) {
    const rows: unknown = parseJson(source, path);
    if (!Array.isArray(rows) || !rows.every(isRow))
      return fail('ERR_LIBMOE_DATA', `${path} must hold a list of objects`);
    return rows;
  }
  const rows: Row[] = [];
  for (const [i, line] of source.split('\n').entries()) {
    if (line.trim() === '') continue;
    const row = parseJson(line, `${path}:${i + 1}`);
    if (!isRow(row))
      return fail('ERR_LIBMOE_DATA', `${path}:${i + 1} must hold an object, got ${line.slice(0, 60)}`);
    rows.push(row);
  }
  return rows;
}

function parseJson(source: string, where: string): unknown {
  try {
    return JSON.parse(source);
  } catch (cause) {
    return fail('ERR_LIBMOE_DATA', `${where} is not valid JSON: ${(cause as Error).message}`, cause);
  }
}

registerDataset('json', {
  options: z.strictObject({
    data_files: dataFiles,
    /** A file with the label of each row on a line of its own, as PIQA and Social IQa are published: the column `label`. */
    labels: z.string().optional(),
    /** Columns that hold images, or lists of them, as base64 text. */
    base64_images: z.array(z.string()).min(1).optional(),
  }),
  load: ({ data_files: files, labels, base64_images: pictured = [] }, context) => {
    const rows = filesOf(files, context).flatMap((file) =>
      readRows(file).map((row, i) => withPictures(row, pictured, `${file}, record ${i + 1}`)),
    );
    return labels === undefined ? rows : labelled(rows, context.find(labels));
  },
});

/** The row with its base64 texts as data: URLs, which say what they are. */
function withPictures(row: Row, columns: readonly string[], where: string): Row {
  if (columns.length === 0) return row;
  const picture = (value: unknown, column: string): unknown => {
    if (value === null) return null;
    if (Array.isArray(value)) return value.map((each) => picture(each, column));
    const bytes = typeof value === 'string' ? base64Image(value) : undefined;
    return bytes === undefined
      ? fail('ERR_LIBMOE_DATA', `${where}: column "${column}" should hold an image as base64 text`)
      : `data:image/${pictureType(bytes)};base64,${bytes.toString('base64')}`;
  };
  return {
    ...row,
    ...Object.fromEntries(columns.map((column) => [column, picture(row[column] ?? null, column)])),
  };
}

function labelled(rows: readonly Row[], path: string): Row[] {
  const labels = readFileSync(path, 'utf8').trimEnd().split(/\r?\n/);
  if (labels.length !== rows.length)
    fail(
      'ERR_LIBMOE_DATA',
      `${path} has ${labels.length} labels for ${rows.length} rows: one a line is expected`,
    );
  return rows.map((row, i) => ({ ...row, label: labels[i]!.trim() }));
}

/** Column `text` per file; a folder stands for the .txt files in it. */
registerDataset('text', {
  options: z.strictObject({ data_files: dataFiles }),
  load: async (options, context) => {
    const { readdir } = await import('node:fs/promises');
    const rows: Row[] = [];
    for (const path of filesOf(options.data_files, context)) {
      const files = statSync(path).isDirectory()
        ? (await readdir(path))
            .filter((name) => name.endsWith('.txt'))
            .sort()
            .map((name) => join(path, name))
        : [path];
      for (const file of files) rows.push({ id: basename(file), text: readFileSync(file, 'utf8') });
    }
    return rows;
  },
});
