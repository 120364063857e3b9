import { fail } from '../native/index.ts';
import type { Answer } from './journal.ts';
import { type LastWord, lastWordFrom } from './last-word.ts';
import {
  defaultMetrics,
  isFragile,
  type Metric,
  type MetricValue,
  metricNamed,
  type ScoredQuestion,
  type ScorerMode,
  scoredQuestion,
} from './metrics.ts';
import type { EvalTokenizer, TokenScore } from './model.ts';
import type { PreparedTask } from './prepare.ts';
import { codePoints, utf8Bytes } from './python-text.ts';
import type { Question } from './question.ts';
import { scoreResponses } from './response-scoring.ts';
import { type Results, rowHash, type Sample, sha256, taskRecord } from './results.ts';
import type { Judge } from './scorers/index.ts';
import { mean } from './statistics.ts';
import type { Task } from './task.ts';

/** A task with what the model answered: all that scores depend on, and nothing of the model. */
export interface AnsweredTask {
  task: Task;
  questions: readonly Question[];
  /** Files of the images that each question shows, for judges that look at them too; undefined where an image is more than its file. */
  imageFiles?: readonly (readonly string[] | undefined)[];
  /** Per question, per request. */
  answers: readonly (readonly Answer[])[];
  /** Scored tokens, per question and pair; of generation nothing. */
  tokens: readonly (readonly number[])[];
  /** Per question, of a task with a metric that asks for it. */
  lastWords?: readonly LastWord[];
  /** Rows of the data set, and their hash. */
  original: number;
  sha256: string;
  boundaryMerged: number;
  bos: { added: boolean; template_has_bos: boolean };
}

/** A prepared task with its answers. */
export function answeredTask(
  { task, questions, encoded, original, sha256 }: PreparedTask,
  answers: AnsweredTask['answers'],
  tokenizer: EvalTokenizer,
): AnsweredTask {
  const all = encoded.flat();
  return {
    task,
    questions,
    imageFiles: encoded.map(([first]) => {
      const images = first?.request.images ?? [];
      return images.some(({ recipe }) => recipe) ? undefined : images.map(({ file }) => file);
    }),
    answers,
    tokens: encoded.map((requests) =>
      requests.map(({ request }) => ('continuation' in request ? request.continuation.length : 0)),
    ),
    ...(asksLastWord(task) && {
      lastWords: questions.map(({ pairs }, i) => {
        const { request } = encoded[i]![0]!;
        const { last } = answers[i]![0] as TokenScore;
        return 'continuation' in request && last !== undefined
          ? lastWordFrom(pairs[0]!.continuation, request.continuation, last, tokenizer)
          : fail('ERR_LIBMOE_STATE', `task ${task.task}: the model said nothing of the last tokens`);
      }),
    }),
    original,
    sha256,
    boundaryMerged: all.filter(({ boundaryMerged }) => boundaryMerged).length,
    bos: {
      added: all.some(({ bosAdded }) => bosAdded),
      template_has_bos: all.some(({ templateHasBos }) => templateHasBos),
    },
  };
}

/** Scores a task, enters its numbers into `results` and gives the lines of its samples file. */
export async function scoreTask(
  answered: AnsweredTask,
  mode: ScorerMode,
  results: Results,
  resamples: number,
  judge?: Judge,
): Promise<Sample[]> {
  const { task, questions } = answered;
  const name = task.task;
  results.group_subtasks[name] = [];
  results.configs[name] = taskRecord(task);
  results.versions[name] = task.metadata.version ?? 'Yaml';
  results['n-shot'][name] = task.num_fewshot;
  results['n-samples'][name] = { original: answered.original, effective: questions.length };
  const { libmoe } = results;
  libmoe.dataset_manifest[name] = {
    id: task.dataset_path ?? 'inline',
    sha256: answered.sha256,
    rows: answered.original,
  };
  libmoe.boundary_merged[name] = answered.boundaryMerged;
  libmoe.bos[name] = answered.bos;
  const samples =
    task.output_type === 'generate_until'
      ? await scoreResponses(answered, mode, results, resamples, judge)
      : await scoreLikelihoods(answered, mode, results, resamples);
  const warnings = warningsOf(task, questions.length, answered.original);
  if (warnings.length > 0) libmoe.warnings = { ...libmoe.warnings, [name]: warnings };
  results.task_hashes[name] = sha256(
    samples.map((sample) => sample.doc_hash + sample.prompt_hash + sample.target_hash).join(''),
  );
  return samples;
}

/** Numbers that stand for the whole data set alone, of a run over a part of it. */
function warningsOf({ report = {} }: Task, count: number, all: number): string[] {
  const weighed = Object.entries(report).filter(
    ([, block]) => 'use' in block && block.use === 'caption' && block.part === 'cider',
  );
  return count >= all
    ? []
    : weighed.map(
        ([metric]) =>
          `${metric} is of ${count} of ${all} images: CIDEr weighs words by how many of the images have them, so it cannot be compared with that of the whole data set`,
      );
}

/**
 * The metrics of a task by name.
 * @throws ERR_LIBMOE_CONFIG for an unknown metric or one that does not fit the output type
 */
export function taskMetrics(task: Task): Map<string, Metric> {
  const names = task.metric_list?.map(({ metric }) => metric) ?? defaultMetrics[task.output_type];
  return new Map(
    names.map((name) => {
      const metric = metricNamed(name);
      if (!metric.appliesTo.includes(task.output_type))
        fail(
          'ERR_LIBMOE_CONFIG',
          `task ${task.task}: metric ${name} is for ${metric.appliesTo.join(', ')}, the task is ${task.output_type}`,
        );
      return [name, metric];
    }),
  );
}

/** Whether a metric of the task is about the last word of a text. */
export const asksLastWord = (task: Task): boolean =>
  task.output_type === 'loglikelihood_rolling' &&
  [...taskMetrics(task).values()].some(({ asks }) => asks === 'last_word');

async function scoreLikelihoods(
  { task, questions, answers, tokens, lastWords }: AnsweredTask,
  mode: ScorerMode,
  results: Results,
  resamples: number,
): Promise<Sample[]> {
  const metrics = taskMetrics(task);
  const name = task.task;
  const scored = questions.map((question, i): ScoredQuestion => {
    const scores = answers[i]! as readonly TokenScore[];
    return scoredQuestion({
      question,
      sums: scores.map(({ sum }) => sum),
      greedy: scores.map(({ greedy }) => greedy),
      tokens: tokens[i]!,
      ...(lastWords && { lastWord: lastWords[i]! }),
    });
  });
  const values = new Map<string, MetricValue[]>();
  for (const [metricName, metric] of metrics)
    values.set(
      metricName,
      scored.map((item) => metric.item(item, task.output_type)),
    );

  const row: Record<string, number | string> = {
    alias: task.task_alias ?? name,
    sample_len: questions.length,
  };
  for (const [metricName, metric] of metrics) {
    const all = values.get(metricName)!;
    row[`${metricName},none`] = orMissing(metric.aggregate(all, mode));
    row[`${metricName}_stderr,none`] = orMissing(await metric.standardError(all, mode, resamples));
  }
  if (task.group_by !== undefined)
    addGroups(
      row,
      metrics,
      values,
      questions.map(({ group }) => group ?? ''),
      mode,
    );

  results.results[name] = row;
  results.higher_is_better[name] = Object.fromEntries(
    [...metrics].map(([key, metric]) => [key, metric.higherIsBetter]),
  );
  const { libmoe } = results;
  libmoe.unparsed[name] = 0;
  const choosing = task.output_type === 'multiple_choice';
  libmoe.fragile_items[name] = choosing ? scored.filter(({ sums }) => isFragile(sums)).length : 0;
  if (choosing)
    libmoe.chance[name] = mean(questions.map(({ gold, choices }) => gold.length / choices.length));
  libmoe.not_finite[name] = scored.filter(({ sums }) => !sums.every(Number.isFinite)).length;
  return scored.map((item, i) =>
    sampleOf(
      item,
      answers[i]! as readonly TokenScore[],
      [...metrics.keys()],
      (metricName) => values.get(metricName)![i]!,
    ),
  );
}

/** LibMoE's numbers per group: `<metric>/<group>` and their plain mean `<metric>/group_average`. */
function addGroups(
  row: Record<string, number | string>,
  metrics: ReadonlyMap<string, Metric>,
  values: ReadonlyMap<string, MetricValue[]>,
  groups: readonly string[],
  mode: ScorerMode,
): void {
  const names = [...new Set(groups)].sort();
  for (const [metricName, metric] of metrics) {
    const perGroup = names.map((name) =>
      metric.aggregate(
        values.get(metricName)!.filter((_, i) => groups[i] === name),
        mode,
      ),
    );
    for (const [i, name] of names.entries()) row[`${metricName}/${name},none`] = orMissing(perGroup[i]);
    row[`${metricName}/group_average,none`] = orMissing(mean(perGroup));
  }
}

/** A number of the results; "N/A" where there is none. */
export function orMissing(value: number | undefined): number | string {
  return value === undefined || !Number.isFinite(value) ? 'N/A' : value;
}

function sampleOf(
  scored: ScoredQuestion,
  answers: readonly TokenScore[],
  metrics: string[],
  valueFor: (metric: string) => MetricValue,
): Sample {
  const { question, tokens, lastWord } = scored;
  const responses = answers.map(({ sum, greedy }): [string, string] => [
    String(sum),
    greedy ? 'True' : 'False',
  ]);
  const lengthsOf =
    question.choices.length > 0 ? question.choices : question.pairs.map(({ continuation }) => continuation);
  return {
    doc_id: question.docId,
    doc: question.doc,
    target: question.target,
    arguments: Object.fromEntries(
      question.pairs.map(({ context, continuation }, i) => [
        `gen_args_${i}`,
        // A rolling request is one text; repeating it beside the document would double the file.
        question.choices.length > 0
          ? { arg_0: context, arg_1: continuation }
          : { arg_0: `(document, ${utf8Bytes(continuation)} bytes)` },
      ]),
    ),
    resps: responses.map((response) => [response]),
    filtered_resps: responses,
    filter: 'none',
    metrics,
    doc_hash: rowHash(question.doc),
    prompt_hash: sha256(
      question.pairs.map(({ context, continuation }) => `${context}\u0000${continuation}`).join('\u0001'),
    ),
    target_hash: sha256(String(question.target)),
    libmoe: {
      sums: answers.map(({ sum }) => (Number.isFinite(sum) ? sum : null)),
      tokens: [...tokens],
      chars: lengthsOf.map(codePoints),
      bytes: lengthsOf.map(utf8Bytes),
      ...(question.group === undefined ? {} : { group: question.group }),
      ...(lastWord && { lastWord }),
    },
    ...Object.fromEntries(metrics.map((metric) => [metric, valueFor(metric)])),
  };
}
