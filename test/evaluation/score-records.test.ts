import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { type JudgeRequest, parseRecords, scoreRecords, type TaskInput } from '../../ts/evaluation/index.ts';

const chart: TaskInput = {
  task: 'chart',
  dataset_path: 'nobody/has-this',
  output_type: 'generate_until',
  doc_to_visual: 'image',
  doc_to_text: '{{question}}\nAnswer the question with a single word.',
  doc_to_target: 'answer',
  score: { use: 'relaxed_accuracy' },
  report: {
    relaxed_overall: { of: 'relaxed' },
    relaxed_human_split: { of: 'relaxed', where: { type: 'human_test' } },
  },
};
const record = (answer: string, response: string, type = 'human_test') => ({
  doc: { answer, type },
  response,
});

describe('scores of answers made elsewhere', () => {
  it('need neither images nor the columns of the prompt', async () => {
    const records = [record('10', ' 10.4 '), record('10', '11'), record('$5', '5', 'augmented_test')];
    const scores = await scoreRecords(chart, records);
    expect(scores).toMatchObject({ task: 'chart', scorer: 'libmoe', n: 3, unparsed: 0, missing: 0 });
    const values = (numbers: typeof scores.numbers) =>
      Object.entries(numbers).map(([name, { value }]) => [name, value]);
    expect(values(scores.numbers)).toEqual([
      ['relaxed_overall', 1 / 3],
      ['relaxed_human_split', 1 / 2],
    ]);
    const fixed = await scoreRecords(chart, records, { scorer: 'fixed' });
    expect(values(fixed.numbers)[0]).toEqual(['relaxed_overall', 2 / 3]);
    expect(scores.documents[0]!.doc).toEqual({ answer: '10', type: 'human_test' });
  });
  it('go through the steps and filters of the task', async () => {
    const task: TaskInput = {
      ...chart,
      process_docs: { function: 'where', column: 'type', is: 'human_test' },
      filter_list: [
        { name: 'first', filter: [{ function: 'take_first' }] },
        { name: 'vote', filter: [{ function: 'majority_vote' }] },
      ],
    } as TaskInput;
    const several = { doc: { answer: '3', type: 'human_test' }, response: ['1', '3', '3'] };
    const { n, numbers } = await scoreRecords(task, [several, record('1', '1', 'other')]);
    expect([n, numbers['relaxed_overall,first']!.value, numbers['relaxed_overall,vote']!.value]).toEqual([
      1, 0, 1,
    ]);
  });
  it('ask a judge for many documents at once', async () => {
    let open = 0;
    let most = 0;
    const judge = {
      model: 'm',
      ask: async () => {
        most = Math.max(most, ++open);
        await new Promise((resolve) => setTimeout(resolve, 5));
        open -= 1;
        return 'correct';
      },
    };
    const score = { use: 'llm_judge', prompt: '{{prediction}}', verdict: 'correctness' };
    const { report: _, ...task } = { ...chart, score };
    const records = Array.from({ length: 20 }, () => record('1', 'x'));
    const { numbers } = await scoreRecords(task as TaskInput, records, { judge });
    expect([numbers.acc!.value, most]).toEqual([1, 20]);
    // Without one the numbers are missing, not zero.
    const without = await scoreRecords(task as TaskInput, records);
    expect(without).toMatchObject({ missing: 20, numbers: { acc: { value: Number.NaN } } });
  });
  it('show a judge the images that lie beside the records', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'libmoe-records-'));
    writeFileSync(join(folder, 'a.png'), 'a');
    const seen: (readonly string[] | undefined)[] = [];
    const judge = {
      model: 'm',
      ask: async ({ images }: JudgeRequest) => {
        seen.push(images);
        return '80';
      },
    };
    const score = { use: 'llm_judge', prompt: '', verdict: 'score', range: [0, 100], images: true };
    const { report: _, ...task } = { ...chart, score };
    const records = ['a.png', 'b.png', undefined].map((image) => ({
      doc: { answer: '', ...(image && { image }) },
      response: 'x',
    }));
    const { documents } = await scoreRecords(task as TaskInput, records, { judge, imageFolder: folder });
    rmSync(folder, { recursive: true });
    expect(documents.map(({ score: { values } }) => values.score)).toEqual([80, null, null]);
    expect(documents[1]!.score.missing).toContain('images, and they are not at hand');
    expect(seen).toEqual([[join(folder, 'a.png')]]);
  });
  it('name task, record and column of what does not fit', async () => {
    const records = [record('1', '1'), { doc: { type: 'human_test' }, response: '1' }];
    await expect(scoreRecords(chart, records)).rejects.toThrow(
      /ERR_LIBMOE_DATA: task chart, document 1: column "answer" \(doc_to_target\) is missing; the record has type/,
    );
    await expect(scoreRecords(chart, [{ doc: { answer: '1' }, response: '1' }])).rejects.toThrow(
      /task chart, report relaxed_human_split, document 0: column "type" is missing; the record has answer/,
    );
    await expect(scoreRecords(chart, [])).rejects.toThrow(/no records/);
    await expect(scoreRecords('emoji-nam', [record('1', '1')])).rejects.toThrow(/did you mean "emoji-name"/);
    await expect(scoreRecords('emoji-name', [record('1', '1')])).rejects.toThrow(
      /task emoji-name is multiple_choice: only tasks with written answers/,
    );
  });
});

describe('records', () => {
  it('are lines of JSON', () => {
    expect(parseRecords('{"doc":{"a":1},"response":"x"}\n\n{"doc":{},"response":["y","z"]}\n', 'f')).toEqual([
      { doc: { a: 1 }, response: 'x' },
      { doc: {}, response: ['y', 'z'] },
    ]);
  });
  it.each([
    ['{"doc":', /f\.jsonl, line 2: expected .*, got no JSON: {"doc":/],
    ['{"response":"x"}', /line 2: expected .*, got doc missing/],
    ['{"doc":[],"response":"x"}', /got doc \[\]/],
    ['{"doc":{},"response":1}', /got response 1/],
    ['{"doc":{}}', /got response missing/],
    ['null', /got doc missing/],
  ])('%s is none', (line, message) => {
    expect(() => parseRecords(`{"doc":{},"response":""}\n${line}`, 'f.jsonl')).toThrow(message);
  });
});
