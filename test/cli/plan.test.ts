import path from 'node:path';
import { expect, it } from 'vitest';
import { libmoe, root } from './libmoe.ts';

const demo = path.join(root, 'recipes', 'demo', 'moe.yaml');

it('plan prints what a recipe takes, as a table and as JSON', async () => {
  const { code, stdout } = await libmoe(['plan', demo, '--json']);
  expect(code).toBe(0);
  const plan = JSON.parse(stdout);
  expect(plan).toMatchObject({ parameters: 3_609_728, activeParameters: 1_250_432, fits: true });
  expect(plan.flopsPerToken).toBeGreaterThan(6 * 1_000_000);
  expect(Object.keys(plan.memory)).toEqual(
    expect.arrayContaining(['weights', 'gradients', 'optimizerState', 'activations', 'total']),
  );
  const text = await libmoe(['plan', demo, '--smoke', '--gpu', 'h100']);
  expect(text.code).toBe(0);
  expect(text.stdout).toMatch(/parameters +3,\d{3},\d{3}[\s\S]*most at a time[\s\S]*s a step/);
  expect(text.stderr).toMatch(/note: this build has no GPU backend/);
});

it('plan ends with 1 for what cannot fit, and with 2 for what is wrong', async () => {
  const { code, stdout, stderr } = await libmoe([
    'plan',
    demo,
    '--json',
    '--gpu-memory',
    '2',
    '--set',
    'data.batchSequences=512',
  ]);
  expect(code).toBe(1);
  expect(JSON.parse(stdout).fits).toBe(false);
  expect(stderr).toMatch(
    /ERR_LIBMOE_OUT_OF_MEMORY: demo-moe takes [\d.]+ GiB, GPU has 2.00 GiB. It would fit with --set training.microBatches=\d+/,
  );
  const wrong = await libmoe(['plan', demo, '--gpus', '2']);
  expect(wrong.code).toBe(2);
  expect(wrong.stderr).toMatch(/^ERR_LIBMOE_ARGUMENT: of which memory/m);
});
