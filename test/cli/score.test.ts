import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { libmoe } from './libmoe.ts';

const folder = mkdtempSync(path.join(tmpdir(), 'libmoe-score-'));
afterAll(() => rmSync(folder, { recursive: true }));

const file = (name: string, content: string): string => {
  const at = path.join(folder, name);
  writeFileSync(at, content);
  return at;
};
const lines = (rows: unknown[]): string => rows.map((row) => `${JSON.stringify(row)}\n`).join('');

describe('libmoe score', () => {
  it('scores a file of answers by the rules of a task', async () => {
    const task = file(
      'yes-no.yaml',
      [
        'task: my-yes-no',
        'dataset_path: nobody/has-this',
        'test_split: test',
        'output_type: generate_until',
        'doc_to_text: question',
        'doc_to_target: answer',
        'score: { use: yes_no, profile: mme }',
        'report:',
        '  accuracy: { of: acc, scale: 100, round: 4, by: category }',
        '',
      ].join('\n'),
    );
    const rows = [
      { doc: { answer: 'Yes', category: 'count' }, response: 'Yes.' },
      { doc: { answer: 'No', category: 'count' }, response: 'The answer is no' },
      { doc: { answer: 'No', category: 'OCR' }, response: 'Not sure' },
    ];
    const records = file('answers.jsonl', lines(rows));
    const { code, stdout, stderr } = await libmoe(['score', '--task', task, '--records', records, '--json']);
    expect(stderr).toBe('');
    expect(code).toBe(0);
    const scores = JSON.parse(stdout);
    expect(scores).toMatchObject({
      task: 'my-yes-no',
      scorer: 'libmoe',
      n: 3,
      unparsed: 1,
      metrics: { accuracy: 66.6667, 'accuracy/OCR': 100, 'accuracy/count': 50 },
    });
    const fixed = await libmoe(['score', '--task', task, '--records', records, '--scorer', 'fixed']);
    expect(fixed.stdout).toMatch(/accuracy\/count +100 /);
    expect(fixed.stdout).toMatch(/my-yes-no, fixed scores: 3 records, 1 unparsed/);

    const bad = file('bad.jsonl', `${lines(rows)}{"doc":{"category":"count"},"response":"x"}\n`);
    const failed = await libmoe(['score', '--task', task, '--records', bad, '--json']);
    expect([failed.code, failed.stdout]).toEqual([2, '']);
    expect(failed.stderr).toMatch(/^ERR_LIBMOE_DATA: task my-yes-no, document 3: .*answer/);
  });

  it('writes the file of a server that keeps the right answers', async () => {
    const task = file(
      'hidden.yaml',
      [
        'task: hidden',
        'dataset_path: nobody/has-this',
        'test_split: test',
        'output_type: generate_until',
        'doc_to_text: question',
        'doc_to_target: ""',
        'score: { use: submission, format: csv }',
        '',
      ].join('\n'),
    );
    const records = file('hidden.jsonl', lines([{ doc: { question_id: 7 }, response: 'a, b' }]));
    const to = path.join(folder, 'sent.csv');
    const args = ['score', '--task', task, '--records', records, '--submission', to, '--json'];
    const { code, stdout, stderr } = await libmoe(args);
    expect([code, stderr]).toEqual([0, '']);
    expect(JSON.parse(stdout).metrics).toEqual({ submission: null });
    expect(readFileSync(to, 'utf8')).toBe('question_id,answer\n7,"a, b"\n');
  });
});
