import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { setTimeout } from 'node:timers/promises';
import { afterAll, describe, expect, it } from 'vitest';
import { stringify } from 'yaml';
import { tinyCorpus, tinyRecipe } from '../experiment/tiny.ts';
import { libmoe } from './libmoe.ts';

const folder = mkdtempSync(path.join(tmpdir(), 'libmoe-sweep-command-'));
afterAll(() => rmSync(folder, { recursive: true }));
const file = path.join(folder, 'sweep.yaml');
const steps = 400;
writeFileSync(
  file,
  stringify({
    name: 'tiny',
    base: {
      ...tinyRecipe(tinyCorpus(folder)),
      training: { steps, checkpointEvery: 1000 },
      smoke: { training: { steps: 2 } },
    },
    axes: {
      kind: { variants: { good: {}, bad: { data: { train: { files: path.join(folder, 'no.txt') } } } } },
      seed: [1],
    },
  }),
);
const single = { env: { LIBMOE_THREADS: '1' } };
const sweep = (out: string, ...more: string[]) => ['sweep', file, '--out', path.join(folder, out), ...more];

describe('libmoe sweep', () => {
  it('prints the table, says what failed and exits with 1', async () => {
    const { code, stdout, stderr } = await libmoe(sweep('whole', '--smoke'), single);
    expect(code).toBe(1);
    expect(stdout).toContain('| good | 1 |');
    expect(stdout).toMatch(/\* failed: bad\/1: ERR_LIBMOE_FILE: .*no\.txt/);
    expect(stderr).toContain('1 of 2 runs failed');
    const json = await libmoe(sweep('whole', '--smoke', '--only', 'good', '--json'), single);
    const { runs, variants } = JSON.parse(json.stdout);
    expect(runs.map(({ status }: { status: string }) => status)).toEqual(['done', 'failed']);
    expect(variants[0].metrics.finalLoss.value).toBeGreaterThan(0);
    const planned = await libmoe(sweep('whole', '--smoke', '--dry-run'), single);
    expect(planned.stdout).toMatch(/good +1 +done/);
    expect(existsSync(path.join(folder, 'whole', 'results.svg'))).toBe(true);
  }, 120_000);

  it('refuses what is wrong with 2', async () => {
    const wrong = await libmoe(sweep('wrong', '--set', 'training.step=3'), single);
    expect([wrong.code, wrong.stderr]).toEqual([
      2,
      expect.stringMatching(/good\/1: unknown key "training.step"/),
    ]);
    const part = await libmoe(sweep('wrong', '--part', '3/2'), single);
    expect([part.code, part.stderr]).toEqual([2, expect.stringMatching(/--part expects such as 1\/2/)]);
    expect(existsSync(path.join(folder, 'wrong'))).toBe(false);
  }, 60_000);

  it('saves and exits with 130 on Ctrl-C', async () => {
    const { code, stdout } = await libmoe(sweep('stopped', '--only', 'good'), {
      ...single,
      during: (child, seen) => {
        const wait = async () => {
          while (!/\d+\/400 {2}loss/.test(seen()) && child.exitCode === null) await setTimeout(2);
          child.kill('SIGINT');
        };
        void wait();
      },
    });
    expect(code).toBe(130);
    expect(stdout).toContain('stopped; the same command continues');
    const latest = readFileSync(path.join(folder, 'stopped', 'good', '1', 'checkpoints', 'latest'), 'utf8');
    expect(Number(/\d+/.exec(latest)?.[0])).toBeLessThan(steps);
  }, 60_000);
});
