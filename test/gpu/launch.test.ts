// `libmoe launch` on CUDA: two ranks, each on the device of its number, whatever the recipe says. On the emulated device, of which there are as many as asked for, with
// the tests' own NCCL; on real cards where there are two.
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { describe, expect, it } from 'vitest';
import { deviceOfRank } from '../../ts/experiment/ranks.ts';
import { native } from '../../ts/native/index.ts';
import { defaultDevice } from '../../ts/tensor/index.ts';
import { libmoe } from '../cli/libmoe.ts';
import { standInNccl } from '../distributed/ranks.ts';

const devices = native().cudaStatus().devices;
const emulated = devices.some((d) => d.emulated);
const why =
  defaultDevice() === 'cpu'
    ? 'this run is on the CPU'
    : !emulated && devices.length < 2
      ? 'this machine has one GPU'
      : undefined;
if (why) console.log(`skipped: two launched ranks on CUDA, ${why}`);

const recipe = `
name: tiny
tokenizer: { train: { vocabularySize: 280 } }
data: { train: { dataset: sotu, split: heldOut }, sequenceLength: 16, batchSequences: 4 }
model:
  dModel: 16
  layers: 1
  heads: 2
  maxPositions: 32
  moe: { experts: 4, topK: 2, router: { name: smoe }, expert: { hidden: 8, activation: silu, gated: true } }
training: { steps: 2, schedule: { name: cosine, warmupSteps: 1, learningRate: 0.001 } }
`;

it('a rank of several takes the GPU of its number', () => {
  const rank = { worldSize: 4, localRank: 3 } as Parameters<typeof deviceOfRank>[1];
  expect(deviceOfRank('cuda:0', rank)).toBe('cuda:3');
  expect(deviceOfRank('cpu', rank)).toBe('cpu');
  expect(deviceOfRank('cuda:1', { ...rank!, worldSize: 1 })).toBe('cuda:1');
});

describe.skipIf(why !== undefined)('two launched ranks', () => {
  it('train together, each on its own device', async () => {
    const folder = mkdtempSync(path.join(tmpdir(), 'libmoe-launch-gpu-'));
    try {
      const [file, out] = [path.join(folder, 'tiny.yaml'), path.join(folder, 'run')];
      writeFileSync(file, recipe);
      const { code, stderr } = await libmoe(
        [
          'launch',
          '--nproc',
          '2',
          '--device',
          'cuda',
          '--',
          'train',
          file,
          '--set',
          'strategy.data=2',
          '--out',
          out,
        ],
        { env: emulated ? { LIBMOE_EMULATED_DEVICES: '2', LIBMOE_NCCL: standInNccl() } : {} },
      );
      expect({ code, error: /ERR_\S*.*/.exec(stderr)?.[0] }).toEqual({ code: 0, error: undefined });
      const steps = readFileSync(path.join(out, 'metrics.jsonl'), 'utf8').trim().split('\n');
      const tokens = steps.map((line) => (JSON.parse(line) as { tokens: number }).tokens);
      expect(tokens).toEqual([64, 128]); // of both ranks
      expect(readFileSync(path.join(out, 'recipe.yaml'), 'utf8')).toMatch(/device: cuda:0/);
    } finally {
      rmSync(folder, { recursive: true, force: true });
    }
  }, 240_000);
});
