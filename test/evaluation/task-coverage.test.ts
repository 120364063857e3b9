import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { coveragePage, libmoeTasks, promptSources } from '../../scripts/task-coverage.mjs';
import { checkExamples, resolveTask, taskNames } from '../../ts/evaluation/index.ts';
import { packageRoot } from '../../ts/native/index.ts';

const path = join(packageRoot, 'docs/tasks.md');
const page = await coveragePage({ checkExamples, resolveTask, taskNames });
if (process.env.LIBMOE_WRITE_TASKS) writeFileSync(path, page);

it('docs/tasks.md says what the registry holds', () => {
  expect(page, 'after a build: node scripts/task-coverage.mjs').toBe(readFileSync(path, 'utf8'));
});

it('the 216 names are there once', () => {
  const { tasks } = libmoeTasks();
  expect(new Set(tasks.map(({ task }) => task)).size).toBe(216);
  expect(tasks.filter(({ video }) => video)).toHaveLength(46);
});

it('a task whose records do not pass is not counted', async () => {
  const count = (text: string): number => Number(/^(\d+) of LibMoE/m.exec(text)![1]);
  const broken = await coveragePage({
    resolveTask,
    taskNames,
    checkExamples: async (task) => (task.task === 'pope' ? ['wrong'] : []),
  });
  expect(count(broken)).toBe(count(page) - 1);
  expect(broken).toContain('* its examples do not pass (1): `pope`');
});

it.each([
  ['ai2d', 'chartqa', 'textvqa_val', 'gqa', 'hallusion_bench_image', 'mathvista_testmini', 'mmbench_en_dev'],
  ['mme', 'mmmu_val', 'mmstar', 'pope', 'scienceqa', 'scienceqa_img'],
])('the twelve benchmarks of the paper are among them: %s …', (...names) => {
  for (const name of names) expect(page).toContain(`| \`${name}\` |`);
});

it('prompts that were read in another source are listed with its commits, as the task files name them', () => {
  const folder = mkdtempSync(join(tmpdir(), 'libmoe-prompts-'));
  try {
    writeFileSync(
      join(folder, '_base.yaml'),
      "# A benchmark (arXiv 2401.01234). The judge's question: some/lmms-eval, lmms_eval/tasks/shown/utils.py at 03b2f7cb; its\n# rules: other.yaml at 0ad7b14f; and more: other/repository, rules.json at 181a2f81.\noutput_type: generate_until\n",
    );
    writeFileSync(join(folder, 'one.yaml'), '# First of 1234567 rows.\ninclude: _base.yaml\n');
    writeFileSync(join(folder, 'two.yaml'), 'include: _base.yaml\n');
    writeFileSync(join(folder, 'own.yaml'), '# Nothing of lmms-eval.\noutput_type: generate_until\n');
    expect([...promptSources(folder)]).toEqual([['shown at 03b2f7c, 0ad7b14', ['one', 'two']]]);
  } finally {
    rmSync(folder, { recursive: true });
  }
});
