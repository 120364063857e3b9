import { afterAll, describe, expect, it } from 'vitest';
import type { VisionTower, VisionTowerOptions } from '../../../ts/models/vision/index.ts';
import { ForwardContext, routerDefinition } from '../../../ts/moe/index.ts';
import { add, scale, square } from '../../../ts/tensor/elementwise.ts';
import { noGrad, scope, setThreads, type Tensor, tensor, threads } from '../../../ts/tensor/index.ts';
import { mean } from '../../../ts/tensor/reduction.ts';
import { leaveToCollector } from '../../collected.ts';
import { routerCases } from '../../moe/routers/cases.ts';
import { somePixels, tinyClip, tinyExperts, tinySiglip, tinyTower } from './tiny.ts';

leaveToCollector();
const before = threads();
afterAll(() => setThreads(before));

/** Forward and backward with the auxiliary losses, as numbers. */
async function pass(tower: VisionTower, pixels: Tensor, counted?: boolean[]) {
  tower.zeroGrad();
  using context = new ForwardContext({ training: true, totalSteps: 4, seed: 3 });
  const numbers = scope(() => {
    const out = tower.forward(pixels, context, { counted });
    const losses = context.losses();
    let loss = mean(square(out));
    for (const { value, coefficient } of losses) loss = add(loss, scale(value, coefficient));
    const found = {
      out: out.toArray(),
      losses: losses.map(({ name, layer, value, coefficient }) => ({
        name,
        layer,
        coefficient,
        value: value.item(),
      })),
    };
    loss.backward();
    return found;
  });
  const gradients = Object.fromEntries(
    [...tower.namedParameters()].map(([name, t]) => [name, t.grad?.toArray() ?? []]),
  );
  const records = await Promise.all(context.records.map((record) => record.read()));
  tower.zeroGrad();
  return { ...numbers, gradients, records };
}

// A router by token id has no place where tokens are patches.
const cases = routerCases('vision-language').filter(({ name }) => name !== 'hash');

describe.each(cases)('a tower with $name, $compat', ({ name, compat, options, topKs }) => {
  const config: VisionTowerOptions = {
    ...tinySiglip,
    scales: [1, 2],
    moe: {
      layers: 'every:2',
      experts: 4,
      topK: topKs.includes(2) ? 2 : 1,
      router: { name, ...options },
      compat,
      ...(routerDefinition(name).sharedExpert && { shared: { hidden: 8 } }),
    },
  };

  it('trains, with the same bits on two threads and when layers are computed again, losses and records once', async () => {
    using tower = tinyTower(config);
    using x = somePixels(2, 12);
    setThreads(1);
    const first = await pass(tower, x);
    const numbers = [
      ...first.out,
      ...Object.values(first.gradients).flat(),
      ...first.losses.map(({ value }) => value),
    ];
    expect(numbers.every(Number.isFinite)).toBe(true);
    expect(first.records.map(({ layer, call, tokens }) => [layer, call, tokens])).toEqual([
      ['vision.1', 0, 18],
      ['vision.3', 0, 18],
      ['vision.1', 1, 72],
      ['vision.3', 1, 72],
    ]);
    setThreads(2);
    tower.activationCheckpointing = true;
    expect(await pass(tower, x)).toEqual(first);
  });
});

describe('the losses of a tower', () => {
  const moe = { ...tinyExperts, router: { name: 'smoe', balanceCoefficient: 0.3, zCoefficient: 0.1 } };

  /** Losses of one scale of a tower, not yet averaged: what its layers give by themselves. */
  async function alone(scales: number[]) {
    using tower = tinyTower({ ...tinySiglip, scales, moe });
    using x = somePixels(2, 12);
    return (await pass(tower, x)).losses;
  }

  it('are means over layers and over scales, each scale balanced by itself', async () => {
    const [one, three, both] = [await alone([1]), await alone([3]), await alone([1, 3])];
    expect(one).toHaveLength(8); // balance and z of four layers
    expect(both).toHaveLength(16);
    const total = (losses: typeof one): number =>
      losses.reduce((sum, { coefficient, value }) => sum + coefficient * value, 0);
    for (const { name, coefficient } of one)
      expect(coefficient).toBeCloseTo((name === 'balance' ? 0.3 : 0.1) / 4, 12);
    expect(total(both)).toBeCloseTo((total(one) + total(three)) / 2, 6);
    expect(Math.abs(total(one) - total(three))).toBeGreaterThan(1e-5);
  });

  it('take each tile of an image for a sequence', async () => {
    // The balance loss is a mean over sequences of what each has by itself: tiles of one image, given as images, have the same.
    using tower = tinyTower({ ...tinySiglip, moe });
    using scaled = tinyTower({ ...tinySiglip, scales: [2], moe });
    using flat = tensor(new Float32Array(3 * 144).fill(0.3), [1, 3, 12, 12]);
    using four = tensor(new Float32Array(4 * 3 * 144).fill(0.3), [4, 3, 12, 12]);
    const [tiles, images] = [await pass(scaled, flat), await pass(tower, four)];
    expect(tiles.records.map(({ tokens }) => tokens)).toEqual([36, 36, 36, 36]);
    tiles.losses.forEach(({ value }, i) => {
      expect(value).toBeCloseTo(images.losses[i]!.value, 5);
    });
  });

  it('add up over calls within one scale only', async () => {
    const router = { name: 'smoe', balance: 'layers_time', zCoefficient: 0 } as const;
    using tower = tinyTower({ ...tinySiglip, scales: [1, 2], moe: { ...tinyExperts, router } });
    using x = somePixels(2, 12);
    const { losses } = await pass(tower, x);
    expect(losses).toHaveLength(8);
  });

  it('are divided once where the router takes the mean over layers itself', async () => {
    const first = async (layers: 'all' | number[]) => {
      using tower = tinyTower({ ...tinySiglip, moe: { ...tinyExperts, layers, router: { name: 'remoe' } } });
      using x = somePixels(2, 12);
      return (await pass(tower, x)).losses.find(({ name }) => name === 'sparsity')!;
    };
    const [one, all] = [await first([0]), await first('all')];
    expect(all.coefficient).toBe(one.coefficient);
    expect(all.coefficient).toBeGreaterThan(0);
  });

  it('see no image that does not count', async () => {
    using tower = tinyTower({ ...tinySiglip, scales: [1, 2], moe });
    using three = somePixels(3, 12);
    const values = three.toArray();
    using first = tensor(values.slice(0, 432), [1, 3, 12, 12]);
    const all = await pass(tower, three, [true, false, false]);
    const own = await pass(tower, first);
    expect(all.records.map(({ tokens, counts }) => [tokens, counts])).toEqual(
      own.records.map(({ tokens, counts }) => [tokens, counts]),
    );
    all.losses.forEach(({ value }, i) => {
      expect(value).toBeCloseTo(own.losses[i]!.value, 6);
    });
    expect(all.out.slice(0, own.out.length)).toEqual(own.out);
  });

  it('are those of every layer in compat libmoe, also of the last, whose experts learn nothing', async () => {
    using tower = tinyTower({ ...tinySiglip, compat: 'libmoe', moe: { ...moe, compat: 'libmoe' } });
    using x = somePixels(2, 12);
    const { losses, gradients } = await pass(tower, x);
    expect(losses.map(({ layer }) => layer)).toContain('vision.3');
    expect(gradients['blocks.3.moe.experts.up']).toEqual([]);
    expect(gradients['blocks.3.moe.router.weight']!.some((g) => g !== 0)).toBe(true);
  });
});

describe('a tower of experts', () => {
  it('that all are the dense layer computes what the dense tower does', async () => {
    using dense = tinyTower(tinyClip);
    using moe = tinyTower({ ...tinyClip, moe: { ...tinyExperts, layers: 'every:2' } }, { seed: 2 });
    const state = dense.stateDict();
    for (const [name, target] of moe.stateDict()) {
      const source = state.get(name.replace('.moe.experts.', '.feedForward.'));
      if (source)
        target.write(
          Array(target.size / source.size)
            .fill(source.toArray())
            .flat(),
        );
    }
    using x = somePixels(2, 12);
    scope(() => {
      const [a, b] = noGrad(() => [dense.forward(x).toArray(), moe.forward(x).toArray()]);
      expect(Math.max(...a!.map((v, i) => Math.abs(v - b![i]!)))).toBeLessThan(1e-5);
    });
  });

  it('starts its routers apart, alike in compat libmoe', () => {
    const routers = (compat: 'fixed' | 'libmoe') => {
      using tower = tinyTower({ ...tinySiglip, moe: { ...tinyExperts, compat } });
      return tower.blocks.map((block) => block.moe!.router.namedParameters().get('weight')!.toArray());
    };
    const [first, second] = routers('fixed');
    expect(second).not.toEqual(first);
    const [one, two] = routers('libmoe');
    expect(two).toEqual(one);
  });
});
