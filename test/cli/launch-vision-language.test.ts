import { spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { stringify } from 'yaml';
import { madeUpImages } from '../experiment/made-up-images.ts';
import { tinyData, tinyParts } from '../experiment/tiny-vision-language.ts';
import { libmoe, root } from './libmoe.ts';

const folder = mkdtempSync(path.join(tmpdir(), 'libmoe-launch-images-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));
const withMpi =
  spawnSync('mpirun', ['--version']).status === 0 &&
  existsSync(path.join(root, 'build/Release/libmoe_mpi.so'));
if (!withMpi)
  console.log(
    'training of vision-language models on two ranks is not tested: no mpirun, or built without it',
  );

const recipe = path.join(folder, 'recipe.yaml');
const steps = 10;

/** A small model with experts in tower and projector. */
beforeAll(async () => {
  const { conversations, task } = await madeUpImages(folder);
  const moe = { experts: 3, topK: 2, router: { name: 'smoe', balanceCoefficient: 0.05 } };
  writeFileSync(
    recipe,
    stringify({
      kind: 'vision-language',
      name: 'colours',
      seed: 3,
      tokenizer: tinyParts.tokenizer,
      data: {
        // One conversation for each of two ranks: in some steps one of them has a text alone.
        ...tinyData(folder, conversations, 2),
        cache: path.join(folder, 'cache'),
      },
      model: {
        language: tinyParts.model.language,
        vision: { ...tinyParts.model.vision, moe },
        projector: { type: 'moe', moe },
      },
      training: {
        steps,
        checkpointEvery: 4,
        schedule: { name: 'cosine', learningRate: 5e-3, warmupRatio: 0.1 },
      },
      evaluation: { tasks: [task], scorer: 'fixed' },
    }),
  );
});

interface Line {
  step: number;
  loss: number;
  balanceLoss: number;
  gradNorm: number;
  moe: Record<string, { counts: number[] }>;
}
const metrics = (run: string): Line[] =>
  readFileSync(path.join(folder, run, 'metrics.jsonl'), 'utf8')
    .split('\n')
    .filter(Boolean)
    .map((line) => JSON.parse(line) as Line);
const single = { env: { LIBMOE_THREADS: '1' } };
const alone = (run: string, ...more: string[]) =>
  libmoe(['train', recipe, '--out', path.join(folder, run), ...more], single);
const onTwo = (run: string, ...more: string[]) => {
  const command = ['train', recipe, '--set', 'strategy.data=2', '--out', path.join(folder, run), ...more];
  return libmoe(['launch', '--nproc', '2', '--device', 'cpu', '--', ...command], single);
};

function expectSame(run: string, whole: Line[]): void {
  const own = metrics(run);
  expect(own.map(({ step }) => step)).toEqual(whole.map(({ step }) => step));
  for (const [i, { loss, balanceLoss, gradNorm, moe }] of whole.entries()) {
    const message = `${run}, step ${i + 1}`;
    expect(Math.abs(own[i]!.loss - loss), message).toBeLessThan(1e-5);
    expect(Math.abs(own[i]!.balanceLoss - balanceLoss), message).toBeLessThan(1e-5);
    expect(Math.abs(own[i]!.gradNorm / gradNorm - 1), message).toBeLessThan(1e-3);
    expect(Object.keys(own[i]!.moe)).toEqual(Object.keys(moe));
    const routed = (line: Line) =>
      Object.values(line.moe).map(({ counts }) => counts.reduce((a, b) => a + b));
    expect(routed(own[i]!), message).toEqual(routed(whole[i]!));
  }
}

describe.skipIf(!withMpi)('a vision-language recipe on two ranks', { timeout: 600_000 }, () => {
  it('has the losses of one process, and goes on from one rank to two and back', async () => {
    const whole = await alone('whole');
    expect(whole.code, whole.stderr).toBe(0);
    const losses = metrics('whole');
    expect(losses).toHaveLength(steps);

    const two = await onTwo('two');
    expect(two.code, two.stderr).toBe(0);
    expectSame('two', losses);
    expect(existsSync(path.join(folder, 'two/eval/final/results.json'))).toBe(true);

    // The folder of a run that was stopped after its checkpoint of step 4.
    for (const [run, go] of [
      ['two', alone],
      ['whole', onTwo],
    ] as const) {
      const checkpoints = path.join(folder, run, 'checkpoints');
      for (const name of readdirSync(checkpoints))
        if (/^step-/.test(name) && name !== 'step-000004')
          rmSync(path.join(checkpoints, name), { recursive: true });
      const again = await go(run, '--resume');
      expect(again.code, again.stderr).toBe(0);
      expectSame(run, losses);
    }
  });

  it('has them too where a rank meets nothing that is trained', async () => {
    const projector = ['--set', 'training.trained=[projector.*]', '--set', 'evaluation.tasks=[]'];
    const whole = await alone('projector', ...projector);
    expect(whole.code, whole.stderr).toBe(0);
    const two = await onTwo('projector-two', ...projector);
    expect(two.code, two.stderr).toBe(0);
    expectSame('projector-two', metrics('projector'));
  });
});
