import { createHash } from 'node:crypto';
import { writeSync } from 'node:fs';
import { join } from 'node:path';
import { fail } from '../native/index.ts';
import { readJsonObject, readLines, writeFileAtomically } from '../storage/index.ts';
import type { DocumentValue } from './compare.ts';
import type { LastWord } from './last-word.ts';
import type { MetricValue, ScorerMode } from './metrics.ts';
import type { GeneratedText } from './model.ts';
import type { Task } from './task.ts';
import type { TaskGroup } from './task-groups.ts';

/** `results.json`: lm-eval's shape, so that its viewers work, and a `libmoe` block. */
export interface Results {
  /** Per task: `"<metric>,none"`, `"<metric>_stderr,none"` (or "N/A"), `alias`, `sample_len`. */
  results: Record<string, Record<string, number | string>>;
  /** Per group of tasks: the same, together. Absent when no group was asked for. */
  groups?: Record<string, Record<string, number | string>>;
  group_subtasks: Record<string, string[]>;
  configs: Record<string, Record<string, unknown>>;
  versions: Record<string, number | string>;
  'n-shot': Record<string, number>;
  higher_is_better: Record<string, Record<string, boolean>>;
  'n-samples': Record<string, { original: number; effective: number }>;
  config: {
    model: string;
    model_args: string;
    limit: number | null;
    bootstrap_iters: number;
    gen_kwargs: Record<string, unknown>;
  } & Record<string, unknown>;
  git_hash: string;
  /** Seconds since 1970. */
  date: number;
  task_hashes: Record<string, string>;
  total_evaluation_time_seconds: number;
  libmoe: {
    scorer_mode: ScorerMode;
    /** The originals' random guesses were made where no answer could be read. */
    legacy_random_fallback?: boolean;
    fingerprint: string;
    /** Responses that no answer could be read out of. */
    unparsed: Record<string, number>;
    unparsed_rate: Record<string, number>;
    /** What is to be known of a task's numbers before they are compared with others'; absent where there is nothing. */
    warnings?: Record<string, string[]>;
    /** Documents without a score although they should have one (a judge that failed). */
    missing: Record<string, number>;
    /** Where one was asked: its model, questions, and those that it failed on. */
    judge?: { model: string; calls?: number; failed?: number };
    /** Of tasks that ask for texts: tokens made, and what ended the texts. */
    generated: Record<string, { tokens: number } & Record<GeneratedText['ended'], number>>;
    dataset_manifest: Record<string, { id: string; sha256: string; rows: number }>;
    /** Questions whose best two choices are closer than the margin that rounding can turn. */
    fragile_items: Record<string, number>;
    boundary_merged: Record<string, number>;
    /** Share that guessing gets right, for multiple-choice tasks. */
    chance: Record<string, number>;
    /** Questions with an answer that is no finite number; they count as wrong. */
    not_finite: Record<string, number>;
    bos: Record<string, { added: boolean; template_has_bos: boolean }>;
    requests: { total: number; from_journal: number };
    /** After rescoring: keys of tasks that are others now than in the run. */
    redefined?: Record<string, string[]>;
    /** Groups that were asked for, and how their numbers are made. */
    groups?: TaskGroup[];
    /** With `--scorer both`: the numbers of the scorer `fixed`, per task. */
    fixed_results?: Results['results'];
    /** Of several processes that shared the work, the one that wrote this. */
    ranks?: { rank: number; world: number };
  };
}

/** What a sample of likelihoods says beside lm-eval's keys. */
export interface LikelihoodFacts {
  sums: (number | null)[];
  tokens: number[];
  chars: number[];
  bytes: number[];
  group?: string;
  lastWord?: LastWord;
}

/** What a sample of a generated text says beside lm-eval's keys. */
export interface ResponseFacts {
  /** What was read out of the response; null: nothing could be. */
  parsed: string | null;
  /** Per repeat. */
  tokens: number[];
  ended: GeneratedText['ended'][];
  detail?: Readonly<Record<string, unknown>>;
  missing?: string;
  choices?: string[];
  group?: string;
  /** Of tasks that take a judge, where the files of the document's images were when its names alone do not say it. */
  images?: string[];
}

/** A line of `samples_<task>.jsonl`, lm-eval's keys and a `libmoe` block. */
export interface Sample {
  doc_id: number;
  doc: Readonly<Record<string, unknown>>;
  target: unknown;
  arguments: Record<string, { arg_0: string; arg_1?: unknown }>;
  /** Of a likelihood the number as text and whether it was greedy; of generation the texts as they came. */
  resps: ([string, string] | string)[][];
  filtered_resps: ([string, string] | string)[];
  /** Name of the pipeline that made the filtered responses. */
  filter: string;
  metrics: string[];
  doc_hash: string;
  prompt_hash: string;
  target_hash: string;
  libmoe: LikelihoodFacts | ResponseFacts;
  [metric: string]: unknown;
}

export function sha256(text: string): string {
  return createHash('sha256').update(text, 'utf8').digest('hex');
}

/** What identifies a document: its row, media of bundles by their content's names, wherever the bundle lies. */
export function rowHash(doc: Sample['doc']): string {
  const row = JSON.stringify(doc, (_, value: unknown) =>
    typeof value === 'string'
      ? (/^\/.*\/(media\/[0-9a-f]{64}\.[a-z0-9]+)$/.exec(value)?.[1] ?? value)
      : value,
  );
  return sha256(row);
}

/** The task as results files show it: inline documents give way to their count and hash. */
export function taskRecord(task: Task): Record<string, unknown> {
  const { documents, folder: _, examples: __, ...rest } = task;
  const kwargs = Object.fromEntries(
    Object.entries(rest.dataset_kwargs).map(([key, value]) =>
      Array.isArray(value) && JSON.stringify(value).length > 2000
        ? [key, { count: value.length, sha256: sha256(JSON.stringify(value)) }]
        : [key, value],
    ),
  );
  return {
    ...rest,
    dataset_kwargs: kwargs,
    ...(documents === undefined
      ? {}
      : { documents: { count: documents.length, sha256: sha256(JSON.stringify(documents)) } }),
  };
}

/** Writes `samples_<task>.jsonl`, complete or not at all. */
export function writeSamples(folder: string, task: string, samples: readonly Sample[]): void {
  writeFileAtomically(join(folder, `samples_${task}.jsonl`), (descriptor) => {
    // In pieces: the lines of a large task do not fit into one string.
    for (const sample of samples) writeFully(descriptor, `${JSON.stringify(sample)}\n`);
  });
}

function writeFully(descriptor: number, text: string): void {
  const bytes = Buffer.from(text);
  for (let at = 0; at < bytes.length; ) at += writeSync(descriptor, bytes, at);
}

/** Writes `results.json`, complete or not at all. */
export function writeResults(folder: string, results: Results): void {
  writeFileAtomically(join(folder, 'results.json'), `${JSON.stringify(results, null, 2)}\n`);
}

/** Reads `results.json` of an evaluation folder. Throws ERR_LIBMOE_FILE. */
export function readResults(folder: string): Results {
  const path = join(folder, 'results.json');
  const results = readJsonObject(path);
  if (typeof results.results === 'object' && results.results !== null) return results as unknown as Results;
  return fail('ERR_LIBMOE_FILE', `${path} is no results file: it has no "results"`);
}

/** The lines of `samples_<task>.jsonl`. @throws ERR_LIBMOE_FILE naming the line that is none */
export function readSamples(folder: string, task: string): Sample[] {
  const path = join(folder, `samples_${task}.jsonl`);
  const samples: Sample[] = [];
  let number = 0;
  for (const line of readLines(path)) {
    number += 1;
    if (line === '') continue;
    try {
      samples.push(JSON.parse(line) as Sample);
    } catch (cause) {
      return fail('ERR_LIBMOE_FILE', `${path}:${number} is not valid JSON`, cause);
    }
  }
  return samples;
}

/**
 * What every document contributed to a metric, from `samples_<task>.jsonl`: the input of a paired comparison.
 * @param filter of a task with several pipelines; default: the first one
 * @throws ERR_LIBMOE_FILE if the file is missing or does not have the metric
 */
export function readDocumentValues(
  folder: string,
  task: string,
  metric: string,
  filter?: string,
): DocumentValue[] {
  const samples = readSamples(folder, task);
  const wanted = filter ?? samples[0]?.filter;
  return samples.flatMap((sample, i) => {
    if (sample.filter !== wanted) return [];
    const value = sample[metric];
    const fits =
      typeof value === 'number' ||
      (Array.isArray(value) && value.length === 2 && value.every((x) => typeof x === 'number'));
    // A document that does not count for the metric.
    if (value === null) return [];
    if (!fits)
      fail(
        'ERR_LIBMOE_FILE',
        `${join(folder, `samples_${task}.jsonl`)}:${i + 1} has no value of "${metric}", it has ${sample.metrics?.join(', ')}`,
      );
    return [{ docId: sample.doc_id, docHash: sample.doc_hash, value: value as MetricValue }];
  });
}
