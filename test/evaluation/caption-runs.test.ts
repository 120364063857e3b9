import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, expect, it } from 'vitest';
import {
  compareResults,
  type EvaluateOptions,
  evaluate,
  meanStandardError,
  type Results,
  readResults,
  rescore,
  type TaskInput,
} from '../../ts/evaluation/index.ts';
import { bleu, bleuCounts } from '../../ts/evaluation/scorers/caption-bleu.ts';
import { ciderD } from '../../ts/evaluation/scorers/caption-cider.ts';
import { mean } from '../../ts/evaluation/statistics.ts';
import { FakeModel } from './fake-model.ts';

const things = [
  'a red cup',
  'a small dog',
  'two old men',
  'the green sea',
  'a loaf of bread',
  'some tall trees',
];
const captions: TaskInput = {
  task: 'captions',
  documents: things.map((thing, i) => ({ id: i, answer: [`${thing} on the left`, `a picture of ${thing}`] })),
  output_type: 'generate_until',
  doc_to_text: 'Describe picture {{id}}.',
  doc_to_target: 'answer',
  generation_kwargs: { until: [], max_new_tokens: 16 },
  score: { use: 'caption_ngram' },
  report: {
    cider: { use: 'caption', part: 'cider', scale: 100 },
    bleu: { use: 'caption', part: 'bleu_2' },
    rouge: { of: 'rouge_l' },
  },
};
const folder = mkdtempSync(join(tmpdir(), 'libmoe-captions-'));
afterAll(() => rmSync(folder, { recursive: true }));

/** Says what is to be seen, but for the first so many pictures. */
const seeing = (blind: number): FakeModel =>
  new FakeModel({
    fingerprint: `blind to ${blind}`,
    say: (prompt) => {
      const id = Number(/\d+/.exec(prompt)?.[0]);
      return id < blind ? 'a picture of nothing at all' : `a picture of ${things[id]}`;
    },
  });
async function run(name: string, model: FakeModel, more: Partial<EvaluateOptions> = {}): Promise<Results> {
  const steps = evaluate(model, {
    tasks: [captions],
    out: join(folder, name),
    bootstrapResamples: 1000,
    ...more,
  });
  for (;;) {
    const step = await steps.next();
    if (step.done) return step.value;
  }
}

it('CIDEr of a part of the images comes with a warning, also when it is scored again', async () => {
  const whole = await run('whole', seeing(1));
  expect(whole.libmoe).not.toHaveProperty('warnings');
  const part = await run('part', seeing(1), { limit: 4 });
  expect(part.libmoe.warnings).toEqual({
    captions: [expect.stringMatching(/^cider is of 4 of 6 images: CIDEr weighs words/)],
  });
  expect(readResults(join(folder, 'part')).libmoe.warnings).toEqual(part.libmoe.warnings);
  expect((await rescore(join(folder, 'part'), { scorer: 'fixed' })).libmoe.warnings).toEqual(
    part.libmoe.warnings,
  );
  // What it warns of: the same captions are worth something else.
  expect(part.results.captions!['cider,none']).not.toBeCloseTo(
    whole.results.captions!['cider,none'] as number,
    1,
  );
  const { cider: _, ...report } = captions.report!;
  const without = await run('without', seeing(1), { limit: 4, tasks: [{ ...captions, report }] });
  expect(without.libmoe).not.toHaveProperty('warnings');
});

it('captions are compared: CIDEr by its values per caption, BLEU by leaving captions out', async () => {
  await run('some', seeing(1));
  await run('more', seeing(3));
  const { numbers } = compareResults([join(folder, 'some'), join(folder, 'more')]).runs[0]!;
  const of = (metric: string) => numbers.find((number) => number.metric === metric)!;
  const corpus = (blind: number) =>
    things.map((thing, i) => ({
      candidate: (i < blind ? 'a picture of nothing at all' : `a picture of ${thing}`).split(' '),
      references: [`${thing} on the left`.split(' '), `a picture of ${thing}`.split(' ')],
    }));
  const [some, more] = [ciderD(corpus(1)), ciderD(corpus(3))];
  const error = 100 * meanStandardError(more.map((value, i) => value - some[i]!));
  expect(of('cider')).toMatchObject({ documents: 6, differing: 2 });
  expect(of('cider').difference).toBeLessThan(0);
  expect(of('cider').standardError).toBeCloseTo(error, 8);
  expect(of('bleu')).toMatchObject({ documents: 6, differing: 2 });
  expect(of('bleu').standardError).toBeGreaterThan(0);
  expect(of('rouge').p).toBeLessThan(1);
});

it('captions within groups are compared group by group: each is a corpus, as in the number itself', async () => {
  const grouped: TaskInput = {
    ...captions,
    documents: captions.documents!.map((row, i) => ({ ...row, video: `video ${i % 3}` })),
    report: {
      cider: { use: 'caption', part: 'cider', within: 'video', scale: 100 },
      bleu: { use: 'caption', part: 'bleu_2', within: 'video', scale: 100 },
    },
  };
  const [few, many] = [
    await run('few-groups', seeing(1), { tasks: [grouped] }),
    await run('many-groups', seeing(3), { tasks: [grouped] }),
  ];
  const { numbers } = compareResults([join(folder, 'few-groups'), join(folder, 'many-groups')]).runs[0]!;
  const words = (text: string) => text.split(' ');
  const pair = (i: number, blind: number) => ({
    candidate: words(i < blind ? 'a picture of nothing at all' : `a picture of ${things[i]}`),
    references: [words(`${things[i]} on the left`), words(`a picture of ${things[i]}`)],
  });
  const wanted = {
    cider: (blind: number, video: number) =>
      100 * mean(ciderD([video, video + 3].map((i) => pair(i, blind)))),
    bleu: (blind: number, video: number) =>
      100 * bleu([video, video + 3].map((i) => bleuCounts(pair(i, blind))))[1]!,
  };
  for (const [metric, of] of Object.entries(wanted)) {
    const number = numbers.find((one) => one.metric === metric)!;
    const gains = [0, 1, 2].map((video) => of(3, video) - of(1, video));
    expect(number).toMatchObject({ documents: 3, differing: 2 });
    expect(number.baseline).toBe(few.results.captions![`${metric},none`]);
    expect(number.value).toBe(many.results.captions![`${metric},none`]);
    expect(number.difference).toBeCloseTo(mean(gains), 8);
    expect(number.standardError).toBeCloseTo(meanStandardError(gains), 8);
  }
});
