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

it('plan takes a pipeline stage by stage, none of which has run', async () => {
  const file = path.join(root, 'recipes/vision-language/phi35-siglip/pipeline.yaml');
  const { code, stdout, stderr } = await libmoe([
    'plan',
    file,
    '--smoke',
    '--gpus',
    '4',
    '--gpu-memory',
    '80',
  ]);
  expect(code).toBe(0);
  for (const stage of ['pretrain', 'prefinetune', 'instruct'])
    expect(stdout).toMatch(new RegExp(`^recipe +phi35-siglip-${stage}$`, 'm'));
  expect(stdout).toMatch(
    /part +parameters +active +trained +operations per step[\s\S]*vision +[\d,]+ +[\d,]+ +0 /,
  );
  expect(stderr).toMatch(/note: instruct: every conversation is counted as long as data.context, 160 tokens/);
  const small = await libmoe(['plan', file, '--smoke', '--gpu-memory', '0.5', '--json']);
  expect(small.code).toBe(1);
  expect(JSON.parse(small.stdout).stages.map(({ fits }: { fits: boolean }) => fits)).toEqual([
    false,
    false,
    false,
  ]);
  expect(small.stderr).toMatch(
    /phi35-siglip-instruct takes [\d.]+ GiB[\s\S]*--set instruct\.training\.microBatches=8/,
  );
});
