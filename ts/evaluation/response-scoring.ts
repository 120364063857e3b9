import { join } from 'node:path';
import { fail } from '../native/index.ts';
import { writeFileAtomically } from '../storage/index.ts';
import { generationsOf } from './generation-settings.ts';
import type { ScorerMode } from './metrics.ts';
import type { GeneratedText } from './model.ts';
import { imagesAtHand } from './request-images.ts';
import { type ResponseFilter, responseFilters } from './response-filters.ts';
import { type ResponseFacts, type Results, rowHash, type Sample, sha256 } from './results.ts';
import {
  type Judge,
  type LegacyGuess,
  legacyGuess,
  type ReportedDocument,
  type ResponseScore,
  reportNumbers,
  type ScoreBlock,
  submissionText,
  type TaskScorer,
  taskScorer,
} from './scorers/index.ts';
import type { AnsweredTask } from './scoring.ts';
import type { Task } from './task.ts';

/** The scorer of a task: its own, else lm-eval's exact match with the flags that its `metric_list` gives. */
export function scoreBlockOf(task: Task): ScoreBlock {
  if (task.score !== undefined) return task.score;
  const [listed, ...more] = task.metric_list ?? [];
  if (more.length > 0 || (listed !== undefined && listed.metric !== 'exact_match'))
    return fail(
      'ERR_LIBMOE_CONFIG',
      `task ${task.task}: metric_list of a generate_until task can hold exact_match alone, got ${task.metric_list?.map(({ metric }) => metric).join(', ')}: name a scorer with "score"`,
    );
  const { metric: _, aggregation: __, higher_is_better: ___, ...flags } = listed ?? {};
  return { use: 'exact_match', ...flags };
}

/** Checks all that scoring a task of texts needs, before any text is made. @throws ERR_LIBMOE_CONFIG */
export function checkResponseTask(task: Task, mode: ScorerMode): void {
  taskScorer(task.task, scoreBlockOf(task), mode);
  responseFilters(task.filter_list, task.task);
}

/** What a pipeline makes of the responses to a question. */
interface Scored extends ReportedDocument {
  filtered: string[];
}

/** Scores the texts of a task, enters its numbers into `results` and gives a line per document and pipeline. */
export async function scoreResponses(
  { task, questions, answers, imageFiles }: AnsweredTask,
  mode: ScorerMode,
  results: Results,
  resamples: number,
  judge?: Judge,
): Promise<Sample[]> {
  const name = task.task;
  const scorer = taskScorer(name, scoreBlockOf(task), mode);
  const filters = responseFilters(task.filter_list, name);
  const texts = answers as readonly (readonly GeneratedText[])[];
  const row: Record<string, number | string> = {
    alias: task.task_alias ?? name,
    sample_len: questions.length,
  };
  const better: Record<string, boolean> = {};
  const samples: Sample[] = [];
  const { libmoe } = results;
  for (const [place, filter] of filters.entries()) {
    const filtered = questions.map(({ docId, choices }, i) =>
      applied(filter, texts[i]!, choices, name, docId),
    );
    const guess = libmoe.legacy_random_fallback ? legacyGuess() : undefined;
    const scores = await scoresOf(scorer, { questions, imageFiles, guess }, filtered, judge);
    const scored = questions.map(({ doc, docId, target }, i): Scored => {
      return { doc, docId, target, response: filtered[i]![0]!, score: scores[i]!, filtered: filtered[i]! };
    });
    const numbers = await reportNumbers(task.report, scored, mode, resamples, name);
    for (const [metric, { value, standardError, higherIsBetter }] of Object.entries(numbers)) {
      row[`${metric},${filter.name}`] = number(value);
      row[`${metric}_stderr,${filter.name}`] = number(standardError);
      better[metric.split('/')[0]!] = higherIsBetter;
    }
    const unparsed = scored.filter(({ score }) => score.parsed === null).length;
    row[`unparsed_rate,${filter.name}`] = unparsed / questions.length;
    if (place === 0) {
      libmoe.unparsed[name] = unparsed;
      libmoe.unparsed_rate[name] = unparsed / questions.length;
      libmoe.missing[name] = scored.filter(({ score }) => score.missing !== undefined).length;
    }
    for (const [i, item] of scored.entries()) {
      const sample = sampleOf(task, questions[i]!, texts[i]!, item, filter.name);
      const files = scorer.judge && imageFiles?.[i];
      // Another judge may be asked later, when nobody knows the folder that the names are relative to.
      if (files && imagesAtHand(questions[i]!.images) === undefined)
        (sample.libmoe as ResponseFacts).images = [...files];
      samples.push(sample);
    }
  }
  better.unparsed_rate = false;
  results.results[name] = row;
  results.higher_is_better[name] = better;
  const all = texts.flat();
  libmoe.fragile_items[name] = 0;
  libmoe.not_finite[name] = all.filter(({ ended }) => ended === 'not_finite').length;
  const generated = { tokens: 0, stop: 0, eos: 0, length: 0, not_finite: 0 };
  for (const { tokens, ended } of all) {
    generated.tokens += tokens;
    generated[ended] += 1;
  }
  libmoe.generated[name] = generated;
  return samples;
}

/** A judge is asked about all documents at once and knows how many questions it may have under way. */
async function scoresOf(
  scorer: TaskScorer,
  {
    questions,
    imageFiles,
    guess,
  }: {
    questions: AnsweredTask['questions'];
    imageFiles: AnsweredTask['imageFiles'];
    guess: LegacyGuess | undefined;
  },
  filtered: readonly (readonly string[])[],
  judge: Judge | undefined,
): Promise<ResponseScore[]> {
  const one = (
    { doc, docId, target, choices, images: names }: AnsweredTask['questions'][number],
    i: number,
  ) => {
    const images = judge && (imageFiles?.[i] ?? imagesAtHand(names));
    const question = { doc, target, choices, ...(images && { images }), ...(guess && { guess }) };
    return [filtered[i]![0]!, question, docId] as const;
  };
  if (judge && scorer.judge)
    return Promise.all(questions.map((question, i) => scorer.judge!(...one(question, i), judge)));
  const scores: ResponseScore[] = [];
  for (const [i, question] of questions.entries()) {
    scores.push(scorer.score(...one(question, i)));
    if (i % 256 === 255) await new Promise((resolve) => setImmediate(resolve));
  }
  return scores;
}

function applied(
  filter: ResponseFilter,
  texts: readonly GeneratedText[],
  choices: readonly string[],
  task: string,
  docId: number,
): string[] {
  const left = filter.apply(
    texts.map(({ text }) => text),
    choices,
  );
  if (left.length === 0)
    fail('ERR_LIBMOE_CONFIG', `task ${task}, document ${docId}: filter "${filter.name}" leaves no response`);
  return left;
}

function number(value: number | undefined): number | string {
  return value === undefined || !Number.isFinite(value) ? 'N/A' : value;
}

function sampleOf(
  task: Task,
  { docId, doc, target, pairs, choices, group }: AnsweredTask['questions'][number],
  texts: readonly GeneratedText[],
  { score, filtered }: Scored,
  filter: string,
): Sample {
  const prompt = pairs[0]!.context;
  const { until, maxTokens, temperature } = generationsOf(task)[0]!;
  return {
    doc_id: docId,
    doc,
    target,
    arguments: {
      gen_args_0: { arg_0: prompt, arg_1: { until, max_gen_toks: maxTokens, temperature } },
    },
    resps: [texts.map(({ text }) => text)],
    filtered_resps: filtered,
    filter,
    metrics: Object.keys(score.values),
    doc_hash: rowHash(doc),
    prompt_hash: sha256(prompt),
    target_hash: sha256(String(target)),
    libmoe: {
      parsed: score.parsed,
      tokens: texts.map(({ tokens }) => tokens),
      ended: texts.map(({ ended }) => ended),
      ...(score.detail && { detail: score.detail }),
      ...(score.missing !== undefined && { missing: score.missing }),
      ...(choices.length > 0 && { choices: [...choices] }),
      ...(group !== undefined && { group }),
    },
    ...score.values,
  };
}

/** Writes the file that a benchmark's server wants, `submission_<task>.<format>`, of a task that is scored there. */
export function writeSubmission(folder: string, task: Task, samples: readonly Sample[]): void {
  if (task.score?.use !== 'submission') return;
  const { filter } = samples[0]!;
  const documents = samples
    .filter((sample) => sample.filter === filter)
    .map(({ libmoe }) => ({ score: { values: {}, ...(libmoe as ResponseFacts) } }));
  const format = documents[0]!.score.detail?.format;
  const ending = format === 'csv' || format === 'jsonl' ? format : 'json';
  writeFileAtomically(join(folder, `submission_${task.task}.${ending}`), submissionText(documents));
}
