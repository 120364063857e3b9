import { z } from 'zod';
import { fail } from '../native/index.ts';
import { explainIssues } from '../storage/schema-errors.ts';
import './benchmark-steps.ts';
import { documentStepsSchema } from './document-steps.ts';
import './image-steps.ts';
import { filterListSchema } from './response-filters.ts';
import { reportSchema, scoreSchema } from './scorers/index.ts';
import './video-steps.ts';

/** The quantities a model is asked for. */
export const outputTypes = [
  'multiple_choice',
  'loglikelihood',
  'loglikelihood_rolling',
  'generate_until',
] as const;
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
  /** As lm-eval's files have it; each metric here knows its own. */
  aggregation: z.string().optional(),
  higher_is_better: z.boolean().optional(),
  /** Of exact_match. */
  ignore_case: z.boolean().optional(),
  ignore_punctuation: z.boolean().optional(),
  ignore_numbers: z.boolean().optional(),
  regexes_to_ignore: z.array(z.string()).optional(),
});

const tokens = z.int().positive();
const generationSchema = z.strictObject({
  /** The text ends before the first of these. Default: the few-shot delimiter; none for `[]`. */
  until: z.union([z.string(), z.array(z.string())]).optional(),
  max_new_tokens: tokens.optional(),
  max_gen_toks: tokens.optional(),
  do_sample: z.boolean().optional(),
  temperature: z.number().nonnegative().nullish(),
  top_p: z.number().min(0).max(1).nullish(),
  top_k: z.int().positive().nullish(),
  num_beams: z.literal(1, 'only greedy search and sampling: leave num_beams out or at 1').optional(),
  seed: z.int().nonnegative().optional(),
});

const row = z.record(z.string(), z.unknown());
const field = z.union([z.string(), z.int()]);
const choiceField = z.union([z.string(), z.array(z.string()), z.record(z.string(), z.string())]);

const fewshotSchema = z.strictObject({
  /** `default`: drawn without replacement, as Python's `Random(seed).sample` draws; `first_n`: the first ones. */
  sampler: z.enum(['default', 'first_n']).default('default'),
  /** Rows written out. */
  samples: z.array(row).min(1).optional(),
  split: z.string().optional(),
  /** In place of the task's own, for the examples. */
  doc_to_text: field.optional(),
  doc_to_choice: choiceField.optional(),
  doc_to_target: field.optional(),
  gen_prefix: z.string().optional(),
  target_delimiter: z.string().optional(),
  fewshot_delimiter: z.string().optional(),
});

const scores = z.record(z.string(), z.number().nullable());
const askedJudge = z.array(
  z.strictObject({
    /** What a made-up judge replies; null: nothing, after every attempt. */
    reply: z.string().nullable(),
    /** What the question put to it ends with. */
    asked: z.string().optional(),
  }),
);
const exampleSchema = z.strictObject({
  doc: row,
  /** The whole text before what is scored or generated; of tasks with several contexts a list. */
  prompt: z.union([z.string(), z.array(z.string())]),
  /** What follows the prompt in each request, its delimiter included; for tasks of likelihoods. */
  choices: z.array(z.string()).optional(),
  /** The right choice or choices. */
  gold: z.union([z.int(), z.array(z.int())]).optional(),
  /** Made-up log-likelihoods of the choices that `scores` are for. */
  sums: z.array(z.number()).optional(),
  target: z.unknown().optional(),
  /** As `doc_to_visual` names them; an image that is drawn or put together as the step that does so says. */
  images: z.array(z.union([z.string(), z.record(z.string(), z.unknown())])).optional(),
  /** A made-up response that `scores` and `parsed` are for. */
  response: z.string().optional(),
  /** The questions that a judge is asked about it, in order; without this key there is no judge. */
  judge: askedJudge.optional(),
  scores: scores.optional(),
  parsed: z.string().nullish(),
  /** What is different with `--scorer fixed`. */
  fixed: z
    .strictObject({ judge: askedJudge.optional(), scores: scores.optional(), parsed: z.string().nullish() })
    .optional(),
});
/** A made-up record of a task with what must become of it. */
export type TaskExample = z.output<typeof exampleSchema>;

/**
 * A task as data: the keys that text tasks share with lm-eval's files and three of ours:
 * `documents` (inline rows), `pair` (tokenisation) and `group_by` (LibMoE's accuracy per group).
 */
export const taskSchema = z.strictObject({
  task: z.string().regex(/^[\w.:+-]+$/, 'a task name has letters, digits and . _ - + : only'),
  task_alias: z.string().optional(),
  /** Groups that the task itself says it belongs to (LibMoE's files); their number is the mean over all documents. */
  group: z.union([z.string(), z.array(z.string())]).optional(),
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
  /** What is done with the rows before anything else: steps of a closed registry. */
  process_docs: documentStepsSchema.optional(),
  output_type: z.enum(outputTypes),
  /** What answering takes beside texts and images. Nothing here gives it yet: such a task is listed, and refused when it is to be run. */
  requires: z.array(z.literal('video')).min(1).optional(),
  doc_to_text: field.default(''),
  doc_to_target: field.default(''),
  /** The image or images of a document: a column or template that gives a file name or a list of them. */
  doc_to_visual: z.string().optional(),
  /** Folder that image files are relative to, itself found as data files are. Default: that of the task. */
  image_folder: z.string().optional(),
  doc_to_choice: choiceField.optional(),
  description: z.string().default(''),
  target_delimiter: z.string().default(' '),
  fewshot_delimiter: z.string().default('\n\n'),
  num_fewshot: z.int().nonnegative().default(0),
  fewshot_config: fewshotSchema.optional(),
  /** What the answer begins with, written for the model. */
  gen_prefix: z.string().optional(),
  generation_kwargs: generationSchema.optional(),
  /** Ask this many times; more than once makes sense with sampling and a filter. */
  repeats: z.int().positive().default(1),
  filter_list: filterListSchema.optional(),
  pair: pairSchema.prefault({}),
  group_by: z.string().optional(),
  metric_list: z.array(metricSchema).min(1).optional(),
  /** The scorer of generated texts with its options; default `exact_match`. */
  score: scoreSchema.optional(),
  /** How the documents' values become numbers; default: the mean of each. */
  report: reportSchema.optional(),
  /** Made-up records with what must become of them: see checkExamples. */
  examples: z.array(exampleSchema).optional(),
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
  checkKind(task, file);
  return folder === undefined ? task : { ...task, folder };
}

/** Keys that belong to one kind of task. */
function checkKind(task: Task, file: Record<string, unknown>): void {
  const wrong = (message: string): never => fail('ERR_LIBMOE_CONFIG', `task ${task.task} ${message}`);
  const { output_type: kind } = task;
  if (kind === 'multiple_choice' && task.doc_to_choice === undefined)
    wrong('is multiple_choice and needs doc_to_choice');
  if (kind !== 'generate_until') {
    if (file.doc_to_target === undefined) wrong(`is ${kind} and needs doc_to_target`);
    for (const key of ['score', 'report', 'filter_list', 'generation_kwargs'] as const)
      if (task[key] !== undefined) wrong(`is ${kind}: ${key} is for generate_until`);
    if (task.repeats > 1) wrong(`is ${kind}: repeats are for generate_until`);
  }
  if (kind === 'loglikelihood_rolling' && (task.num_fewshot > 0 || task.gen_prefix !== undefined))
    wrong('is loglikelihood_rolling: a whole text has neither few-shot examples nor gen_prefix');
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
