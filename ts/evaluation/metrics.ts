import { fail } from '../native/index.ts';
import type { LastWord } from './last-word.ts';
import { codePoints, utf8Bytes, wordCount } from './python-text.ts';
import type { Question } from './question.ts';
import { bootstrapStandardError, exactSum, mean, meanStandardError } from './statistics.ts';
import type { OutputType } from './task.ts';

/** `libmoe` reproduces the original's numbers, defects included; `fixed` repairs the known ones (docs/evaluation.md). */
export const scorerModes = ['libmoe', 'fixed'] as const;
/** One of {@link scorerModes}. */
export type ScorerMode = (typeof scorerModes)[number];

/** A question with the model's answers, one per pair of the question. */
export interface ScoredQuestion {
  question: Question;
  /** Summed log-likelihoods in nats; NaN where the model gave none. */
  sums: readonly number[];
  greedy: readonly boolean[];
  /** Scored tokens. */
  tokens: readonly number[];
  /** Of tasks with acc_mutual_info: log-likelihoods of the choices with nothing before them. */
  unconditional?: readonly number[];
  /** Of tasks with a metric that asks for it. */
  lastWord?: LastWord;
}

/** The answers to all pairs of a question, those that ask for choices alone set apart. */
export function scoredQuestion(given: ScoredQuestion): ScoredQuestion {
  const { question, sums, greedy, tokens } = given;
  const count = question.choices.length;
  if (count === 0 || sums.length <= count) return given;
  const asked = <T>(values: readonly T[]): readonly T[] => values.slice(0, count);
  return {
    question,
    sums: asked(sums),
    greedy: asked(greedy),
    tokens: asked(tokens),
    unconditional: sums.slice(count),
  };
}

/** What a document contributes: one number, or a log-likelihood with its weight (words, bytes, tokens). */
export type MetricValue = number | readonly [logLikelihood: number, weight: number];

/** A metric: a value per document and how the values become one number. */
export interface Metric {
  higherIsBetter: boolean;
  appliesTo: readonly OutputType[];
  /** What it takes beside likelihoods. */
  asks?: 'last_word';
  /** The value of one question. */
  item(scored: ScoredQuestion, outputType: OutputType): MetricValue;
  /** One number from the values of all questions. */
  aggregate(values: readonly MetricValue[], mode: ScorerMode): number;
  /** Undefined where no standard error is defined ("N/A" in the results). */
  standardError(
    values: readonly MetricValue[],
    mode: ScorerMode,
    resamples: number,
  ): number | undefined | Promise<number | undefined>;
}

const metrics = new Map<string, Metric>();

/** Makes a metric known by name, for the `metric_list` of tasks. */
export function registerMetric(name: string, metric: Metric): void {
  metrics.set(name, metric);
}

/** Names of all registered metrics, sorted. */
export function metricNames(): string[] {
  return [...metrics.keys()].sort();
}

/** Throws ERR_LIBMOE_CONFIG for an unknown name. */
export function metricNamed(name: string): Metric {
  return (
    metrics.get(name) ?? fail('ERR_LIBMOE_CONFIG', `no metric "${name}"; known: ${metricNames().join(', ')}`)
  );
}

/** Metrics of a task that lists none, as in lm-eval. */
export const defaultMetrics: Readonly<Record<OutputType, readonly string[]>> = {
  multiple_choice: ['acc', 'acc_norm'],
  loglikelihood: ['perplexity', 'acc'],
  loglikelihood_rolling: ['word_perplexity', 'byte_perplexity', 'bits_per_byte'],
  // Texts are scored by a scorer: see scorers/.
  generate_until: [],
};

/** Position of the first largest value; NaN never wins; −1 if nothing is a number. */
export function argmax(values: readonly number[]): number {
  let best = -1;
  for (const [i, value] of values.entries())
    if (!Number.isNaN(value) && (best < 0 || value > values[best]!)) best = i;
  return best;
}

/** LibMoE's rule: right if and only if the gold value is strictly above every other; a tie or NaN is wrong. */
export function strictlyBest(values: readonly number[], gold: number): boolean {
  const value = values[gold]!;
  return values.every((other, i) => i === gold || value > other);
}

/** Choices whose best log-likelihood leads by less than this many nats may flip with rounding: reported as fragile. */
export const fragileMargin = 0.05;

export function isFragile(sums: readonly number[]): boolean {
  const [best = 0, second = Number.NEGATIVE_INFINITY] = sums.toSorted((a, b) => b - a);
  return best - second < fragileMargin;
}

/** A value that is a number. */
export const number = (value: MetricValue): number =>
  typeof value === 'number' ? value : fail('ERR_LIBMOE_STATE', 'this metric takes one number per document');
/** A value that is a pair. */
export const pair = (value: MetricValue): readonly [number, number] =>
  typeof value === 'number'
    ? fail('ERR_LIBMOE_STATE', 'this metric takes a log-likelihood with its weight')
    : value;

/** The plain mean of a number per document, with s/√n. */
export function meanMetric(
  item: Metric['item'],
  appliesTo: readonly OutputType[],
  higherIsBetter = true,
): Metric {
  return {
    higherIsBetter,
    appliesTo,
    item,
    aggregate: (values) => mean(values.map(number)),
    standardError: (values) => meanStandardError(values.map(number)),
  };
}

function picked(score: (scored: ScoredQuestion, choice: number) => number): Metric {
  return meanMetric(
    (scored) => Number(scored.question.gold.includes(argmax(scored.sums.map((_, i) => score(scored, i))))),
    ['multiple_choice'],
  );
}

function strict(score: (scored: ScoredQuestion, choice: number) => number): Metric {
  return meanMetric(
    (scored) => {
      const values = scored.sums.map((_, i) => score(scored, i));
      return Number(scored.question.gold.some((gold) => strictlyBest(values, gold)));
    },
    ['multiple_choice'],
  );
}

const sumOf = (scored: ScoredQuestion, i: number): number => scored.sums[i]!;
const byTokens = (scored: ScoredQuestion, i: number): number => scored.sums[i]! / scored.tokens[i]!;

registerMetric('acc', {
  ...meanMetric(() => 0, ['multiple_choice', 'loglikelihood']),
  item: (scored, outputType) =>
    outputType === 'loglikelihood'
      ? Number(scored.greedy[0])
      : Number(scored.question.gold.includes(argmax(scored.sums))),
});
registerMetric(
  'acc_norm',
  picked((scored, i) => scored.sums[i]! / codePoints(scored.question.choices[i]!)),
);
registerMetric(
  'acc_bytes',
  picked((scored, i) => scored.sums[i]! / utf8Bytes(scored.question.choices[i]!)),
);
/** By what the question adds to a choice's likelihood: log P(choice | question) − log P(choice). */
registerMetric(
  'acc_mutual_info',
  picked(({ sums, unconditional }, i) =>
    unconditional === undefined
      ? fail('ERR_LIBMOE_STATE', 'acc_mutual_info needs the likelihoods of the choices alone')
      : sums[i]! - unconditional[i]!,
  ),
);
registerMetric('acc_token', strict(byTokens));
registerMetric('acc_sum', strict(sumOf));

/** Multi-class Brier score of the softmax over the choices' log-likelihoods. */
registerMetric(
  'brier_score',
  meanMetric(
    ({ sums, question }) => {
      const top = Math.max(...sums);
      const weights = sums.map((sum) => Math.exp(sum - top));
      const total = exactSum(weights);
      return exactSum(weights.map((w, i) => (w / total - Number(question.gold.includes(i))) ** 2));
    },
    ['multiple_choice'],
    false,
  ),
);

// The original averages exp(log-likelihood) instead of exponentiating their mean.
const perplexity = (sums: readonly number[], mode: ScorerMode): number =>
  mode === 'libmoe' ? mean(sums.map(Math.exp)) : Math.exp(-mean(sums));

registerMetric('perplexity', {
  higherIsBetter: false,
  appliesTo: ['loglikelihood'],
  item: ({ sums }) => sums[0]!,
  aggregate: (values, mode) => perplexity(values.map(number), mode),
  standardError: (values, mode, resamples) => {
    const sums = values.map(number);
    if (mode === 'libmoe') return meanStandardError(sums.map(Math.exp));
    return bootstrapStandardError(
      sums.length,
      (drawn) => Math.exp(-(total(sums, drawn) / drawn.length)),
      resamples,
    );
  },
});

/** A function of Σ log-likelihood / Σ weight over all documents, the weight being words, bytes or tokens. */
function ratioMetric(
  weigh: (scored: ScoredQuestion) => number,
  finish: (logLikelihoodPerUnit: number) => number,
): Metric {
  return {
    higherIsBetter: false,
    appliesTo: ['loglikelihood_rolling'],
    item: (scored) => [scored.sums[0]!, weigh(scored)],
    aggregate: (values) => {
      const pairs = values.map(pair);
      return finish(exactSum(pairs.map(([sum]) => sum)) / exactSum(pairs.map(([, weight]) => weight)));
    },
    standardError: (values, _mode, resamples) => {
      const sums = values.map((value) => pair(value)[0]);
      const weights = values.map((value) => pair(value)[1]);
      return bootstrapStandardError(
        sums.length,
        (drawn) => finish(total(sums, drawn) / total(weights, drawn)),
        resamples,
      );
    },
  };
}

function total(values: readonly number[], drawn: Int32Array): number {
  let sum = 0;
  for (let i = 0; i < drawn.length; i++) sum += values[drawn[i]!]!;
  return sum;
}

const textOf = (scored: ScoredQuestion): string => scored.question.pairs[0]!.continuation;
registerMetric(
  'word_perplexity',
  ratioMetric(
    (scored) => wordCount(textOf(scored)),
    (mean) => Math.exp(-mean),
  ),
);
registerMetric(
  'byte_perplexity',
  ratioMetric(
    (scored) => utf8Bytes(textOf(scored)),
    (mean) => Math.exp(-mean),
  ),
);
registerMetric(
  'token_perplexity',
  ratioMetric(
    (scored) => scored.tokens[0]!,
    (mean) => Math.exp(-mean),
  ),
);
registerMetric(
  'token_loss',
  ratioMetric(
    (scored) => scored.tokens[0]!,
    (mean) => -mean,
  ),
);
registerMetric(
  'bits_per_byte',
  ratioMetric(
    (scored) => utf8Bytes(textOf(scored)),
    (mean) => -mean / Math.LN2,
  ),
);
