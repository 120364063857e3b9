import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import {
  clusteredStandardError,
  compareResults,
  type EvaluateOptions,
  evaluate,
  heldOutTextTask,
  meanStandardError,
  pairedTTest,
  readDocumentValues,
  registerTask,
  rescore,
  type TaskInput,
} from '../../ts/evaluation/index.ts';
import { jackknifeError } from '../../ts/evaluation/paired-difference.ts';
import { readSamples } from '../../ts/evaluation/results.ts';
import { bigram, FakeModel } from './fake-model.ts';

const COUNT = 40;
/** Two questions an image; the gold answers alternate. */
const asked: TaskInput = {
  task: 'asked',
  documents: Array.from({ length: COUNT }, (_, i) => ({
    question: `Is it ${i}?`,
    answer: ['yes', 'no'][i % 2],
    question_id: `image ${Math.floor(i / 2)}`,
    category: i < COUNT / 2 ? 'color' : 'OCR',
  })),
  output_type: 'generate_until',
  doc_to_text: '{{question}}',
  doc_to_target: 'answer',
  score: { use: 'yes_no', profile: 'mme' },
  report: {
    accuracy: { of: 'acc', scale: 100, clusters: 'question_id' },
    loose: { of: 'acc' },
    both: { use: 'group_consistency', of: 'acc', unit: 'question_id' },
    total: { use: 'mme', of: 'acc', unit: 'question_id', category: 'category', part: 'total' },
    percent: { use: 'mme', of: 'acc', unit: 'question_id', category: 'category', part: 'percent' },
    f1: { use: 'confusion', part: 'f1' },
    parts: { of: 'acc', by: 'category' },
  },
};
const chosen: TaskInput = {
  task: 'chosen',
  documents: Array.from({ length: 12 }, (_, i) => ({
    q: `Question ${i}`,
    c: ['yes', 'no', `or ${i}`],
    g: i % 3,
  })),
  output_type: 'multiple_choice',
  doc_to_text: '{{q}}?',
  doc_to_choice: 'c',
  doc_to_target: 'g',
  metric_list: [{ metric: 'acc' }, { metric: 'brier_score' }],
};
const texts = heldOutTextTask(
  'texts',
  Array.from({ length: 6 }, (_, i) => ({ id: `${i}`, text: 'It was the best of times. '.repeat(i + 1) })),
);

/** Right but for the questions with these remainders. */
const answering = (fingerprint: string, wrong: number[], shift = 0): FakeModel =>
  new FakeModel({
    fingerprint,
    say: (prompt) => {
      const id = Number(/\d+/.exec(prompt)?.[0]);
      return (id % 2 === 0) !== wrong.includes(id % 10) ? 'Yes' : 'No';
    },
    logProbability: (previous, next) => bigram(previous + shift, next),
  });

const folder = mkdtempSync(join(tmpdir(), 'libmoe-compare-'));
const at = (name: string): string => join(folder, name);
afterAll(() => rmSync(folder, { recursive: true }));

async function run(name: string, model: FakeModel, options: EvaluateOptions): Promise<void> {
  const steps = evaluate(model, { bootstrapResamples: 1000, ...options, out: at(name) });
  while (!(await steps.next()).done);
}

const all = { tasks: [asked, chosen, texts] };
beforeAll(async () => {
  await run('a', answering('a', [1, 2, 5]), all);
  await run('b', answering('b', [2], 1), all);
});

const numberOf = (task: string, metric: string, paths = [at('a'), at('b')]) => {
  const found = compareResults(paths).runs[0]!.numbers.find(
    (one) => one.task === task && one.metric === metric,
  );
  expect(found, `${task} ${metric}`).toBeDefined();
  return found!;
};
const valuesOf = (name: string, task: string, metric: string): number[] =>
  readDocumentValues(at(name), task, metric).map(({ value }) => value as number);

describe('evaluations compared in pairs', () => {
  it('tests a mean over the differences per document', () => {
    const number = numberOf('asked', 'loose');
    const test = pairedTTest(valuesOf('b', 'asked', 'acc'), valuesOf('a', 'asked', 'acc'));
    // 3 of 10 wrong against 1 of 10, and those are the ones that differ.
    expect(number).toMatchObject({ baseline: 0.7, value: 0.9, documents: 40, differing: 8 });
    expect(number.difference).toBeCloseTo(0.2, 12);
    expect(number.standardError).toBeCloseTo(number.difference / test.t, 12);
    expect(number.p).toBeCloseTo(test.p, 12);
    expect(number.p).toBeLessThan(0.01);
    const brier = numberOf('chosen', 'brier_score');
    const [x, y] = [valuesOf('a', 'chosen', 'brier_score'), valuesOf('b', 'chosen', 'brier_score')];
    expect(brier.higherIsBetter).toBe(false);
    expect(brier.standardError).toBeCloseTo(meanStandardError(y.map((value, i) => value - x[i]!)), 12);
  });

  it('by clusters where rows share an image, in the scale of the number', () => {
    const number = numberOf('asked', 'accuracy');
    const [x, y] = [valuesOf('a', 'asked', 'acc'), valuesOf('b', 'asked', 'acc')];
    const images = x.map((_, i) => Math.floor(i / 2));
    const error = clusteredStandardError(
      y.map((value, i) => value - x[i]!),
      images,
    );
    expect(number.difference).toBeCloseTo(20, 10);
    expect(number.standardError).toBeCloseTo(100 * error, 10);
    expect(number.standardError).not.toBeCloseTo(100 * numberOf('asked', 'loose').standardError!, 2);
    // Of questions that belong together, the images are the documents.
    expect(numberOf('asked', 'both')).toMatchObject({
      documents: 20,
      baseline: 0.4,
      value: 0.8,
      differing: 8,
    });
  });

  it('MME by its images within categories, any other number by a jackknife', () => {
    for (const metric of ['f1', 'total']) {
      const number = numberOf('asked', metric);
      expect(number.standardError, metric).toBeGreaterThan(0);
      expect(number.difference).toBeCloseTo(number.value - number.baseline, 12);
    }
    // MME's total is the mean per image, right answers in percent and a bonus for both, summed over two categories of ten images each.
    const score = (name: string): number[] => {
      const right = valuesOf(name, 'asked', 'acc');
      return Array.from({ length: 20 }, (_, i) => {
        const both = right[2 * i]! + right[2 * i + 1]!;
        return 50 * both + (both === 2 ? 100 : 0);
      });
    };
    const [x, y] = [score('a'), score('b')];
    const gains = y.map((value, i) => value - x[i]!);
    const error = (part: number[]): number => meanStandardError(part) ** 2;
    const wanted = Math.sqrt(error(gains.slice(0, 10)) + error(gains.slice(10)));
    expect(numberOf('asked', 'total').standardError).toBeCloseTo(wanted, 10);
    expect(numberOf('asked', 'total')).toMatchObject({ documents: 20, differing: 8 });
    expect(numberOf('asked', 'percent').standardError).toBeCloseTo(wanted / 4, 10);
    expect(numberOf('asked', 'percent').value).toBeCloseTo(numberOf('asked', 'total').value / 4, 10);
    const bits = numberOf('texts', 'bits_per_byte');
    expect(bits).toMatchObject({ documents: 6, differing: 6, higherIsBetter: false });
    expect(bits.standardError).toBeGreaterThan(0);
  });

  it('says what a share or a percentage would be if all were right', () => {
    const full = (task: string, ...metrics: string[]) => metrics.map((metric) => numberOf(task, metric).full);
    expect(full('asked', 'loose', 'both', 'f1', 'accuracy', 'percent', 'total')).toEqual([
      ...[1, 1, 1, 100, 100, undefined],
    ]);
    expect([...full('chosen', 'acc', 'brier_score'), ...full('texts', 'bits_per_byte')]).toEqual([
      ...[1, undefined, undefined],
    ]);
  });

  it('gives 0 and p = 1 for a run against itself, and leaves out parts of numbers', () => {
    const comparison = compareResults([at('a'), join(at('a'), 'results.json'), at('b')]);
    expect(comparison.runs.map(({ run }) => run)).toEqual([at('a'), at('b')]);
    for (const number of comparison.runs[0]!.numbers)
      expect(number).toMatchObject({ difference: 0, p: 1, standardError: 0, differing: 0 });
    const names = comparison.runs[0]!.numbers.map(({ metric }) => metric);
    expect(names).toContain('unparsed_rate');
    expect(names.filter((name) => name.includes('/'))).toEqual([]);
    expect(comparison.documents).toEqual({ asked: '0-39', chosen: '0-11', texts: '0-5' });
  });

  it('takes groups as their tasks together', async () => {
    registerGroupMembers();
    const group = join(folder, 'pair.yaml');
    writeFileSync(
      group,
      'group: pair\ntask: [asked-1, asked-2]\naggregate_metric_list: [{ metric: loose }]\n',
    );
    await run('ga', answering('a', [1, 2, 5]), { tasks: [group] });
    await run('gb', answering('b', [2]), { tasks: [group] });
    const number = numberOf('pair', 'loose', [at('ga'), at('gb')]);
    expect(number).toMatchObject({ documents: 80, differing: 16, full: 1 });
    const whole = compareResults([at('ga'), at('gb')]);
    expect(whole.groups).toEqual({ pair: ['asked-1', 'asked-2'] });
    expect(compareResults([at('ga'), at('gb')], { tasks: ['asked-1', 'pair'] })).toEqual(whole);
    expect(() => compareResults([at('ga'), at('gb')], { tasks: ['pairs'] })).toThrow(
      /no results of task "pairs", is "pair" meant\?/,
    );
    expect(number.difference).toBeCloseTo(0.2, 12);
    const single = numberOf('asked', 'loose').standardError!;
    // Twice as many documents.
    expect(number.standardError).toBeCloseTo(single / Math.SQRT2, 3);
  });

  it('refuses other documents, prompts and scoring, and says which', async () => {
    await run('few', answering('b', [2]), { tasks: [asked], limit: 30 });
    expect(() => compareResults([at('a'), at('few')])).toThrow(
      `ERR_LIBMOE_DATA: task asked: a paired test needs the same documents in ${at('a')} and ${at('few')}, but only ${at('a')} has documents 10 (30, 31, 32, 33, 34, …)`,
    );
    const changed = structuredClone(asked);
    changed.documents![7]!.answer = 'yes';
    await run('changed', answering('b', [2]), { tasks: [changed] });
    expect(() => compareResults([at('a'), at('changed')])).toThrow(/documents 1 \(7\) have other contents/);
    await run('polite', answering('b', [2]), { tasks: [{ ...asked, description: 'Please. ' }] });
    expect(() => compareResults([at('a'), at('polite')])).toThrow(/asked documents 40 .*--other-prompts/);
    expect(compareResults([at('a'), at('polite')], { otherPrompts: true }).leftOut).toEqual([
      'chosen',
      'texts',
    ]);
    await rescore(at('b'), { scorer: 'fixed', out: at('fixed') });
    expect(() => compareResults([at('a'), at('fixed')])).toThrow(/libmoe rescore .* --scorer libmoe/);
    const other = { ...asked, report: { loose: { of: 'acc' as const } } };
    await run('other', answering('b', [2]), { tasks: [other] });
    expect(() => compareResults([at('a'), at('other')])).toThrow(/scored otherwise .*\(report\)/);
    await run('alone', answering('b', [2]), { tasks: [texts] });
    expect(() => compareResults([at('few'), at('alone')])).toThrow(/no task that all have/);
    expect(() => compareResults([at('a'), at('b')], { tasks: ['nothing'] })).toThrow(
      /it has asked, chosen, texts/,
    );
    expect(() => compareResults([at('a'), at('none')])).toThrow(/^ERR_LIBMOE_FILE: .*results\.json/);
    expect(() => compareResults([at('a')])).toThrow('ERR_LIBMOE_ARGUMENT');
  });
});

describe('what is not the same in both runs', () => {
  it('judges: two of them are two measures', async () => {
    const judged: TaskInput = {
      ...asked,
      task: 'judged',
      score: { use: 'llm_judge', prompt: '{{prediction}}', verdict: 'score', range: [0, 1] },
    };
    delete judged.report;
    const judge = (model: string) => ({
      model,
      ask: async ({ prompt }: { prompt: string }) => `${prompt.length / 10}`,
    });
    const tasks = [judged, chosen];
    for (const [name, by] of [
      ['j1', judge('one')],
      ['j2', judge('two')],
      ['j3', judge('one')],
      ['j4'],
    ] as const)
      await run(name, answering(name, [2]), { tasks, ...(by && { judge: by }) });
    expect(() => compareResults([at('j1'), at('j2')])).toThrow(
      `ERR_LIBMOE_DATA: task judged is scored by the judge one in ${at('j1')} and by the judge two in ${at('j2')}: "libmoe rescore ${at('j2')} --judge URL --judge-model one --out FOLDER" makes them comparable`,
    );
    expect(() => compareResults([at('j4'), at('j1')])).toThrow(
      /scored without a judge in .*"libmoe rescore .*j4 --judge URL --judge-model one/,
    );
    expect(numberOf('judged', 'score', [at('j1'), at('j3')]).p).toBe(1);
    // A task that no judge has a part in is the same under any.
    expect(compareResults([at('j1'), at('j2')], { tasks: ['chosen'] }).runs[0]!.numbers).not.toEqual([]);
  });

  it('groups of one name: those of other tasks or other means are left out', async () => {
    registerGroupMembers();
    const groups = {
      usual: 'task: [asked-1, asked-2]\naggregate_metric_list: [{ metric: loose }]\n',
      turned: 'task: [asked-2, asked-1]\naggregate_metric_list: [{ metric: loose }]\n',
      smaller: 'task: [asked-1]\naggregate_metric_list: [{ metric: loose }]\n',
      otherwise:
        'task: [asked-1, asked-2]\naggregate_metric_list: [{ metric: loose, weight_by_size: false }]\n',
    };
    for (const [name, text] of Object.entries(groups)) {
      const file = join(folder, `${name}.yaml`);
      writeFileSync(file, `group: both\n${text}`);
      await run(`group-${name}`, answering(name, [2]), { tasks: [file] });
    }
    const compared = (name: string) => {
      const { leftOut, runs } = compareResults([at('group-usual'), at(`group-${name}`)]);
      return [leftOut, runs[0]!.numbers.some(({ task }) => task === 'both')];
    };
    expect(compared('turned')).toEqual([[], true]);
    expect(compared('smaller')).toEqual([['asked-2', 'both'], false]);
    expect(compared('otherwise')).toEqual([['both'], false]);
  });

  it('the folder of a bundle, which is no content: media are what their names say', async () => {
    const shown = (place: string, last = 'a'): TaskInput => ({
      ...asked,
      task: 'shown',
      documents: asked.documents!.map((row, i) => ({
        ...row,
        image: `${place}/media/${(i === 7 ? last : 'a').repeat(64)}.png`,
      })),
    });
    await run('here', answering('here', [1, 2]), { tasks: [shown('/data/here')] });
    await run('there', answering('there', [2]), { tasks: [shown('/else/where')] });
    await run('changed-image', answering('there', [2]), { tasks: [shown('/else/where', 'b')] });
    expect(numberOf('shown', 'loose', [at('here'), at('there')]).differing).toBe(4);
    const hashes = (name: string) => readSamples(at(name), 'shown').map(({ doc_hash: hash }) => hash);
    expect(hashes('here')).toEqual(hashes('there'));
    expect(() => compareResults([at('here'), at('changed-image')])).toThrow(
      /documents 1 \(7\) have other contents/,
    );
    // Results from before hashed the paths too.
    const file = join(at('there'), 'samples_shown.jsonl');
    writeFileSync(file, readFileSync(file, 'utf8').replaceAll(/"doc_hash":"./g, '"doc_hash":"x'));
    expect(numberOf('shown', 'loose', [at('here'), at('there')]).differing).toBe(4);
  });
});

function registerGroupMembers(): void {
  for (const i of [1, 2]) registerTask({ ...asked, task: `asked-${i}` });
}

describe('the jackknife', () => {
  const values = Array.from({ length: 150 }, (_, i) => Math.sin(i) + (i % 7) / 3);
  const meanOver = (list: readonly number[]) => (kept: (row: number) => boolean) => {
    const left = list.filter((_, i) => kept(i));
    return left.reduce((sum, x) => sum + x, 0) / left.length;
  };
  it('of a mean is s/√n', () => {
    const { standardError, degrees } = jackknifeError(
      values.map((_, i) => `${i}`),
      meanOver(values),
    );
    expect(standardError).toBeCloseTo(meanStandardError(values), 12);
    expect(degrees).toBe(149);
  });
  it('of many pieces comes close with two hundred groups, and says nothing of a single piece', () => {
    const many = Array.from({ length: 5000 }, (_, i) => Math.sin(i * i) + (i % 11) / 3);
    const { standardError, degrees } = jackknifeError(
      many.map((_, i) => `${i}`),
      meanOver(many),
    );
    expect(degrees).toBe(199);
    expect(standardError! / meanStandardError(many)).toBeGreaterThan(0.85);
    expect(standardError! / meanStandardError(many)).toBeLessThan(1.15);
    expect(jackknifeError(['x', 'x'], () => 1)).toEqual({ degrees: 0 });
  });
});
