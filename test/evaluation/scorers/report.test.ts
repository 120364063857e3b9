import { describe, expect, it } from 'vitest';
import { reportSchema } from '../../../ts/evaluation/scorers/index.ts';
import { meanStandardError } from '../../../ts/evaluation/statistics.ts';
import { numbers, reported, scored } from './scoring.ts';

const rows = (values: (number | null)[], doc: (i: number) => Record<string, unknown> = () => ({})) =>
  values.map((acc, i) => reported(doc(i), { acc }));

describe('reports', () => {
  it('without one: the mean of every metric, documents that do not count left out', async () => {
    const made = await numbers(undefined, [
      reported({}, { acc: 1, iou: 0.5 }),
      reported({}, { acc: 0, iou: null }),
      reported({}, { acc: 0, iou: null }),
    ]);
    expect(made.acc).toMatchObject({ value: 1 / 3, count: 3, higherIsBetter: true, missing: 0 });
    expect(made.acc!.standardError).toBeCloseTo(1 / 3, 12);
    expect(made.iou).toEqual({ value: 0.5, count: 1, higherIsBetter: true, missing: 0 });
  });

  it('a value that is there counts, whatever else of its document is missing', async () => {
    const documents = Array.from({ length: 10 }, (_, i) =>
      i === 0
        ? reported({ image: i }, { detail: 1, context: null }, { missing: 'the judge gave no verdict' })
        : reported({ image: i }, { detail: i % 2, context: 1 }),
    );
    const made = await numbers(undefined, documents);
    expect(made.detail).toMatchObject({ value: 0.6, count: 10, missing: 0 });
    expect(made.context).toMatchObject({ value: Number.NaN, count: 9, missing: 1 });
    const units = await numbers(
      {
        detail: { use: 'group_consistency', of: 'detail', unit: 'image' },
        context: { use: 'group_consistency', of: 'context', unit: 'image' },
      },
      documents,
    );
    expect(units.detail).toMatchObject({ value: 0.6, missing: 0 });
    expect(units.context).toMatchObject({ value: Number.NaN, missing: 1 });
  });

  it('where, by, scale and round', async () => {
    const documents = rows([1, 0, 1, 1], (i) => ({ type: i < 2 ? 'human' : 'machine', n: { k: i % 2 } }));
    const made = await numbers(
      {
        overall: { of: 'acc', scale: 100, round: 1, by: 'type' },
        human: { of: 'acc', where: { type: 'human' } },
        rest: { of: 'acc', exclude: { type: ['human', 'other'] } },
        several: { of: 'acc', by: ['type', 'n.k'] },
      },
      documents,
    );
    const values = Object.fromEntries(Object.entries(made).map(([name, { value }]) => [name, value]));
    expect(values).toEqual({
      overall: 75,
      'overall/human': 50,
      'overall/machine': 100,
      human: 0.5,
      rest: 1,
      several: 0.75,
      'several/type/human': 0.5,
      'several/type/machine': 1,
      'several/n.k/0': 1,
      'several/n.k/1': 0.5,
    });
    expect(made.overall!.standardError).toBeCloseTo(25, 12);
  });

  it("MMMU's subjects and domains come out of the id", async () => {
    const ids = ['validation_Art_Theory_1', 'validation_Art_Theory_2', 'validation_Physics_1'];
    const made = await numbers(
      {
        mmmu_acc: {
          of: 'acc',
          round: 5,
          by: {
            column: 'id',
            match: '^validation_(.+)_\\d+$',
            map: { Art_Theory: 'Art and Design', Physics: 'Science' },
          },
        },
      },
      rows([1, 0, 1], (i) => ({ id: ids[i] })),
    );
    expect([
      made.mmmu_acc!.value,
      made['mmmu_acc/Art and Design']!.value,
      made['mmmu_acc/Science']!.value,
    ]).toEqual([0.66667, 0.5, 1]);
  });

  it('a list in a column counts for each of its values (MathVista skills)', async () => {
    const made = await numbers(
      { acc: { of: 'acc', scale: 100, round: 2, by: ['metadata.skills'] } },
      rows([1, 0, 0], (i) => ({ metadata: { skills: [['a', 'b'], ['a'], []][i] } })),
    );
    expect(Object.entries(made).map(([name, { value, count }]) => [name, value, count])).toEqual([
      ['acc', 33.33, 3],
      ['acc/metadata.skills/a', 50, 2],
      ['acc/metadata.skills/b', 100, 1],
    ]);
  });

  it("means of means: MMStar's (0.5 + 1) / 2", async () => {
    const documents = [
      ...rows([1, 0], () => ({ category: 'm', l2: 'a' })),
      ...rows([1], () => ({ category: 'm', l2: 'b' })),
      ...rows([0], () => ({ category: 'n', l2: 'c' })),
    ];
    const made = await numbers(
      { average: { of: 'acc', agg: 'mean_of_group_means', within: ['category', 'l2'], by: 'category' } },
      documents,
    );
    expect([made.average!.value, made['average/m']!.value, made['average/n']!.value]).toEqual([
      0.375, 0.75, 0,
    ]);
    const even = [0, 1, 0, 1].flatMap((acc, i) => rows([acc, 1 - acc, acc], () => ({ g: String(i % 2) })));
    const spread = await numbers({ mean: { of: 'acc', agg: 'mean_of_group_means', within: 'g' } }, even);
    const groups = ['0', '1'].map((g) =>
      even.filter(({ doc }) => doc.g === g).map(({ score }) => score.values.acc!),
    );
    expect(spread.mean!.standardError).toBeCloseTo(
      Math.hypot(...groups.map((group) => meanStandardError(group))) / 2,
      12,
    );
  });

  it('standard errors by clusters: rows of one image are no independent rows', async () => {
    const documents = rows([1, 1, 0, 0], (i) => ({ image: i < 2 ? 'a' : 'b' }));
    const made = await numbers(
      { plain: { of: 'acc' }, clustered: { of: 'acc', clusters: 'image' } },
      documents,
    );
    // d = ½, ½, −½, −½: SE² = SE₀² + (1/16) (1 − ½ + 1 − ½)
    expect(made.clustered!.standardError).toBeCloseTo(
      Math.sqrt(made.plain!.standardError! ** 2 + 1 / 16),
      12,
    );
  });

  it('sum, ratio, count, median, minimum, maximum, perplexity', async () => {
    const documents = [3, 1, 2, 10].map((acc, i) => reported({}, { acc, over: i + 1 }));
    const report = {
      sum: { of: 'acc', agg: 'sum', scale: 0.001 },
      ratio: { of: 'acc', agg: 'ratio', over: 'over', scale: 100 },
      count: { of: 'acc', agg: 'count' },
      median: { of: 'acc', agg: 'median' },
      least: { of: 'acc', agg: 'minimum', higher_is_better: false },
      most: { of: 'acc', agg: 'maximum' },
    };
    const made = await numbers(report, documents);
    expect(Object.values(made).map(({ value }) => value)).toEqual([0.016, 160, 4, 2, 1, 10]);
    expect(made.least!.higherIsBetter).toBe(false);
    // Sorted, lm-eval takes the upper of two middle ones.
    expect((await numbers(report, documents, 'fixed')).median!.value).toBe(3);
    const sampled = await numbers({ ratio: report.ratio }, documents, 'libmoe', 1000);
    expect(sampled.ratio!.standardError).toBeGreaterThan(0);
    expect(await numbers({ ratio: report.ratio }, documents, 'libmoe', 1000)).toEqual(sampled);
    const logs = [reported({}, { ll: -1 }), reported({}, { ll: -3 })];
    const perplexity = { p: { of: 'll', agg: 'perplexity' } };
    expect((await numbers(perplexity, logs, 'fixed')).p!.value).toBeCloseTo(Math.exp(2), 12);
    expect((await numbers(perplexity, logs)).p!.value).toBeCloseTo((Math.exp(-1) + Math.exp(-3)) / 2, 12);
  });

  it('keys under `fixed` hold with fixed scores', async () => {
    const report = { score: { of: 'acc', agg: 'sum', fixed: { agg: 'mean' } } };
    expect((await numbers(report, rows([1, 1]))).score!.value).toBe(2);
    expect((await numbers(report, rows([1, 1]), 'fixed')).score!.value).toBe(1);
    expect(() => reportSchema.parse({ score: { of: 'acc', fixed: { agg: 'meen' } } })).toThrow(/meen/);
  });

  it('does not depend on the order of documents', async () => {
    const documents = rows([0.1, 0.7, 0.3, 0.9, 0.2, 0.6], (i) => ({ g: 'xyzxyz'[i] }));
    const report = {
      mean: { of: 'acc', by: 'g' },
      nested: { of: 'acc', agg: 'mean_of_group_means', within: 'g' },
    };
    expect(await numbers(report, documents.toReversed())).toEqual(await numbers(report, documents));
  });

  it('says which metric or column there is not', async () => {
    await expect(numbers({ a: { of: 'accuracy' } }, rows([1]))).rejects.toThrow(
      /ERR_LIBMOE_CONFIG: report a: the scorer gives acc, not "accuracy"/,
    );
    await expect(
      numbers(
        { a: { of: 'acc', by: 'kind' } },
        rows([1], () => ({ type: 'x' })),
      ),
    ).rejects.toThrow(/report a, document 0: column "kind" is missing; the record has type/);
    await expect(numbers({ a: { use: 'confusion', part: 'f1' } }, rows([1]))).rejects.toThrow(
      /needs a scorer of yes and no/,
    );
    expect(() => reportSchema.parse({ 'a,b': { of: 'acc' } })).toThrow(/no comma/);
  });

  it('a number with more than 1 % of its scores missing is none', async () => {
    const failed = reported({}, { acc: null }, { missing: 'the judge gave no answer' });
    const documents = rows(Array(100).fill(1));
    expect((await numbers(undefined, [...documents, failed])).acc).toMatchObject({
      value: 1,
      count: 100,
      missing: 1,
    });
    expect((await numbers(undefined, [...documents, failed, failed])).acc).toMatchObject({
      value: Number.NaN,
      missing: 2,
    });
  });
});

describe('numbers of their own kind', () => {
  it('HallusionBench: questions and figures right as a whole', async () => {
    const table: [string, string, string, string, number][] = [
      ['VD', 'math', '0', '0', 1],
      ['VD', 'math', '0', '1', 1],
      ['VD', 'math', '1', '0', 0],
      ['VD', 'math', '1', '1', 1],
      ['VS', 'map', '0', '0', 1],
      ['VS', 'map', '1', '0', 1],
      ['VS', 'map', '2', '0', 0],
    ];
    const documents = table.map(([category, subcategory, figure_id, question_id, acc]) =>
      reported({ category, subcategory, set_id: '0', figure_id, question_id }, { acc }),
    );
    const place = ['category', 'subcategory', 'set_id'];
    const exclude = { category: 'VS', figure_id: '0' };
    const report = {
      aAcc: { of: 'acc', scale: 100, round: 4 },
      qAcc: { use: 'group_consistency', of: 'acc', unit: [...place, 'question_id'], scale: 100, round: 4 },
      fAcc: { use: 'group_consistency', of: 'acc', unit: [...place, 'figure_id'], fixed: { exclude } },
    };
    const fixed = await numbers(report, documents, 'fixed');
    expect(Object.values(fixed).map(({ value }) => value)).toEqual([71.4286, 33.3333, 0.5]);
    expect(fixed.fAcc!.count).toBe(4);
    expect((await numbers(report, documents)).fAcc!.value).toBe(3 / 5);
  });

  it('MMBench: categories are those of the base row; a unit with an unknown part is missing', async () => {
    const row = (index: number, acc: number | null, category: string) =>
      reported({ index, category }, { acc }, acc === null ? { missing: 'no verdict' } : {});
    const report = {
      all: {
        use: 'group_consistency',
        of: 'acc',
        unit: { column: 'index', modulo: 1_000_000 },
        by: 'category',
        scale: 100,
      },
    };
    const made = await numbers(report, [
      row(1_000_001, 1, 'copy'),
      row(1, 1, 'base'),
      row(2, 1, 'base'),
      row(1_000_002, 0, 'base'),
    ]);
    expect(made.all).toMatchObject({ value: 50, count: 2 });
    expect(Object.keys(made)).toEqual(['all', 'all/base']);
    const missing = await numbers(report, [
      row(1, 1, 'x'),
      row(1_000_001, null, 'x'),
      row(2, 0, 'x'),
      row(1_000_002, null, 'x'),
    ]);
    expect(missing.all).toMatchObject({ value: Number.NaN, count: 1, missing: 1 });
  });

  it('MME: perception, cognition, total, per cent and the categories', async () => {
    const documents = [
      ['a', 'color', 1],
      ['a', 'color', 1],
      ['b', 'color', 1],
      ['b', 'color', 0],
      ['c', 'code_reasoning', 1],
      ['c', 'code_reasoning', 1],
    ].map(([question_id, category, acc]) => reported({ question_id, category }, { acc: acc as number }));
    const block = { use: 'mme', of: 'acc', unit: 'question_id', category: 'category' };
    const made = await numbers(
      {
        mme_perception_score: { ...block, part: 'perception' },
        mme_cognition_score: { ...block, part: 'cognition' },
        total: { ...block, part: 'total', by: 'category' },
        percent: { ...block, part: 'percent' },
      },
      documents,
    );
    expect(Object.fromEntries(Object.entries(made).map(([name, { value }]) => [name, value]))).toEqual({
      mme_perception_score: 125,
      mme_cognition_score: 200,
      total: 325,
      'total/code_reasoning': 200,
      'total/color': 125,
      percent: 81.25,
    });
    expect(made.mme_perception_score!.standardError).toBeCloseTo(75, 12);
  });

  it('POPE: predicted yes beside the share of yes among the golds', async () => {
    const documents = [
      ['yes', 'Yes.'],
      ['no', 'yes'],
      ['no', 'yes'],
    ].map(([target, response]) => ({
      ...reported({ image: 'x' }, {}),
      score: scored({ use: 'yes_no', profile: 'pope' }, response!, { target: target! }),
    }));
    const part = (name: string) => ({ use: 'confusion', part: name });
    const made = await numbers(
      {
        accuracy: part('accuracy'),
        gold: part('yes_ratio'),
        said: part('predicted_yes_ratio'),
        f1: part('f1'),
      },
      documents,
      'libmoe',
      1000,
    );
    expect(Object.values(made).map(({ value }) => value)).toEqual([0, 1 / 3, 2 / 3, 0]);
    expect(made.f1!.standardError).toBe(0);
  });

  it('captions: BLEU and CIDEr of the whole, ROUGE-L of each', async () => {
    const captions: [string, string[]][] = [
      ['A dog runs on grass.', ['a dog runs on the grass', 'a brown dog is running']],
      ['The cat sits', ['The cat sits on a mat.', 'a cat sitting']],
    ];
    const documents = captions.map(([response, references]) => ({
      ...reported({}, {}),
      score: scored({ use: 'caption_ngram', references: 'answer' }, response, {
        doc: { answer: references },
      }),
    }));
    const made = await numbers(
      {
        bleu_4: { use: 'caption', part: 'bleu_4' },
        cider: { use: 'caption', part: 'cider' },
        rouge_l: { of: 'rouge_l' },
      },
      documents,
      'libmoe',
      1000,
    );
    expect(made.bleu_4!.value).toBeCloseTo(0.74767439, 8);
    expect(made.cider!.value).toBeCloseTo(3.205249134, 8);
    expect(made.rouge_l!.value).toBeCloseTo((0.894428152 + 0.628865979) / 2, 8);
    expect(made.bleu_4!.standardError).toBeGreaterThan(0);
    // YouCook2: every video is a corpus of its own, and each counts the same.
    const videos = documents.map((document, i) => ({ ...document, doc: { video: ['x', 'y'][i] } }));
    const block = { use: 'caption', part: 'bleu_4' };
    const alone = async (from: typeof videos) => (await numbers({ b: block }, from)).b!.value;
    const within = { ...block, within: 'video' };
    const { b } = await numbers({ b: within }, [...videos, videos[0]!, videos[0]!]);
    expect(b!.value).toBeCloseTo(((await alone([videos[0]!])) + (await alone([videos[1]!]))) / 2, 6);
    expect(b).toMatchObject({ count: 2 });
    expect(b!.value).not.toBeCloseTo(await alone([...videos, videos[0]!, videos[0]!]), 3);
    // One image alone has no document frequencies.
    expect((await numbers({ c: { use: 'caption', part: 'cider' } }, documents.slice(0, 1))).c!.value).toBe(0);
  });
});
