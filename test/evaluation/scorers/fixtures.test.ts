import { readFileSync } from 'node:fs';
import path from 'node:path';
import { describe, expect, it } from 'vitest';
import { pyFloatStr } from '../../../ts/evaluation/python-number.ts';
import { bleu, bleuCounts } from '../../../ts/evaluation/scorers/caption-bleu.ts';
import { cider } from '../../../ts/evaluation/scorers/caption-cider.ts';
import { type CaptionPair, captionRougeL } from '../../../ts/evaluation/scorers/caption-ngram.ts';
import { inferMmBench, parseMmmuChoice } from '../../../ts/evaluation/scorers/choice-options.ts';
import {
  type ReportedDocument,
  type ResponseScore,
  reportNumbers,
  reportSchema,
  type ScorerQuestion,
  scorerNamed,
} from '../../../ts/evaluation/scorers/index.ts';
import { parseOpen } from '../../../ts/evaluation/scorers/open-answer.ts';
import { normaliseTyped } from '../../../ts/evaluation/scorers/typed-answer.ts';
import { vqaNormalise } from '../../../ts/evaluation/scorers/vqa-normalise.ts';
import { parseMme } from '../../../ts/evaluation/scorers/yes-no.ts';

// Made by running the original Python scorers (specification of the evaluation, appendix A).
const fixtures = readFileSync(path.join(import.meta.dirname, 'fixtures.jsonl'), 'utf8')
  .trimEnd()
  .split('\n')
  .map((line) => JSON.parse(line) as [name: string, input: never, expected: unknown]);

/** As published numbers have it, and without the strip that comes before. */
function score(
  name: string,
  options: Record<string, unknown>,
  response: string,
  question: Partial<ScorerQuestion>,
): ResponseScore {
  const scorer = scorerNamed(name);
  return scorer.score(
    response,
    { doc: {}, target: '', choices: [], ...question },
    scorer.options.parse(options),
    'libmoe',
  );
}
const value =
  (name: string, metric: string, options: Record<string, unknown>) =>
  ([response, target]: [string, ScorerQuestion['target']]) =>
    score(name, options, response, { target }).values[metric];
const rounded = (x: number, digits: number): number => Number(x.toFixed(digits));

async function numbers(report: Record<string, unknown>, documents: ReportedDocument[]) {
  const made = await reportNumbers(reportSchema.parse(report), documents, 'libmoe', 0);
  return Object.fromEntries(Object.entries(made).map(([name, number]) => [name, rounded(number.value, 12)]));
}
const document = (doc: Record<string, unknown>, scored: ResponseScore): ReportedDocument => ({
  doc,
  score: scored,
  response: '',
  target: '',
});

const functions: Record<string, (input: never) => unknown> = {
  exact_match: value('exact_match', 'exact_match', { ignore_case: true, ignore_punctuation: true }),
  ai2d: value('parse_choice', 'acc', { profile: 'lead_dot', letters: 'A-D' }),
  relaxed: value('relaxed_accuracy', 'relaxed', {}),
  vqa_norm: vqaNormalise,
  vqa_acc: ([response, answers]: [string, string[]]) =>
    score('vqa_accuracy', {}, response, { doc: { answers } }).values.vqa_accuracy,
  mme_parse: parseMme,
  mme_agg: (rows: [string, string, number][]) => {
    const block = { use: 'mme', of: 'acc', unit: 'question_id', category: 'category' };
    return numbers(
      { total_score: { ...block, part: 'total' }, overall_pct: { ...block, part: 'percent' } },
      rows.map(([image, category, acc]) =>
        document({ question_id: image, category }, { values: { acc }, parsed: '' }),
      ),
    );
  },
  pope_agg: (rows: [string, string][]) =>
    numbers(
      {
        accuracy: { of: 'acc', agg: 'mean' },
        precision: { use: 'confusion', part: 'precision' },
        recall: { use: 'confusion', part: 'recall' },
        f1: { use: 'confusion', part: 'f1' },
        yes_ratio_gt: { use: 'confusion', part: 'yes_ratio' },
      },
      rows.map(([target, response]) =>
        document({}, score('yes_no', { profile: 'pope' }, response, { target })),
      ),
    ),
  scienceqa: value('parse_choice', 'acc', { profile: 'sqa', letters: 'A-E' }),
  mmstar: value('parse_choice', 'acc', { profile: 'mmstar', letters: 'A-D' }),
  mmmu_mc: ([response, options]: [string, string[]]) =>
    parseMmmuChoice(
      response,
      options.map((_, i) => 'ABCDEFGH'[i]!),
      options,
    ),
  mmmu_open_parse: (response: string) =>
    parseOpen(response)
      .map((candidate) => (typeof candidate === 'number' ? `#${pyFloatStr(candidate)}` : candidate))
      .sort(),
  mmmu_open_score: value('open_answer', 'acc', {}),
  mathvista_norm: ([extracted, choices, questionType, answerType, precision]: [
    string,
    string[],
    string,
    string,
    number,
  ]) => normaliseTyped(extracted, { choices, questionType, answerType, precision }),
  mmbench_infer: ([response, texts]: [string, Record<string, string>]) => inferMmBench(response, texts),
  mmbench_circular: async (rows: [number, string, string][]) => {
    const documents = rows.map(([index, target, response]) => {
      const doc = {
        index,
        A: 'cat',
        B: 'dog',
        C: 'fox',
        category: index % 1_000_000 === 1 ? 'c1' : 'c2',
        l2: 'L',
      };
      const options = { profile: 'mmbench', columns: ['A', 'B', 'C'] };
      return document(doc, score('parse_choice', options, response, { doc, target }));
    });
    const made = await numbers(
      {
        all: {
          use: 'group_consistency',
          of: 'acc',
          unit: { column: 'index', modulo: 1_000_000 },
          by: ['category', 'l2'],
        },
      },
      documents,
    );
    return {
      overall: made.all,
      category: { c1: made['all/category/c1'], c2: made['all/category/c2'] },
      l2: { L: made['all/l2/L'] },
    };
  },
  anls: ([response, target]: [string, string[]]) =>
    rounded(score('anls', {}, response, { target }).values.anls!, 12),
  caption: ([candidates, references]: [string[], string[][]]) => {
    const corpus = candidates.map(
      (candidate, i): CaptionPair => ({
        candidate: candidate.split(' '),
        references: references[i]!.map((reference) => reference.split(' ')),
      }),
    );
    return {
      bleu: bleu(corpus.map(bleuCounts)).map((x) => rounded(x, 9)),
      cider: rounded(cider(corpus), 9),
      rouge_l: corpus.map((pair) => rounded(captionRougeL(pair), 9)),
    };
  },
};

describe('scorers agree with the originals', () => {
  it('on 278 fixtures', () => {
    const counts: Record<string, number> = {};
    for (const [name] of fixtures) counts[name] = (counts[name] ?? 0) + 1;
    expect(counts).toEqual({
      exact_match: 10,
      ai2d: 12,
      relaxed: 30,
      vqa_norm: 62,
      vqa_acc: 8,
      mme_parse: 20,
      mme_agg: 2,
      pope_agg: 1,
      scienceqa: 13,
      mmstar: 18,
      mmmu_mc: 22,
      mmmu_open_parse: 14,
      mmmu_open_score: 11,
      mathvista_norm: 19,
      mmbench_infer: 24,
      mmbench_circular: 1,
      anls: 9,
      caption: 2,
    });
    expect(fixtures).toHaveLength(278);
  });
  it.each(fixtures)('%s %j → %j', async (name, input, expected) => {
    const made = await functions[name]!(input);
    if (name === 'vqa_acc') expect(made).toBeCloseTo(expected as number, 12);
    else expect(made).toEqual(expected);
  });
});
