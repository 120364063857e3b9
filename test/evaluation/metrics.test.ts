import { describe, expect, it } from 'vitest';
import { metricNames } from '../../ts/evaluation/index.ts';
import {
  argmax,
  isFragile,
  type MetricValue,
  metricNamed,
  type ScoredQuestion,
  scoredQuestion,
  strictlyBest,
} from '../../ts/evaluation/metrics.ts';

function scored(
  sums: number[],
  more: { gold?: number[]; choices?: string[]; tokens?: number[]; greedy?: boolean[]; text?: string } = {},
): ScoredQuestion {
  const choices = more.choices ?? sums.map((_, i) => `choice${i}`);
  return {
    question: {
      docId: 0,
      doc: {},
      pairs: choices.map((choice) => ({ context: '', continuation: more.text ?? choice })),
      choices,
      gold: more.gold ?? [0],
      target: 0,
      images: [],
    },
    sums,
    greedy: more.greedy ?? sums.map(() => false),
    tokens: more.tokens ?? sums.map(() => 1),
  };
}
const item = (
  name: string,
  question: ScoredQuestion,
  type: 'multiple_choice' | 'loglikelihood' = 'multiple_choice',
): MetricValue => metricNamed(name).item(question, type);

describe("LibMoE's probability compare (§3.1)", () => {
  it('whole and normalised sums of the worked example', () => {
    const logs = [0.5, 0.8, 0.7].map(Math.log);
    expect(logs.reduce((a, b) => a + b)).toBeCloseTo(-1.27297, 5);
    expect((logs[1]! + logs[2]!) / 2).toBeCloseTo(-0.28991, 5);
  });
  it('three items, three options: right = (1, 0, 0)', () => {
    // good (−1, −2, −3), bad₁ (−2, −2, −1), bad₂ (−3, −5, −4)
    const items = [scored([-1, -2, -3]), scored([-2, -2, -5]), scored([-3, -1, -4])];
    expect(items.map((q) => item('acc_token', q))).toEqual([1, 0, 0]);
    expect(items.map((q) => item('acc_sum', q))).toEqual([1, 0, 0]);
    // lm-eval gives the tie to the first index.
    expect(items.map((q) => item('acc', q))).toEqual([1, 1, 0]);
  });
  it('a tie or NaN is wrong', () => {
    expect(strictlyBest([-1, -1], 0)).toBe(false);
    expect(strictlyBest([Number.NaN, -1], 0)).toBe(false);
    expect(strictlyBest([-1, Number.NaN], 0)).toBe(false);
    expect(strictlyBest([-1, -2], 0)).toBe(true);
  });
  it('divides by tokens', () => {
    const question = scored([-3, -2], { tokens: [3, 1] });
    expect(item('acc_token', question)).toBe(1);
    expect(item('acc_sum', question)).toBe(0);
  });
});

describe('lm-eval metrics (§1.9)', () => {
  it('acc_norm divides by code points, acc_bytes by UTF-8 bytes', () => {
    // '😀😀' is 2 code points, 4 UTF-16 units, 8 bytes.
    const question = scored([-4, -7], { choices: ['😀😀', 'abcd'] });
    expect(item('acc', question)).toBe(1);
    expect(item('acc_norm', question)).toBe(0); // −2 against −1.75
    expect(item('acc_bytes', question)).toBe(1); // −0.5 against −1.75
  });
  it('accepts any of several golds', () => {
    expect(item('acc', scored([-3, -1, -2], { gold: [1, 2] }))).toBe(1);
    expect(item('acc', scored([-1, -3, -2], { gold: [1, 2] }))).toBe(0);
  });
  it('argmax: first of equals, never NaN', () => {
    expect(argmax([1, 3, 3])).toBe(1);
    expect(argmax([Number.NaN, -5])).toBe(1);
    expect(argmax([Number.NaN])).toBe(-1);
  });
  it('acc of a loglikelihood task is greediness', () => {
    expect(item('acc', scored([-1], { greedy: [true] }), 'loglikelihood')).toBe(1);
    expect(item('acc', scored([-1], { greedy: [false] }), 'loglikelihood')).toBe(0);
  });
  it('mutual information: what the question adds to a choice', () => {
    // Values of 4 requests: two choices after the question, and the same two alone.
    const question = scored([-5, -4, -7, -3], { choices: ['a', 'b'], gold: [0] });
    const split = scoredQuestion(question);
    expect([split.sums, split.unconditional, split.tokens.length]).toEqual([[-5, -4], [-7, -3], 2]);
    expect(item('acc', split)).toBe(0);
    expect(item('acc_mutual_info', split)).toBe(1);
    expect(item('acc_mutual_info', { ...split, unconditional: [-4, -3] })).toBe(1);
    expect(item('acc_mutual_info', { ...split, unconditional: [-4.5, -3] })).toBe(1);
    expect(item('acc_mutual_info', { ...split, unconditional: [-3, -3] })).toBe(0);
    expect(() => item('acc_mutual_info', scored([-1, -2]))).toThrow('ERR_LIBMOE_STATE');
  });
  it('brier score', () => {
    expect(item('brier_score', scored([Math.log(0.8), Math.log(0.2)]))).toBeCloseTo(0.08, 12);
  });
  it('flags questions that rounding may turn', () => {
    expect(isFragile([-1, -1.04, -9])).toBe(true);
    expect(isFragile([-1, -1.06])).toBe(false);
  });
});

describe('aggregation', () => {
  const values: MetricValue[] = [
    [-10, 4],
    [-2, 2],
  ];
  it('weighs sums, not means of means', () => {
    expect(metricNamed('bits_per_byte').aggregate(values, 'fixed')).toBeCloseTo(12 / 6 / Math.LN2, 12);
    expect(metricNamed('byte_perplexity').aggregate(values, 'fixed')).toBeCloseTo(Math.exp(2), 12);
    expect(metricNamed('word_perplexity').aggregate(values, 'libmoe')).toBeCloseTo(Math.exp(2), 12);
  });
  it('counts words and bytes as Python does', () => {
    const question = scored([-1], { text: 'Grüße,  an\u00a0alle\n' });
    expect(item('word_perplexity', question)).toEqual([-1, 4]); // the split leaves an empty last piece
    expect(item('bits_per_byte', question)).toEqual([-1, 19]);
  });
  it('perplexity: exp(−mean) when fixed, the mean of exp when as the original', () => {
    const perplexity = metricNamed('perplexity');
    expect(perplexity.aggregate([-1, -3], 'fixed')).toBeCloseTo(Math.exp(2), 12);
    expect(perplexity.aggregate([-1, -3], 'libmoe')).toBeCloseTo((Math.exp(-1) + Math.exp(-3)) / 2, 12);
  });
  it('knows its names', () => {
    expect(metricNames()).toEqual(
      expect.arrayContaining([
        'acc',
        'acc_bytes',
        'acc_norm',
        'acc_sum',
        'acc_token',
        'bits_per_byte',
        'perplexity',
      ]),
    );
    expect(() => metricNamed('accuracy')).toThrow('ERR_LIBMOE_CONFIG');
  });
});

describe('yes/no metrics', () => {
  const answer = (says: 'yes' | 'no', wanted: 'yes' | 'no'): ScoredQuestion =>
    scored(says === 'yes' ? [-1, -2] : [-2, -1], {
      choices: ['yes', 'no'],
      gold: [wanted === 'yes' ? 0 : 1],
    });
  // Of POPE's table: 3 true positives, 1 false positive, 2 false negatives, 4 true negatives.
  const all = [
    ...Array.from({ length: 3 }, () => answer('yes', 'yes')),
    answer('yes', 'no'),
    ...Array.from({ length: 2 }, () => answer('no', 'yes')),
    ...Array.from({ length: 4 }, () => answer('no', 'no')),
  ];
  const value = (name: string, of: ScoredQuestion[]): number =>
    metricNamed(name).aggregate(
      of.map((question) => item(name, question)),
      'fixed',
    );

  it('are those of the table of answers', () => {
    expect(value('yes_precision', all)).toBeCloseTo(3 / 4, 12);
    expect(value('yes_recall', all)).toBeCloseTo(3 / 5, 12);
    expect(value('yes_f1', all)).toBeCloseTo(6 / 9, 12);
    expect(value('yes_ratio', all)).toBeCloseTo(4 / 10, 12);
  });

  it('are 0 where nothing says yes, and refuse other choices', () => {
    const never = all.filter(({ sums }) => sums[0]! < sums[1]!);
    for (const name of ['yes_precision', 'yes_recall', 'yes_f1', 'yes_ratio'])
      expect(value(name, never)).toBe(0);
    expect(() => item('yes_f1', scored([-1, -2], { choices: ['maybe', 'no'] }))).toThrow(/yes and no/);
  });
});
