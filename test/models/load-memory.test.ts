import { spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { LanguageModel, saveModel } from '../../ts/models/language/index.ts';

let folder: string;
beforeAll(async () => {
  folder = mkdtempSync(path.join(tmpdir(), 'libmoe-memory-'));
  using model = new LanguageModel(
    { vocabularySize: 4000, dModel: 1024, layers: 4, heads: 8, feedForward: { hidden: 2816 } },
    { seed: 'later' },
  );
  await saveModel(model, path.join(folder, 'm'));
}, 120_000);
afterAll(() => rmSync(folder, { recursive: true, force: true }));

// 236 MB. Reading each tensor into a buffer, a tensor and a slice of it took 1.5 times the model above what the process held.
describe.skipIf(!existsSync('/proc/self/status'))('loading a checkpoint', () => {
  it('never holds a second copy of the weights', () => {
    const run = spawnSync(
      process.execPath,
      [path.join(import.meta.dirname, 'load-memory.mjs'), path.join(folder, 'm')],
      { encoding: 'utf8', timeout: 60_000 },
    );
    expect(run.stderr).toBe('');
    const { model, before, peak } = JSON.parse(run.stdout) as Record<'model' | 'before' | 'peak', number>;
    expect(model).toBeGreaterThan(230e6);
    expect((peak - before) / model).toBeLessThan(1.3);
  });
});
