import { z } from 'zod';
import { fail } from '../native/index.ts';
import { explainIssues } from '../storage/schema-errors.ts';

/** The quantities a model is asked for. `generate_until` comes with the evaluation issue. */
export const outputTypes = ['multiple_choice', 'loglikelihood', 'loglikelihood_rolling'] as const;
/** What a task asks of the model: one of {@link outputTypes}. */
export type OutputType = (typeof outputTypes)[number];

/** One row of a data set. */
export type Row = Readonly<Record<string, unknown>>;

const pairSchema = z.strictObject({
  /** `joint`: encode context + continuation together and cut (lm-eval). `separate`: encode both alone (LibMoE). */
  mode: z.enum(['joint', 'separate']).default('joint'),
  /** `auto`: one BOS if the tokenizer adds one; `always`; `never` (LibMoE): then the first token of all is not scored. */
  bos: z.enum(['auto', 'always', 'never']).default('auto'),
  /** `whole` scores the context's tokens too (LibMoE's CBT and BLiMP). */
  score: z.enum(['continuation', 'whole']).default('continuation'),
});

const metricSchema = z.strictObject({
  metric: z.string(),
  higher_is_better: z.boolean().optional(),
});

/**
 * A task as data: the keys that text tasks share with lm-eval's files and three of ours:
 * `documents` (inline rows), `pair` (tokenisation) and `group_by` (LibMoE's accuracy per group).
 */
export const taskSchema = z.strictObject({
  task: z.string().regex(/^[\w.:+-]+$/, 'a task name has letters, digits and . _ - + : only'),
  task_alias: z.string().optional(),
  tag: z.union([z.string(), z.array(z.string())]).optional(),
  /** `json` (jsonl or a json list), `text` (one document per file), `inline`, or a registered data set's name. */
  dataset_path: z.string().optional(),
  dataset_name: z.string().nullish(),
  dataset_kwargs: z.record(z.string(), z.unknown()).default({}),
  documents: z.array(z.record(z.string(), z.unknown())).optional(),
  training_split: z.string().nullish(),
  validation_split: z.string().nullish(),
  test_split: z.string().nullish(),
  fewshot_split: z.string().nullish(),
  output_type: z.enum(outputTypes),
  doc_to_text: z.union([z.string(), z.int()]).default(''),
  doc_to_target: z.union([z.string(), z.int()]),
  /** The image or images of a document: a column or template that gives a file name or a list of them. */
  doc_to_visual: z.string().optional(),
  /** Folder that image files are relative to, itself found as data files are. Default: that of the task. */
  image_folder: z.string().optional(),
  doc_to_choice: z.union([z.string(), z.array(z.string()), z.record(z.string(), z.string())]).optional(),
  description: z.string().default(''),
  target_delimiter: z.string().default(' '),
  num_fewshot: z
    .literal(0, 'few-shot examples are not supported yet: leave num_fewshot out or at 0')
    .default(0),
  pair: pairSchema.prefault({}),
  group_by: z.string().optional(),
  metric_list: z.array(metricSchema).min(1).optional(),
  metadata: z.looseObject({ version: z.union([z.string(), z.number()]).optional() }).default({}),
});

/** A task with every default filled in. */
export type Task = z.output<typeof taskSchema> & {
  /** Folder that relative data files are looked up in; not part of the file. */
  folder?: string;
};
/** A task as one writes it. */
export type TaskInput = z.input<typeof taskSchema> & { folder?: string };

/**
 * Checks a task and fills in its defaults.
 * @throws ERR_LIBMOE_CONFIG naming the key, what was expected and, for an unknown key, the nearest known one
 */
export function defineTask(input: TaskInput | Record<string, unknown>): Task {
  const { folder, ...file } = input as TaskInput;
  const name = typeof file.task === 'string' ? file.task : '(unnamed)';
  const parsed = taskSchema.safeParse(file);
  if (!parsed.success)
    fail('ERR_LIBMOE_CONFIG', `task ${name}: ${explainIssues(taskSchema, parsed.error.issues, file)}`);
  const task = parsed.data;
  if (task.documents !== undefined && task.dataset_path !== undefined && task.dataset_path !== 'inline')
    fail(
      'ERR_LIBMOE_CONFIG',
      `task ${name} has both documents and dataset_path "${task.dataset_path}": keep one`,
    );
  if (task.documents === undefined && task.dataset_path === undefined)
    fail(
      'ERR_LIBMOE_CONFIG',
      `task ${name} has no data: give dataset_path (json, text, a registered data set) or documents`,
    );
  if (task.output_type === 'multiple_choice' && task.doc_to_choice === undefined)
    fail('ERR_LIBMOE_CONFIG', `task ${name} is multiple_choice and needs doc_to_choice`);
  return folder === undefined ? task : { ...task, folder };
}

const registered = new Map<string, Task>();

/** Makes a task known by its name; a second task of the same name replaces the first. Throws like {@link defineTask}. */
export function registerTask(input: TaskInput): Task {
  const task = defineTask(input);
  registered.set(task.task, task);
  return task;
}

/** A task registered from code, if there is one of that name. */
export function registeredTask(name: string): Task | undefined {
  return registered.get(name);
}

/** Names of the tasks registered from code, sorted. */
export function registeredTaskNames(): string[] {
  return [...registered.keys()].sort();
}
