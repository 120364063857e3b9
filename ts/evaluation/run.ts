import type { ChatTemplate } from '../data/chat-template.ts';
import { loadTokenizer, type Tokenizer } from '../data/tokenizer.ts';
import { LanguageModel } from '../models/language/model.ts';
import { fail } from '../native/index.ts';
import { askAll, isDone, type Keeping, type KeyedRequest, piecesFor } from './asking.ts';
import './bundle-dataset.ts';
import './emoji-dataset.ts';
import { AnswerJournal, requestKey, type Share } from './journal.ts';
import { judgeRecord } from './judging.ts';
import { languageAdapter } from './language-adapter.ts';
import { type ScorerMode, scorerModes } from './metrics.ts';
import type { EvalModel, EvalTokenizer } from './model.ts';
import { type PreparedTask, prepareTask } from './prepare.ts';
import type { PromptSetting } from './question.ts';
import { RequestImages } from './request-images.ts';
import { checkResponseTask, writeSubmission } from './response-scoring.ts';
import { type Results, writeResults, writeSamples } from './results.ts';
import { topicsOf } from './routed-topics.ts';
import { RoutingLog } from './routing-log.ts';
import type { Judge, JudgeClient } from './scorers/index.ts';
import { answeredTask, scoreTask, taskMetrics } from './scoring.ts';
import { defineTask, type Task, type TaskInput } from './task.ts';
import { chooseTasks } from './task-choice.ts';
import type { TaskChoice } from './task-files.ts';
import { enterGroups } from './task-groups.ts';
import './last-word-metrics.ts';
import './yes-no-metrics.ts';

/** What {@link evaluate} evaluates, and where results go. */
export interface EvaluateOptions {
  /** Names of tasks, groups and tags, wildcards (`lm.*`), task files (`*.yaml`), or tasks written out; `{ task: 'piqa', dataset_kwargs: … }` overrides keys. */
  tasks: readonly TaskChoice[];
  /** A whole number ≥ 1: documents per task. Between 0 and 1: that share of each task, rounded up. */
  limit?: number;
  /** Documents of a task by their numbers, in place of the first so many. */
  samples?: Readonly<Record<string, readonly number[]>>;
  /** Few-shot examples of every task, in place of what its file says; whole texts (rolling) take none. */
  numFewshot?: number;
  /** Keys of every task's `generation_kwargs`, in place of what its file says. */
  generation?: NonNullable<TaskInput['generation_kwargs']>;
  /** Prompts as conversations of a text model, as its chat template writes them. */
  chatTemplate?: ChatTemplate;
  /** With a chat template: examples as turns of their own. Default: all in one question. */
  fewshotAsMultiturn?: boolean;
  /** Put before everything; with a chat template the system's message. */
  systemInstruction?: string;
  /** Folder for results.json, samples_<task>.jsonl and the journal that a killed run resumes from. */
  out?: string;
  /** Of a language model; default: the one beside the checkpoint that it was loaded from. An {@link EvalModel} has its own. */
  tokenizer?: Tokenizer | EvalTokenizer;
  /** Default `libmoe`: the original's numbers, quirks included, as published ones are; `fixed` repairs them; `both` gives the latter beside. */
  scorer?: ScorerMode | 'both';
  /** Where relative data files are looked up before the task file's own folder. */
  dataFolder?: string;
  /** Resamples of bootstrapped standard errors; default 100000 as lm-eval. */
  bootstrapResamples?: number;
  /** Commit to record. */
  gitHash?: string;
  /**
   * Asked about answers where a task takes a judge. One that fails leaves the document without a score. Of several processes the first asks it
   * and is the only one that writes results. A judge has to heed `signal` by itself.
   */
  judge?: Judge | JudgeClient;
  /** Keep where the MoE layers sent every token of every request, in the folder `out`. */
  routing?: boolean;
  /** Guess as the original does where nothing can be read out of an answer (`legacy_guess` of a task). Default false: such an answer is wrong. */
  legacyRandomFallback?: boolean;
  signal?: AbortSignal;
  /**
   * Which of several processes that evaluate into the same folder this is. Each takes a share of the requests and then helps the others; all
   * end with the same results, and none waits for another.
   */
  share?: Share;
}

/** What {@link evaluate} yields while it works. */
export interface EvalProgress {
  stage: 'prepare' | 'score' | 'aggregate';
  /** The task at hand while preparing and aggregating; all tasks are scored together. */
  task?: string;
  /** Requests answered, and all of them; documents while preparing. */
  done: number;
  total: number;
  /** Of `done`, those answered by the journal. */
  fromJournal: number;
}

/**
 * Evaluates a language model, or whatever stands behind an {@link EvalModel}, on tasks. An async generator: it yields progress and returns the results; leaving it early
 * (`break`, an aborted signal) stops the model at the next batch, and the same call with the same `out` continues.
 *
 * @throws ERR_LIBMOE_ARGUMENT without a tokenizer, ERR_LIBMOE_CONFIG for unknown or invalid tasks, ERR_LIBMOE_DATA for their data, before the model runs at all
 */
export async function* evaluate(
  given: LanguageModel | EvalModel,
  options: EvaluateOptions,
): AsyncGenerator<EvalProgress, Results> {
  const started = performance.now();
  const both = options.scorer === 'both';
  const mode = options.scorer === undefined || options.scorer === 'both' ? 'libmoe' : options.scorer;
  checkOptions(options, mode);
  const model = evalModelOf(given, options.tokenizer);
  const { tasks: chosen, groups } = chooseTasks(options.tasks);
  const tasks = chosen.map((task) => overridden(task, options));
  for (const task of tasks)
    if (task.output_type === 'generate_until') checkResponseTask(task, mode);
    else taskMetrics(task);
  const unknown = Object.keys(options.samples ?? {}).find((name) => !tasks.some(({ task }) => task === name));
  if (unknown !== undefined)
    fail('ERR_LIBMOE_ARGUMENT', `samples names the task ${unknown}, which is not evaluated`);

  const prepared: PreparedTask[] = [];
  const images = new RequestImages(options.dataFolder);
  const prompts = promptsOf(options, model);
  for (const task of tasks) {
    prepared.push(await prepareTask(task, model, images, { ...options, prompts }));
    yield { stage: 'prepare', task: task.task, done: prepared.length, total: tasks.length, fromJournal: 0 };
  }

  const { share = { rank: 0, world: 1 } } = options;
  using journal = new AnswerJournal(options.out, share);
  const fingerprint = await model.fingerprint();
  const documents = prepared.flatMap(({ encoded }) =>
    encoded.map((requests) =>
      requests.map(
        ({ request }): KeyedRequest => ({
          key: requestKey(fingerprint, request, model.endTokens),
          request,
        }),
      ),
    ),
  );
  const wanted = new Set(documents.flat().map(({ key }) => key));
  const unique = wanted.size;
  using routed = options.routing ? new RoutingLog(options.out!, share) : undefined;
  const routing = routed && { log: routed, topics: topicsOf(prepared, documents) };
  const keeping: Keeping = { journal, ...(routing && { routing }) };
  const known = [...wanted].filter((key) => isDone(key, keeping)).length;
  yield { stage: 'score', done: known, total: unique, fromJournal: known };
  for await (const done of askAll(model, piecesFor(documents, share), keeping, options.signal))
    yield { stage: 'score', done, total: unique, fromJournal: known };

  const results = emptyResults(model, options, mode, fingerprint, { total: unique, from_journal: known });
  const repaired = structuredClone(results);
  if (share.world > 1) results.libmoe.ranks = { ...share };
  // One process asks, and none without the judge's scores may write over those with them.
  const { bootstrapResamples: resamples = 100_000 } = options;
  const [judge, out] =
    options.judge && share.rank > 0 ? [undefined, undefined] : [options.judge, options.out];
  let at = 0;
  for (const [i, item] of prepared.entries()) {
    options.signal?.throwIfAborted();
    const answers = item.encoded.map(() => documents[at++]!.map(({ key }) => journal.get(key)!));
    const answered = answeredTask(item, answers, model.tokenizer);
    const samples = await scoreTask(answered, mode, results, resamples, judge);
    if (out !== undefined) {
      writeSamples(out, item.task.task, samples);
      writeSubmission(out, item.task, samples);
    }
    if (both) await scoreTask(answered, 'fixed', repaired, resamples, judge);
    yield {
      stage: 'aggregate',
      task: item.task.task,
      done: i + 1,
      total: prepared.length,
      fromJournal: known,
    };
  }
  if (judge) results.libmoe.judge = judgeRecord(judge);
  if (both) results.libmoe.fixed_results = repaired.results;
  if (groups.length > 0) results.libmoe.groups = groups;
  enterGroups(results, groups);
  results.total_evaluation_time_seconds = (performance.now() - started) / 1000;
  if (out !== undefined) writeResults(out, results);
  return results;
}

function evalModelOf(model: LanguageModel | EvalModel, given: EvaluateOptions['tokenizer']): EvalModel {
  if (!(model instanceof LanguageModel)) {
    if (given !== undefined)
      fail('ERR_LIBMOE_ARGUMENT', 'this model brings its own tokenizer: leave the option "tokenizer" out');
    return model;
  }
  if (given === undefined && model.checkpoint === undefined)
    fail('ERR_LIBMOE_ARGUMENT', 'a model that was not loaded from a folder needs the option "tokenizer"');
  const name = model.checkpoint;
  const tokenizer = given ?? loadTokenizer(name!);
  return languageAdapter(model, { tokenizer, ...(name !== undefined && { name }) });
}

function checkOptions(options: EvaluateOptions, mode: string): void {
  const { limit, tasks, bootstrapResamples = 1000, share, numFewshot = 0 } = options;
  if (!Number.isInteger(numFewshot) || numFewshot < 0)
    fail('ERR_LIBMOE_ARGUMENT', `numFewshot must be a whole number, 0 or more, got ${numFewshot}`);
  if (options.routing && options.out === undefined)
    fail('ERR_LIBMOE_ARGUMENT', 'routing records are kept in a folder: give out');
  if (share && share.world > 1 && options.out === undefined)
    fail('ERR_LIBMOE_ARGUMENT', 'processes that share an evaluation meet in a folder: give out');
  if (tasks.length === 0) fail('ERR_LIBMOE_ARGUMENT', 'evaluate needs at least one task, got none');
  if (limit !== undefined && !(limit > 0 && (limit < 1 || Number.isInteger(limit))))
    fail(
      'ERR_LIBMOE_ARGUMENT',
      `limit must be a whole number of documents or a share between 0 and 1, got ${limit}`,
    );
  if (!(scorerModes as readonly string[]).includes(mode))
    fail('ERR_LIBMOE_ARGUMENT', `scorer must be ${scorerModes.join(' or ')}, got "${mode}"`);
  if (!Number.isInteger(bootstrapResamples) || bootstrapResamples < 2)
    fail(
      'ERR_LIBMOE_ARGUMENT',
      `bootstrapResamples must be a whole number above 1, got ${bootstrapResamples}`,
    );
}

/** A task with what the call says in place of its file. */
function overridden(task: Task, { numFewshot, generation }: EvaluateOptions): Task {
  const { folder } = task;
  const fewer = numFewshot !== undefined && task.output_type !== 'loglikelihood_rolling';
  const texts = generation !== undefined && task.output_type === 'generate_until';
  if (!fewer && !texts) return task;
  return defineTask({
    ...(task as TaskInput),
    ...(folder !== undefined && { folder }),
    ...(fewer && { num_fewshot: numFewshot }),
    ...(texts && { generation_kwargs: { ...task.generation_kwargs, ...generation } }),
  });
}

function promptsOf(options: EvaluateOptions, model: EvalModel): PromptSetting {
  const {
    chatTemplate: template,
    fewshotAsMultiturn: multiturn = false,
    systemInstruction: system,
  } = options;
  if (template === undefined && multiturn)
    fail('ERR_LIBMOE_ARGUMENT', 'fewshotAsMultiturn needs a chat template');
  if (template !== undefined && model.encodeTurn)
    fail(
      'ERR_LIBMOE_ARGUMENT',
      `${model.name} is asked in conversations anyway: leave the chat template out`,
    );
  return {
    ...(system !== undefined && { system }),
    ...(template !== undefined && { chat: { template, multiturn } }),
  };
}

function emptyResults(
  model: EvalModel,
  options: EvaluateOptions,
  mode: ScorerMode,
  fingerprint: string,
  requests: Results['libmoe']['requests'],
): Results {
  return {
    results: {},
    group_subtasks: {},
    configs: {},
    versions: {},
    'n-shot': {},
    higher_is_better: {},
    'n-samples': {},
    config: {
      model: model.name,
      model_args: '',
      ...model.facts,
      limit: options.limit ?? null,
      bootstrap_iters: options.bootstrapResamples ?? 100_000,
      gen_kwargs: options.generation ?? {},
      random_seed: 0,
      tokenizer: model.tokenizer.name,
      max_length: model.maxLength,
      ...(options.chatTemplate && { chat_template: options.chatTemplate.template }),
      ...(options.systemInstruction !== undefined && { system_instruction: options.systemInstruction }),
      ...(options.fewshotAsMultiturn && { fewshot_as_multiturn: true }),
    },
    git_hash: options.gitHash ?? '',
    date: Date.now() / 1000,
    task_hashes: {},
    total_evaluation_time_seconds: 0,
    libmoe: {
      scorer_mode: mode,
      ...(options.legacyRandomFallback && { legacy_random_fallback: true }),
      fingerprint,
      unparsed: {},
      unparsed_rate: {},
      missing: {},
      generated: {},
      dataset_manifest: {},
      fragile_items: {},
      boundary_merged: {},
      chance: {},
      not_finite: {},
      bos: {},
      requests,
    },
  };
}
