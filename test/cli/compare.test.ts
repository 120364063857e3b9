import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { evaluate, type TaskInput } from '../../ts/evaluation/index.ts';
import { FakeModel } from '../evaluation/fake-model.ts';
import { libmoe } from './libmoe.ts';

const folder = mkdtempSync(path.join(tmpdir(), 'libmoe-compare-cli-'));
afterAll(() => rmSync(folder, { recursive: true }));

const task: TaskInput = {
  task: 'is_it',
  documents: Array.from({ length: 20 }, (_, i) => ({
    question: `Is it ${i}?`,
    answer: ['yes', 'no'][i % 2],
  })),
  output_type: 'generate_until',
  doc_to_text: '{{question}}',
  doc_to_target: 'answer',
  score: { use: 'yes_no', profile: 'mme' },
};

/** Wrong on the first `wrong` questions. */
async function evaluated(name: string, wrong: number, limit?: number): Promise<void> {
  const say = (prompt: string): string => {
    const id = Number(/\d+/.exec(prompt)?.[0]);
    return (id % 2 === 0) === id >= wrong ? 'yes' : 'no';
  };
  const out = path.join(folder, name);
  const model = new FakeModel({ fingerprint: name, say });
  const steps = evaluate(model, { tasks: [task], out, bootstrapResamples: 1000, ...(limit && { limit }) });
  while (!(await steps.next()).done);
}
beforeAll(async () => {
  await evaluated('dense', 10);
  await evaluated('moe', 4);
  await evaluated('other', 9);
  await evaluated('few', 4, 10);
});
const compare = (...args: string[]) => libmoe(['compare', ...args], { cwd: folder });

describe('libmoe compare', () => {
  it('prints both values, their difference with its error, p, and which documents', async () => {
    const { code, stdout, stderr } = await compare('dense', 'moe');
    expect([code, stderr]).toEqual([0, '']);
    const [header, , accuracy, , legend, documents] = stdout.split('\n');
    expect(header).toMatch(/^task +metric +documents +differ +dense +moe +difference +± +p$/);
    // Six of twenty got better: mean 0.3, s = √(0.21 · 20/19), p of t = 2.854 with 19 degrees of freedom.
    expect(accuracy).toMatch(/^is_it +acc +↑ +20 +6 +0\.5000 +0\.8000 +\+0\.3000 +0\.1051 +0\.0102$/);
    expect(legend).toMatch(/^difference: to dense; libmoe scores/);
    expect(documents).toBe('  is_it: 0-19');
  });

  it('says in its help what the rate of unread answers is by', async () => {
    expect((await compare('--help')).stdout).toMatch(/"unparsed_rate" is by document/);
  });

  it('of several runs too, as JSON and in other formats', async () => {
    const { code, stdout } = await compare('dense', 'moe', 'other/results.json', '--json');
    expect(code).toBe(0);
    const { baseline, runs, documents } = JSON.parse(stdout);
    expect([baseline, documents]).toEqual(['dense', { is_it: '0-19' }]);
    expect(runs.map(({ run }: { run: string }) => run)).toEqual(['moe', 'other']);
    expect(runs[1].numbers[0]).toMatchObject({ metric: 'acc', baseline: 0.5, value: 0.55, differing: 1 });
    expect(runs[1].numbers[0].p).toBeCloseTo(0.3299, 3);

    const csv = (await compare('dense', 'moe', 'other', '--format', 'csv')).stdout.trim().split('\n');
    expect(csv[0]).toBe('task,metric,,documents,differ,run,baseline,value,difference,±,p');
    expect(csv[1]).toMatch(/^is_it,acc,↑,20,6,moe,0\.5,0\.8,0\.3/);
    expect(csv[2]).toMatch(/^is_it,acc,↑,20,1,other,/);
    const markdown = (await compare('dense', 'moe', '--format', 'markdown')).stdout;
    expect(markdown).toMatch(/^\| task \| metric .*\n\| --- \| --- .*\n\| is_it \| acc \| ↑ \| 20 \| 6 \|/);
    const latex = (await compare('dense', 'moe', '--format', 'latex')).stdout;
    expect(latex).toContain(
      'is\\_it & acc & $\\uparrow$ & 20 & 6 & 0.5000 & 0.8000 & +0.3000 & 0.1051 & 0.0102 \\\\',
    );
  });

  it('prints runs by benchmarks as the paper does, the best in bold', async () => {
    const paper = ['dense', 'moe', 'other', '--layout', 'paper', '--names', 'Dense,SMoE,σ_MoE'];
    const lines = async (...args: string[]): Promise<string[]> =>
      (await compare(...paper, ...args)).stdout.trim().split('\n');
    expect(await lines('--format', 'latex')).toEqual([
      '\\begin{tabular}{lrrr}',
      '\\toprule',
      ' & is\\_it & Average & Rank $\\downarrow$ \\\\',
      '\\midrule',
      'Dense (baseline) & 50.00 & 50.00 & 3.00 \\\\',
      'SMoE & \\textbf{80.00} & \\textbf{80.00} & \\textbf{1.00} \\\\',
      'σ\\_MoE & 55.00 & 55.00 & 2.00 \\\\',
      '\\bottomrule',
      '\\end{tabular}',
    ]);
    expect((await lines('--format', 'markdown'))[3]).toBe('| SMoE | **80.00** | **80.00** | **1.00** |');
    expect((await lines('--columns', 'is_it=acc')).at(-2)).toMatch(/^SMoE +80\.00\* +80\.00\* +1\.00\*$/);
    expect((await lines('--format', 'csv'))[1]).toBe('Dense (baseline),50,50,3');
    const { columns, rows } = JSON.parse((await lines('--json')).join('\n'));
    expect(columns).toEqual([{ task: 'is_it', metric: 'acc', higherIsBetter: true, percent: true }]);
    expect(rows[1]).toEqual({ run: 'SMoE', values: [80], average: 80, rank: 1 });
  });

  it.each<[string, string[], RegExp]>([
    [
      'too few names',
      ['dense', 'moe', '--layout', 'paper', '--names', 'x'],
      /^ERR_LIBMOE_ARGUMENT: --names expects 2 names/,
    ],
    ['names in another layout', ['dense', 'moe', '--names', 'x,y'], /--columns and --names go with --layout/],
    [
      'unknown columns',
      ['dense', 'moe', '--layout', 'paper', '--columns', 'is_it=f1'],
      /^ERR_LIBMOE_ARGUMENT: "is_it" has no number "f1", only acc/,
    ],
    [
      'other documents',
      ['dense', 'few'],
      /^ERR_LIBMOE_DATA: task is_it: .*only dense has documents 10 \(10, 11/,
    ],
    ['a folder without results', ['dense', 'nothing'], /^ERR_LIBMOE_FILE: nothing has no results\.json/],
    ['one folder', ['dense'], /^ERR_LIBMOE_ARGUMENT: compare expects two or more/],
    ['unknown tasks', ['dense', 'moe', '--tasks', 'x'], /^ERR_LIBMOE_ARGUMENT: .*it has is_it/],
    [
      'an unknown format',
      ['dense', 'moe', '--format', 'html'],
      /^ERR_LIBMOE_ARGUMENT: .*text, markdown, csv, latex/,
    ],
  ])('refuses %s', async (_, args, message) => {
    const { code, stdout, stderr } = await compare(...args);
    expect([code, stdout]).toEqual([2, '']);
    expect(stderr).toMatch(message);
  });

  it('names file and line of damaged samples', async () => {
    const file = path.join(folder, 'few', 'samples_is_it.jsonl');
    writeFileSync(file, `${readFileSync(file, 'utf8')}{"doc_id":`);
    const { code, stderr } = await compare('few', 'few');
    expect(code).toBe(2);
    expect(stderr).toMatch(/^ERR_LIBMOE_FILE: .*samples_is_it\.jsonl:11 is not valid JSON/);
  });
});
