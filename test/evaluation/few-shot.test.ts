import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { FewShots, fewShotsOf } from '../../ts/evaluation/few-shot.ts';
import { defineTask, type Row } from '../../ts/evaluation/index.ts';
import { QuestionMaker } from '../../ts/evaluation/question.ts';

interface Golden {
  template: string;
  splits: { train: Row[]; test: Row[] };
  cases: {
    name: string;
    task: Record<string, unknown>;
    how: { system?: string; chat?: 'single' | 'multi' };
    contexts: (string | string[])[];
  }[];
}
const golden = JSON.parse(
  readFileSync(new URL('../golden/few-shot/few-shot.json', import.meta.url), 'utf8'),
) as Golden;
let folder = '';
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'libmoe-shots-'));
  for (const [split, rows] of Object.entries(golden.splits))
    writeFileSync(join(folder, `${split}.jsonl`), rows.map((row) => JSON.stringify(row)).join('\n'));
});
afterAll(() => rmSync(folder, { recursive: true }));

describe('prompts with examples', () => {
  it.each(golden.cases)('are those of lm-eval: $name', async ({ task: keys, how, contexts }) => {
    const task = defineTask({
      ...keys,
      task: 'toy',
      test_split: 'test',
      dataset_path: 'json',
      dataset_kwargs: { data_files: { train: 'train.jsonl', test: 'test.jsonl' } },
    });
    const chat = how.chat && {
      template: { template: golden.template, specialTokens: {} },
      multiturn: how.chat === 'multi',
    };
    const maker = new QuestionMaker(task, {
      ...(how.system !== undefined && { system: how.system }),
      ...(chat && { chat }),
    });
    const shots = await fewShotsOf(task, golden.splits.test, folder);
    for (const [docId, doc] of golden.splits.test.entries()) {
      const { pairs } = maker.make(doc, docId, shots?.next(doc));
      const texts = pairs.map(({ context }) => context);
      const wanted = contexts[docId]!;
      expect(texts).toEqual(Array.isArray(wanted) ? wanted : texts.map(() => wanted));
    }
  });

  it('put nothing between a template and an answer, unless the answer has begun', () => {
    const keys = golden.cases[0]!.task;
    const chat = { template: { template: golden.template, specialTokens: {} } };
    const continuation = (more: Record<string, unknown>): string =>
      new QuestionMaker(
        defineTask({ ...keys, task: 'toy', documents: golden.splits.test, num_fewshot: 0, ...more }),
        { chat },
      ).make(golden.splits.test[0]!, 0).pairs[0]!.continuation;
    expect(continuation({})).toBe('red');
    expect(continuation({ gen_prefix: 'It is' })).toBe(' red');
    expect(continuation({ gen_prefix: 'It is ' })).toBe('red');
  });

  it('are never the document itself', () => {
    const rows = golden.splits.test;
    const copies = [rows[0]!, rows[0]!, rows[0]!, rows[1]!];
    const task = defineTask({
      ...golden.cases[0]!.task,
      task: 'toy',
      documents: [...copies],
      num_fewshot: 1,
    });
    const own = new FewShots(task, copies, true);
    for (let i = 0; i < 20; i++) expect(own.next(rows[0]!)).toEqual([rows[1]]);
    const foreign = new FewShots(task, [rows[0]!], false);
    expect(() => foreign.next(rows[0]!)).toThrow('its own few-shot example');
    expect(() => new FewShots({ ...task, num_fewshot: 4 }, copies, true)).toThrow('there are 4 rows');
  });
});
