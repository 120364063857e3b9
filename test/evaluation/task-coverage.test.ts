import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { coveragePage, libmoeTasks } from '../../scripts/task-coverage.mjs';
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
