import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { setTimeout } from 'node:timers/promises';
import { afterAll, describe, expect, it } from 'vitest';
import { parse, stringify } from 'yaml';
import { libmoe, root } from './libmoe.ts';

const folder = mkdtempSync(path.join(tmpdir(), 'libmoe-kill-'));
afterAll(() => rmSync(folder, { recursive: true }));

const steps = 160;
const words = 'one two three four five six seven eight nine ten eleven twelve'.split(' ');
const corpus = path.join(folder, 'corpus.txt');
writeFileSync(
  corpus,
  Array.from({ length: 3000 }, (_, i) => words[(i * i + 3 * i) % 13 === 0 ? 0 : (i * 7) % 12]).join(' '),
);
// recipes/demo/moe.yaml at a size at which what is killed is training, not waiting.
const recipe = path.join(folder, 'moe.yaml');
const demo = parse(readFileSync(path.join(root, 'recipes/demo/moe.yaml'), 'utf8'));
const data = { ...demo.data, train: { files: corpus }, heldOut: {}, cache: path.join(folder, 'cache') };
writeFileSync(recipe, stringify({ ...demo, data: { ...data, workers: 0 } }));
const changes = Object.entries({
  'tokenizer.train.vocabularySize': 300,
  'model.dModel': 16,
  'model.layers': 2,
  'model.feedForward.hidden': 16,
  'model.moe.expert.hidden': 16,
  'training.steps': steps,
  'training.checkpointEvery': 4,
}).flatMap(([key, value]) => ['--set', `${key}=${value}`]);
const train = (run: string, ...more: string[]) => [
  'train',
  recipe,
  '--smoke',
  ...changes,
  '--out',
  path.join(folder, run),
  ...more,
];
// Fastest for such a small model, above all on a busy machine.
const single = { env: { LIBMOE_THREADS: '1' } };
const metrics = (run: string): { step: number; loss: number }[] => {
  const file = path.join(folder, run, 'metrics.jsonl');
  if (!existsSync(file)) return [];
  const whole = readFileSync(file, 'utf8').split('\n').slice(0, -1); // a torn last line is not a step
  return whole.map((line) => JSON.parse(line) as { step: number; loss: number });
};
const losses = (run: string): number[] => metrics(run).map(({ loss }) => loss);
const reached = (run: string): number => metrics(run).at(-1)?.step ?? 0;

/** The step of the first status line. */
function firstStep(text: string): number | undefined {
  const found = /(\d+)\/\d+ {2}loss/.exec(text)?.[1];
  return found === undefined ? undefined : Number(found);
}

/** Numbers from 0 to 1, another row for every seed (mulberry32). */
function random(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

describe('a training that is disturbed', () => {
  it('ends at the bits of an undisturbed one: killed at ten random moments, resumed, at other thread counts', async () => {
    const undisturbed = await libmoe(train('whole'), single);
    expect(undisturbed.stderr).not.toMatch(/ERR_/);
    expect(undisturbed.code).toBe(0);

    const seed = Number(process.env.LIBMOE_KILL_SEED ?? Date.now() % 1_000_000);
    const next = random(seed);
    const killedAt: number[] = [];
    for (let kill = 0; kill < 10; kill += 1) {
      // What a kill loses is done again, so the later kills always find steps to do.
      const further = Math.floor(8 * next());
      const { signal, stderr } = await libmoe(train('killed', '--resume'), {
        env: { LIBMOE_THREADS: String(1 + (kill % 2)) },
        during: (child, seen) => {
          const wait = async () => {
            // The first step that this process did; only then are the lines that the last kill left behind cut off.
            let first: number | undefined;
            while (child.exitCode === null) {
              first ??= firstStep(seen());
              if (first !== undefined && reached('killed') >= first + further) break;
              await setTimeout(2);
            }
            child.kill('SIGKILL');
          };
          void wait();
        },
      });
      expect(signal, `seed ${seed}, kill ${kill}, ${further} steps on: it ended by itself\n${stderr}`).toBe(
        'SIGKILL',
      );
      killedAt.push(reached('killed'));
    }
    const context = `seed ${seed} (LIBMOE_KILL_SEED repeats it), killed at steps ${killedAt.join(', ')}`;
    expect(Math.min(...killedAt), context).toBeGreaterThan(0);
    expect(Math.max(...killedAt), context).toBeLessThan(steps);
    const last = await libmoe(train('killed', '--resume'), single);
    expect(last.code, `${context}\n${last.stderr}`).toBe(0);
    expect(losses('killed'), context).toEqual(losses('whole'));
    expect(losses('whole')).toHaveLength(steps);
  }, 240_000);

  it('saves and exits with 130 on Ctrl-C, says how to go on, and goes on to the same bits', async () => {
    const stopped = await libmoe(train('stopped'), {
      ...single,
      during: (child, seen) => {
        const wait = async () => {
          while (firstStep(seen()) === undefined && child.exitCode === null) await setTimeout(2);
          child.kill('SIGINT');
        };
        void wait();
      },
    });
    expect(stopped.code).toBe(130);
    const hint = /stopped at step \d+; go on with: libmoe (.*)/.exec(stopped.stdout)?.[1];
    expect(hint).toContain('--smoke --set tokenizer.train.vocabularySize=300 --set ');
    expect(hint).toContain(`--out ${path.join(folder, 'stopped')}`);
    expect(hint).toMatch(/ --resume$/);
    expect(losses('stopped').length).toBeLessThan(steps);
    const resumed = await libmoe(train('stopped', '--resume', '--json'), single);
    expect(resumed.code).toBe(0);
    expect(JSON.parse(resumed.stdout).training).toMatchObject({ step: steps, completed: true });
    expect(losses('stopped')).toEqual(losses('whole'));
  }, 120_000);

  it('stops at once while data are prepared', async () => {
    const huge = path.join(folder, 'huge.txt');
    writeFileSync(
      huge,
      Array.from({ length: 400_000 }, (_, i) => (i * 2654435761 + 1).toString(36)).join(' '),
    );
    const stopped = await libmoe(
      train('huge', '--set', `data.train.files=${huge}`, '--set', 'tokenizer.train={vocabularySize: 4000}'),
      {
        during: (child, seen) => {
          const wait = async () => {
            while (!seen().includes('training a tokenizer') && child.exitCode === null) await setTimeout(2);
            await setTimeout(50);
            child.kill('SIGINT');
          };
          void wait();
        },
      },
    );
    expect(stopped.code).toBe(130);
    expect(stopped.stderr).toMatch(/ERR_LIBMOE_STOPPED: stopped while training a tokenizer/);
    expect(existsSync(path.join(folder, 'huge'))).toBe(false);
  }, 60_000);

  it('refuses to start anew over an old run', async () => {
    const again = await libmoe(train('whole'));
    expect(again.code).toBe(2);
    expect(again.stderr).toMatch(/ERR_LIBMOE_STATE.*--resume.*--out/);
    expect(losses('whole').length).toBe(steps);
  }, 60_000);
});
