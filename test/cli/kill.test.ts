import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { setTimeout } from 'node:timers/promises';
import { afterAll, describe, expect, it } from 'vitest';
import { libmoe } from './libmoe.ts';

const folder = mkdtempSync(path.join(tmpdir(), 'libmoe-kill-'));
afterAll(() => rmSync(folder, { recursive: true }));

const recipe = 'recipes/demo/moe.yaml';
const changes = [
  '--smoke',
  '--set',
  'training.steps=60',
  '--set',
  'training.checkpointEvery=7',
  '--set',
  `data.cache=${folder}/cache`,
];
const losses = (run: string): number[] =>
  readFileSync(path.join(folder, run, 'metrics.jsonl'), 'utf8')
    .trim()
    .split('\n')
    .map((line) => (JSON.parse(line) as { loss: number }).loss);
const train = (run: string, ...more: string[]) => [
  'train',
  recipe,
  ...changes,
  '--out',
  path.join(folder, run),
  ...more,
];

describe('a training that is disturbed', () => {
  it('ends at the bits of an undisturbed one: killed at any moment, resumed, at other thread counts', async () => {
    const undisturbed = await libmoe(train('whole'));
    expect(undisturbed.stderr).not.toMatch(/ERR_/);
    expect(undisturbed.code).toBe(0);

    let kills = 0;
    for (let attempt = 0; attempt < 40; attempt += 1) {
      const { code, signal } = await libmoe(train('killed', '--resume'), {
        env: { LIBMOE_THREADS: String(1 + (attempt % 2)) },
        during: (child) => {
          // Moments from start-up to the last step; the later attempts run free.
          if (attempt < 6) void setTimeout(900 + attempt * 450).then(() => child.kill('SIGKILL'));
        },
      });
      if (signal === 'SIGKILL') kills += 1;
      if (code === 0) break;
    }
    expect(kills).toBeGreaterThan(2);
    expect(losses('killed')).toEqual(losses('whole'));
  }, 240_000);

  it('saves and exits with 130 on Ctrl-C, and goes on to the same bits', async () => {
    const stopped = await libmoe(train('stopped'), {
      during: (child, seen) => {
        const wait = async () => {
          while (!/\d+\/60 {2}loss/.test(seen()) && child.exitCode === null) await setTimeout(10);
          child.kill('SIGINT');
        };
        void wait();
      },
    });
    expect(stopped.code).toBe(130);
    expect(stopped.stdout).toMatch(/stopped at step \d+/);
    const before = losses('stopped').length;
    expect(before).toBeLessThan(60);
    const resumed = await libmoe(train('stopped', '--resume', '--json'));
    expect(resumed.code).toBe(0);
    expect(JSON.parse(resumed.stdout).training).toMatchObject({ step: 60, completed: true });
    expect(losses('stopped')).toEqual(losses('whole'));
  }, 120_000);

  it('refuses to start anew over an old run', async () => {
    const again = await libmoe(train('whole'));
    expect(again.code).toBe(2);
    expect(again.stderr).toMatch(/ERR_LIBMOE_STATE/);
    expect(losses('whole').length).toBe(60);
  }, 60_000);
});
