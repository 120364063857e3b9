import { describe, expect, it } from 'vitest';
import { PackedLoader, tokenDataset } from '../../ts/data/index.ts';
import { LanguageModel } from '../../ts/models/language/index.ts';
import { routerNames } from '../../ts/moe/index.ts';
import { type DeviceName, defaultDevice, setDefaultDevice } from '../../ts/tensor/index.ts';
import { optimizer, schedule, train } from '../../ts/training/index.ts';

const device = defaultDevice();
const steps = 4;

/** Losses and norms of a few steps of a small mixture. With `moved` the model is made on the CPU, and only it is taken to the device. */
async function curve(
  on: DeviceName,
  dtype: 'f32' | 'bf16',
  router: string,
  moved = false,
): Promise<number[]> {
  setDefaultDevice(moved ? 'cpu' : on);
  try {
    const tokens = new Int32Array(1500);
    for (let i = 2; i < tokens.length; i += 1) tokens[i] = (3 * tokens[i - 1]! + tokens[i - 2]! + 1) % 31;
    const expert = { hidden: 24, activation: 'silu', gated: true } as const;
    using model = new LanguageModel({
      vocabularySize: 32,
      dModel: 32,
      layers: 2,
      heads: 2,
      feedForward: expert,
      moe: {
        experts: 4,
        topK: 2,
        router: { name: router },
        expert,
        ...(router.startsWith('shared') && { shared: { hidden: 16 } }),
      },
    });
    model.to({ dtype, device: on });
    using dataset = { data: tokenDataset(tokens), [Symbol.dispose]: () => dataset.data.close() };
    const adamw = optimizer(model.namedParameters(), { name: 'adamw' });
    try {
      const seen: number[] = [];
      for await (const { loss, gradNorm } of train(model, {
        data: new PackedLoader(dataset.data, { sequenceLength: 16, batchSequences: 2 }),
        optimizer: adamw,
        schedule: schedule({ name: 'constant', learningRate: 3e-3 }, steps),
        clipNorm: 1,
        steps,
      }))
        seen.push(loss, gradNorm);
      return seen;
    } finally {
      adamw.dispose();
    }
  } finally {
    setDefaultDevice(device);
  }
}

const apart = (a: readonly number[], b: readonly number[]): number =>
  Math.max(...a.map((x, i) => Math.abs(x / b[i]! - 1)));

describe.skipIf(device === 'cpu')('training on a device (skipped where the CPU is all there is)', () => {
  it('gives the losses of the CPU, with a default device and with the model alone moved', async () => {
    const cpu = await curve('cpu', 'f32', 'smoe');
    expect(apart(await curve(device, 'f32', 'smoe'), cpu)).toBeLessThan(1e-5);
    expect(apart(await curve(device, 'f32', 'smoe', true), cpu)).toBeLessThan(1e-5);
  });

  it('gives the losses of the CPU with every router', async () => {
    for (const router of routerNames())
      expect(
        apart(await curve(device, 'f32', router, true), await curve('cpu', 'f32', router)),
        router,
      ).toBeLessThan(1e-4);
  }, 240_000); // of the emulated device, beside others

  it('trains in bf16, twice to the same bits', async () => {
    const once = await curve(device, 'bf16', 'smoe');
    expect(await curve(device, 'bf16', 'smoe')).toEqual(once);
    expect(apart(once, await curve('cpu', 'bf16', 'smoe'))).toBeLessThan(0.02);
  });

  it('names step and layer of a NaN, changes nothing, and leaves no fault behind', async () => {
    const expert = { hidden: 16, activation: 'silu', gated: true } as const;
    using model = new LanguageModel({
      vocabularySize: 32,
      dModel: 16,
      layers: 1,
      heads: 2,
      feedForward: expert,
      moe: { experts: 4, topK: 2, router: { name: 'smoe' }, expert },
    });
    const parameters = model.namedParameters();
    const [broken, other] = [parameters.get('embedding.weight')!, [...parameters.values()].at(-1)!];
    broken.write(broken.toArray().fill(Number.NaN));
    const before = other.toArray();
    const adamw = optimizer(parameters, { name: 'adamw' });
    const dataset = tokenDataset(Int32Array.from({ length: 200 }, (_, i) => i % 31));
    try {
      const steps = train(model, {
        data: new PackedLoader(dataset, { sequenceLength: 16, batchSequences: 2 }),
        optimizer: adamw,
        schedule: schedule({ name: 'constant', learningRate: 1 }, 2),
        steps: 2,
      });
      await expect(steps.next()).rejects.toThrow(
        /ERR_LIBMOE_NOT_FINITE: step 1: parameter embedding.weight holds a NaN/,
      );
      expect(other.toArray()).toEqual(before);
      expect([...adamw.steps.values()].every((count) => count === 0)).toBe(true);
    } finally {
      adamw.dispose();
      dataset.close();
    }
  });
});
