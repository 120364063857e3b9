import { join } from 'node:path';
import { loadTokenizer, type Tokenizer } from '../data/tokenizer.ts';
import { LanguageModel } from '../models/language/model.ts';
import { fail } from '../native/index.ts';
import { loadDocuments } from './dataset.ts';
import './bundle-dataset.ts';
import './emoji-dataset.ts';
import { requestKey, ScoreJournal } from './journal.ts';
import { languageAdapter } from './language-adapter.ts';
import { type ScorerMode, scorerModes } from './metrics.ts';
import './yes-no-metrics.ts';
import type { EvalModel, EvalTokenizer, RequestImage, TokenRequest, TokenScore } from './model.ts';
import { QuestionMaker, type TextPair } from './question.ts';
import { RequestImages, withPlaceholders } from './request-images.ts';
import { type EncodedPair, encodePair } from './requests.ts';
import { type Results, writeResults, writeSamples } from './results.ts';
import { type PreparedTask, scoreTask, taskMetrics } from './scoring.ts';
import type { Task } from './task.ts';
import { resolveTask, type TaskChoice } from './task-files.ts';

/** What {@link evaluate} evaluates, and where results go. */
export interface EvaluateOptions {
  /** Task names, task files (`*.yaml`), or tasks written out; `{ task: 'piqa', dataset_kwargs: … }` overrides keys. */
  tasks: readonly TaskChoice[];
  /** A whole number ≥ 1: documents per task. Between 0 and 1: that share of each task, rounded up. */
  limit?: number;
  /** Folder for results.json, samples_<task>.jsonl and the journal that a killed run resumes from. */
  out?: string;
  /** Of a language model; default: the one beside the checkpoint that it was loaded from. An {@link EvalModel} has its own. */
  tokenizer?: Tokenizer | EvalTokenizer;
  /** Default `libmoe`: the original's numbers, quirks included, as published ones are; `fixed` repairs them. */
  scorer?: ScorerMode;
  /** Where relative data files are looked up before the task file's own folder. */
  dataFolder?: string;
  /** Resamples of bootstrapped standard errors; default 100000 as lm-eval. */
  bootstrapResamples?: number;
  /** Commit to record. */
  gitHash?: string;
  signal?: AbortSignal;
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
  const mode = options.scorer ?? 'libmoe';
  checkOptions(options, mode);
  const model = evalModelOf(given, options.tokenizer);
  const tasks = options.tasks.map((choice) => resolveTask(choice));
  const twice = tasks.find((task, i) => tasks.findIndex((other) => other.task === task.task) !== i);
  if (twice !== undefined) fail('ERR_LIBMOE_ARGUMENT', `task ${twice.task} is listed twice`);
  for (const task of tasks) taskMetrics(task);

  const prepared: PreparedTask[] = [];
  const images = new RequestImages(options.dataFolder);
  for (const task of tasks) {
    prepared.push(await prepare(task, model, images, options));
    yield { stage: 'prepare', task: task.task, done: prepared.length, total: tasks.length, fromJournal: 0 };
  }

  using journal = new ScoreJournal(
    options.out === undefined ? undefined : join(options.out, 'journal.jsonl'),
  );
  const fingerprint = await model.fingerprint();
  const all = prepared.flatMap(({ encoded }) => encoded.flat().map(({ request }) => request));
  const keys = all.map((request) => requestKey(fingerprint, request));
  const open = new Map<string, TokenRequest>();
  for (const [i, request] of all.entries())
    if (journal.get(keys[i]!) === undefined) open.set(keys[i]!, request);
  const unique = new Set(keys).size;
  const known = unique - open.size;
  yield { stage: 'score', done: known, total: unique, fromJournal: known };
  for await (const answered of score(model, open, journal, options.signal))
    yield { stage: 'score', done: known + answered, total: unique, fromJournal: known };

  const results = emptyResults(model, options, mode, fingerprint, { total: unique, from_journal: known });
  let at = 0;
  for (const [i, item] of prepared.entries()) {
    const scores = item.encoded.map((pairs) => pairs.map(() => journal.get(keys[at++]!) as TokenScore));
    const samples = await scoreTask(item, scores, mode, results, options.bootstrapResamples ?? 100_000);
    if (options.out !== undefined) writeSamples(options.out, item.task.task, samples);
    yield {
      stage: 'aggregate',
      task: item.task.task,
      done: i + 1,
      total: prepared.length,
      fromJournal: known,
    };
  }
  results.total_evaluation_time_seconds = (performance.now() - started) / 1000;
  if (options.out !== undefined) writeResults(options.out, results);
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
  const { limit, tasks, bootstrapResamples = 1000 } = options;
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

async function prepare(
  task: Task,
  model: EvalModel,
  images: RequestImages,
  options: EvaluateOptions,
): Promise<PreparedTask> {
  if (task.doc_to_visual !== undefined && model.imagePlaceholder === undefined)
    fail('ERR_LIBMOE_UNSUPPORTED', `task ${task.task} shows images, and ${model.name} sees none`);
  const { rows, sha256 } = await loadDocuments(task, options.dataFolder);
  const { limit = rows.length } = options;
  const count = Math.min(rows.length, limit < 1 ? Math.ceil(limit * rows.length) : limit);
  const maker = new QuestionMaker(task);
  const questions: PreparedTask['questions'] = [];
  const encoded: PreparedTask['encoded'] = [];
  for (let docId = 0; docId < count; docId++) {
    const question = maker.make(rows[docId]!, docId);
    try {
      const seen = await images.of(task, question.images);
      encoded.push(question.pairs.map((pair) => asked(pair, seen, task, model)));
    } catch (cause) {
      const { message, code } = cause as Error & { code?: 'ERR_LIBMOE_DATA' };
      fail(
        code ?? 'ERR_LIBMOE_DATA',
        `task ${task.task}, document ${docId}: ${message.replace(/^ERR_\w+: /, '')}`,
        cause,
      );
    }
    questions.push(question);
    if (docId % 256 === 255) await new Promise((resolve) => setImmediate(resolve));
  }
  return { task, questions, encoded, original: rows.length, sha256 };
}

/** A pair as the model is asked: with a placeholder for each image, and as a turn of a conversation where it knows those. */
function asked(pair: TextPair, images: readonly RequestImage[], task: Task, model: EvalModel): EncodedPair {
  const { imagePlaceholder, tokenizer } = model;
  const context = imagePlaceholder
    ? withPlaceholders(pair.context, images.length, imagePlaceholder)
    : pair.context;
  const rolling = task.output_type === 'loglikelihood_rolling';
  const encoded: EncodedPair =
    rolling || !model.encodeTurn
      ? encodePair({ ...pair, context }, task, tokenizer)
      : {
          // What stands before an answer is the template's to say.
          request: {
            kind: 'loglikelihood',
            ...model.encodeTurn(context, pair.continuation.slice(task.target_delimiter.length)),
          },
          boundaryMerged: false,
          bosAdded: false,
          templateHasBos: false,
        };
  return images.length === 0 ? encoded : { ...encoded, request: { ...encoded.request, images } };
}

/** Has the model answer what is open, keeps every answer at once, and yields how many are done. */
async function* score(
  model: EvalModel,
  open: ReadonlyMap<string, TokenRequest>,
  journal: ScoreJournal,
  outer: AbortSignal | undefined,
): AsyncGenerator<number> {
  const left = new AbortController();
  const signal = outer === undefined ? left.signal : AbortSignal.any([left.signal, outer]);
  let answered = 0;
  let wake = (): void => {};
  const work = async (): Promise<void> => {
    for (const kind of ['loglikelihood', 'loglikelihood_rolling'] as const) {
      const keys = [...open].filter(([, request]) => request.kind === kind).map(([key]) => key);
      if (keys.length === 0) continue;
      const requests = keys.map((key) => open.get(key) as TokenRequest);
      const emit = (index: number, answer: TokenScore): void => {
        journal.put(keys[index]!, answer);
        answered++;
        wake();
      };
      if (kind === 'loglikelihood') await model.loglikelihood(requests, emit, { signal });
      else await model.loglikelihoodRolling(requests, emit, { signal });
      const missing = keys.filter((key) => journal.get(key) === undefined).length;
      if (missing > 0)
        fail('ERR_LIBMOE_STATE', `model ${model.name} left ${missing} of ${keys.length} requests unanswered`);
    }
  };
  let ended = false;
  const working = work().finally(() => {
    ended = true;
    wake();
  });
  working.catch(() => {}); // reported below by the await; until then it must not count as unhandled
  try {
    let told = 0;
    while (!ended) {
      await new Promise<void>((resolve) => {
        wake = resolve;
        if (ended || answered > told) resolve();
      });
      if (answered > told) {
        told = answered;
        yield answered;
      }
    }
    await working;
    if (answered > told) yield answered;
  } finally {
    left.abort(new Error('evaluation was left'));
    await working.catch(() => {});
    journal.sync();
  }
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
      gen_kwargs: {},
      random_seed: 0,
      tokenizer: model.tokenizer.name,
      max_length: model.maxLength,
    },
    git_hash: options.gitHash ?? '',
    date: Date.now() / 1000,
    task_hashes: {},
    total_evaluation_time_seconds: 0,
    libmoe: {
      scorer_mode: mode,
      fingerprint,
      unparsed: {},
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
