import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, expect, it } from 'vitest';
import { libmoe, root } from './libmoe.ts';

const folder = mkdtempSync(path.join(tmpdir(), 'libmoe-recipes-'));
afterAll(() => rmSync(folder, { recursive: true }));
const json = (...parts: string[]) => JSON.parse(readFileSync(path.join(folder, 'runs', ...parts), 'utf8'));

it('the demo recipes follow one another: dense, upcycled, continued', async () => {
  // The held-out texts are the smaller ones: what is trained on does not matter here.
  const small = ['--smoke', '--json', '--set', 'data.train={dataset: sotu, split: heldOut}'];
  for (const name of ['dense', 'upcycled', 'continued']) {
    const recipe = path.join(root, 'recipes', 'demo', `${name}.yaml`);
    const { code, stdout, stderr } = await libmoe(['train', recipe, ...small], {
      cwd: folder,
      env: { LIBMOE_THREADS: '1' }, // fastest at this size, above all on a busy machine
    });
    expect(stderr).not.toMatch(/ERR_/);
    expect(code).toBe(0);
    const run = `demo-${name}`;
    const printed = JSON.parse(stdout);
    expect(printed.training).toMatchObject({ step: 6, tokens: 6 * 4 * 32, completed: true });
    expect(Object.keys(printed.evaluation).sort()).toEqual(['held-out', 'late-years', 'word-order']);
    expect(json(run, 'eval', 'final', 'results.json').results).toEqual(printed.evaluation);
    expect(json(run, 'summary.json')).toMatchObject({
      model: name === 'upcycled' ? '8 experts, top 2, smoe' : 'dense',
      parameters: printed.parameters,
      tokens: 768,
    });
    const checkpoint = path.join(folder, 'runs', run, 'checkpoints', 'step-000006');
    expect(printed.checkpoint).toBe(checkpoint);
    expect(readdirSync(checkpoint)).toEqual(
      expect.arrayContaining(['config.json', 'model.safetensors', 'tokenizer.json', 'checksums.json']),
    );
    expect(existsSync(path.join(folder, 'runs', run, 'recipe.yaml'))).toBe(true);
  }
  // Both go on from the dense model, with its tokenizer.
  const [dense, upcycled] = ['dense', 'upcycled'].map((name) => json(`demo-${name}`, 'summary.json'));
  expect(upcycled.parameters).toBeGreaterThan(3 * dense.parameters);
  expect(upcycled.activeParameters).toBeLessThan(2 * dense.parameters);
  const tokenizers = ['dense', 'upcycled', 'continued'].map((name) =>
    readFileSync(path.join(folder, 'runs', `demo-${name}`, 'tokenizer', 'tokenizer.json'), 'utf8'),
  );
  expect(new Set(tokenizers).size).toBe(1);
  expect(readFileSync(path.join(folder, 'runs', 'demo-upcycled', 'recipe.yaml'), 'utf8')).toContain(
    'checkpoint: runs/demo-dense/checkpoints/step-000006',
  );
}, 240_000);
