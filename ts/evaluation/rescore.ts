import { isDeepStrictEqual } from 'node:util';
import { fail } from '../native/index.ts';
import type { Answer } from './journal.ts';
import { checkJudgedImages, judgeRecord, keepJudged } from './judging.ts';
import type { LastWord } from './last-word.ts';
import { type ScorerMode, scorerModes } from './metrics.ts';
import type { GeneratedText } from './model.ts';
import { QuestionMaker } from './question.ts';
import { imagesAtHand } from './request-images.ts';
import {
  type LikelihoodFacts,
  type ResponseFacts,
  type Results,
  readResults,
  readSamples,
  type Sample,
  writeResults,
  writeSamples,
} from './results.ts';
import type { Judge, JudgeClient } from './scorers/index.ts';
import { type AnsweredTask, scoreTask } from './scoring.ts';
import { defineTask, type Task, type TaskInput } from './task.ts';
import { ReadTasks, resolveTask, taskFolder, taskNames } from './task-files.ts';
import { enterGroups } from './task-groups.ts';

/** How {@link rescore} scores. */
export interface RescoreOptions {
  /** Default: as before. */
  scorer?: ScorerMode;
  /** The originals' random guesses where no answer can be read; default: as before. */
  legacyRandomFallback?: boolean;
  /** Where the new results go; default: in place of the old ones. */
  out?: string;
  /** Of bootstrapped standard errors; default: as before. */
  bootstrapResamples?: number;
  /** Tasks as the run recorded them, its overridden keys included, in place of what they are now. */
  recorded?: boolean;
  /** Asked again where a task takes a judge; without one results with a judge's scores are not replaced. It has to heed `signal` by itself. */
  judge?: Judge | JudgeClient;
  signal?: AbortSignal;
}

/**
 * Scores an evaluation again from what the model answered, without the model and without the data set: by tasks as they are defined now
 * (a mended scorer or another report takes effect; `libmoe.redefined` names the keys that are others than in the run), or as the results recorded
 * them where that is asked for or a task is not known any more. Prompts stay as they were asked.
 * @throws ERR_LIBMOE_FILE for a folder without a finished evaluation, ERR_LIBMOE_UNSUPPORTED when a judge's scores would be lost, and as scoring does
 */
export async function rescore(folder: string, options: RescoreOptions = {}): Promise<Results> {
  const before = readResults(folder);
  const mode = options.scorer ?? before.libmoe.scorer_mode;
  if (!scorerModes.includes(mode))
    fail('ERR_LIBMOE_ARGUMENT', `scorer must be ${scorerModes.join(' or ')}, got "${mode}"`);
  const resamples = options.bootstrapResamples ?? before.config.bootstrap_iters;
  const { groups: _, ...old } = structuredClone(before);
  const results: Results = { ...old, results: {}, libmoe: { ...old.libmoe, scorer_mode: mode } };
  for (const key of ['fixed_results', 'judge', 'redefined', 'warnings'] as const) delete results.libmoe[key];
  const { legacyRandomFallback: guesses = old.libmoe.legacy_random_fallback ?? false } = options;
  if (guesses) results.libmoe.legacy_random_fallback = true;
  else delete results.libmoe.legacy_random_fallback;
  const { out = folder, judge, recorded = false } = options;
  const now = recorded ? undefined : new ReadTasks();
  const tasks = new Map(Object.keys(before.configs).map((name) => [name, taskNow(name, before, now)]));
  keepJudged([...tasks.values()], before, { folder, out, judge });
  const redefined: Record<string, string[]> = {};
  const written: [string, Sample[]][] = [];
  for (const [name, task] of tasks) {
    options.signal?.throwIfAborted();
    const samples = readSamples(folder, name);
    const answered = answeredBefore(task, samples, before);
    if (judge) checkJudgedImages(answered);
    const asked = new Map(samples.map((sample) => [sample.doc_id, sample]));
    const again = (await scoreTask(answered, mode, results, resamples, judge)).map((sample) => {
      const { arguments: given, prompt_hash: hash } = asked.get(sample.doc_id)!;
      return { ...sample, arguments: given, prompt_hash: hash };
    });
    results['n-shot'][name] = before['n-shot'][name] ?? 0;
    results.libmoe.dataset_manifest[name] = before.libmoe.dataset_manifest[name]!;
    results.configs[name] = recordOf(results.configs[name]!, before.configs[name]!);
    const changed = differingKeys(results.configs[name], before.configs[name]!);
    if (changed.length > 0) redefined[name] = changed;
    results.task_hashes[name] = before.task_hashes[name] ?? results.task_hashes[name]!;
    written.push([name, again]);
  }
  if (judge) results.libmoe.judge = judgeRecord(judge);
  if (Object.keys(redefined).length > 0) results.libmoe.redefined = redefined;
  enterGroups(results, before.libmoe.groups ?? []);
  for (const [name, samples] of written) writeSamples(out, name, samples);
  writeResults(out, results);
  return results;
}

/** The task as it is known now, else (or where no files are to be read) as the results recorded it; without few-shot examples, which only prompts have. */
function taskNow(name: string, before: Results, now: ReadTasks | undefined): Task {
  const recorded = before.configs[name] as Partial<TaskInput>;
  const known =
    now && taskNames(taskFolder, now).includes(name)
      ? (resolveTask(name, taskFolder, now) as TaskInput)
      : recorded;
  const { documents: _, folder: __, ...keys } = { ...known, output_type: recorded.output_type };
  const repeats = recorded.repeats ?? 1;
  const inline = { dataset_path: 'inline', dataset_kwargs: {}, documents: [{}] };
  return defineTask({ ...keys, task: name, repeats, num_fewshot: 0, ...inline });
}

/** A task as it scores now, of documents and questions as they were. */
function recordOf(now: Record<string, unknown>, before: Record<string, unknown>): Record<string, unknown> {
  const asked = ['documents', 'dataset_path', 'dataset_kwargs', 'num_fewshot', 'generation_kwargs'];
  const kept = Object.entries(before).filter(([key]) => asked.includes(key));
  const rest = Object.entries(now).filter(([key]) => !asked.includes(key));
  return Object.fromEntries([...rest, ...kept]);
}

function differingKeys(now: Record<string, unknown>, before: Record<string, unknown>): string[] {
  // As both are in a file: keys without a value are none.
  const written = JSON.parse(JSON.stringify(now)) as Record<string, unknown>;
  const keys = new Set([...Object.keys(before), ...Object.keys(written)]);
  return [...keys].filter((key) => !isDeepStrictEqual(written[key], before[key])).sort();
}

function answeredBefore(task: Task, samples: readonly Sample[], before: Results): AnsweredTask {
  const name = task.task;
  const maker = new QuestionMaker(task);
  const questions: AnsweredTask['questions'][number][] = [];
  const answers: Answer[][] = [];
  const tokens: number[][] = [];
  const lastWords: LastWord[] = [];
  const imageFiles: (string[] | undefined)[] = [];
  const first = samples[0]?.filter;
  for (const sample of samples) {
    if (sample.filter !== first) continue;
    questions.push(maker.make(sample.doc, sample.doc_id));
    tokens.push(sample.libmoe.tokens);
    if ('lastWord' in sample.libmoe && sample.libmoe.lastWord) lastWords.push(sample.libmoe.lastWord);
    answers.push(answersOf(sample));
    imageFiles.push(imagesAtHand((sample.libmoe as ResponseFacts).images ?? questions.at(-1)!.images));
  }
  const { libmoe } = before;
  return {
    task,
    questions,
    imageFiles,
    answers,
    tokens,
    ...(lastWords.length > 0 && { lastWords }),
    original: before['n-samples'][name]!.original,
    sha256: libmoe.dataset_manifest[name]!.sha256,
    boundaryMerged: libmoe.boundary_merged[name] ?? 0,
    bos: libmoe.bos[name] ?? { added: false, template_has_bos: false },
  };
}

function answersOf({ resps, libmoe }: Sample): Answer[] {
  if ('sums' in libmoe) {
    const { sums } = libmoe as LikelihoodFacts;
    return resps.map(([response], i) => ({
      sum: sums[i] ?? Number.NaN,
      greedy: response?.[1] === 'True',
    }));
  }
  const { tokens, ended } = libmoe as ResponseFacts;
  return (resps[0] as string[]).map(
    (text, i): GeneratedText => ({ text, tokens: tokens[i] ?? 0, ended: ended[i] ?? 'length' }),
  );
}
