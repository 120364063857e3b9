import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import {
  resolveVisionTowerConfig,
  sigmoidContrastiveLoss,
  type VisionTowerOptions,
} from '../../../ts/models/vision/index.ts';
import { ForwardContext } from '../../../ts/moe/index.ts';
import { square } from '../../../ts/tensor/elementwise.ts';
import { memory, noGrad, parameter, scope, setThreads, tensor, threads } from '../../../ts/tensor/index.ts';
import { mean } from '../../../ts/tensor/reduction.ts';
import { gradientCheck } from '../../ops/gradient-check.ts';
import { somePixels, tinyClip, tinySiglip, tinyTower } from './tiny.ts';

const outputOf = (config: VisionTowerOptions, images = 2): number[] => {
  using tower = tinyTower(config);
  using x = somePixels(images, tower.imageSize);
  return noGrad(() => scope(() => tower.forward(x).toArray()));
};

// Tensors as small as these are no work for two.
const given = threads();
beforeAll(() => setThreads(1));
afterAll(() => setThreads(given));

describe('a vision tower', () => {
  it('says what it gives', () => {
    using siglip = tinyTower({ ...tinySiglip, scales: [1, 3], resolution: 17 });
    expect([siglip.imageSize, siglip.tokensPerImage, siglip.featureWidth]).toEqual([17, 16, 24]);
    using clip = tinyTower({ ...tinyClip, selectFeature: 'full' });
    expect([clip.imageSize, clip.tokensPerImage, clip.featureWidth]).toEqual([12, 10, 12]);
    expect(clip.positionEmbedding.weight.shape).toEqual([10, 12]);
    using x = somePixels(2, 12);
    scope(() => {
      expect(noGrad(() => clip.forward(x)).shape).toEqual([20, 12]);
      expect(noGrad(() => siglip.forward(somePixels(1, 17))).shape).toEqual([16, 24]);
      expect(noGrad(() => siglip.forward(somePixels(0, 17))).shape).toEqual([0, 24]);
    });
  });

  it('neither keeps nor computes layers whose output is not used', () => {
    for (const kind of ['siglip', 'clip'] as const) {
      const config = { ...tinySiglip, kind };
      using whole = tinyTower(config);
      using part = tinyTower({ ...config, selectLayer: -2 });
      const names = [...part.namedParameters().keys()];
      expect(names.some((name) => name.startsWith('blocks.2.'))).toBe(true);
      expect(names.some((name) => name.startsWith('blocks.3.') || name.includes('postNorm'))).toBe(false);
      expect(part.parameterCount()).toBeLessThan(whole.parameterCount());
      const seen: string[] = [];
      using x = somePixels(1, 12);
      using context = new ForwardContext({ onLayer: (name) => seen.push(name) });
      using first = noGrad(() => part.forward(x, context));
      expect(seen).toEqual(['vision embedding', 'vision layer 0', 'vision layer 1', 'vision layer 2']);
      // The same numbers as those of the tower that has all of them, as every parameter draws from its own name.
      using same = tinyTower({ ...config, selectLayer: 3 });
      using second = noGrad(() => same.forward(x));
      expect(second.toArray()).toEqual(first.toArray());
    }
  });

  it('computes them all and gives the last but one in compat libmoe, and frees what backward does not reach', () => {
    const wanted = outputOf({ ...tinySiglip, selectLayer: -2 });
    using tower = tinyTower({ ...tinySiglip, selectLayer: -1, compat: 'libmoe' });
    expect(tower.blocks).toHaveLength(4);
    using x = somePixels(2, 12);
    const before = memory().tensors;
    for (const recompute of [false, true]) {
      tower.activationCheckpointing = recompute;
      scope(() => {
        const out = tower.forward(x);
        expect(out.toArray()).toEqual(wanted);
        mean(square(out)).backward();
      });
      expect(tower.blocks[3]!.feedForward!.up.grad).toBeUndefined();
      expect(tower.blocks[2]!.feedForward!.up.grad).toBeDefined();
      tower.zeroGrad();
      expect(memory().tensors).toBe(before);
    }
  });

  it('gives an image the same bits alone, in a batch, and at any number of threads', () => {
    const config = { ...tinyClip, scales: [1, 2] };
    const both = outputOf(config, 2);
    expect(both.slice(0, both.length / 2)).toEqual(outputOf(config, 1));
    setThreads(2);
    expect(outputOf(config, 2)).toEqual(both);
    setThreads(1);
  });

  it('has the gradients of its values (finite differences, f64): scales, class token, interpolated positions', () => {
    for (const kind of ['siglip', 'clip'] as const) {
      const config = {
        kind,
        imageSize: 2,
        patchSize: 1,
        resolution: 3,
        dModel: 4,
        layers: 1,
        heads: 2,
        hidden: 3,
        scales: [1, 2],
      };
      using tower = tinyTower(config, { dtype: 'f64' });
      using x = parameter(somePixels(1, 3, 'f64'));
      gradientCheck((pixels) => tower.forward(pixels!), [x, ...tower.parameters()]);
    }
  });

  it('has the gradients of its pools, and of the contrastive loss behind them', () => {
    for (const pool of ['attention', 'class', 'mean'] as const) {
      const kind = pool === 'class' ? 'clip' : 'siglip';
      using tower = tinyTower(
        { kind, imageSize: 2, patchSize: 1, dModel: 4, layers: 1, heads: 2, hidden: 3, pool },
        { dtype: 'f64' },
      );
      using x = somePixels(3, 2, 'f64');
      using names = parameter(
        tensor(
          Float64Array.from({ length: 8 }, (_, i) => Math.sin(5 * i + 1)),
          [2, 4],
        ),
      );
      using factor = parameter(tensor(Float64Array.of(0.4)));
      using bias = parameter(tensor(Float64Array.of(-0.7)));
      const matches = [1, 0, 0, 1, 1, 0]; // the first and the third image have the first name
      gradientCheck(
        () => sigmoidContrastiveLoss(tower.pooled(x), names, factor, bias, matches),
        [names, factor, bias, ...tower.parameters()],
      );
    }
  });

  it('starts as the models of transformers do', () => {
    const deviation = (values: number[]): number => {
      const average = values.reduce((a, b) => a + b, 0) / values.length;
      return Math.sqrt(values.reduce((a, v) => a + (v - average) ** 2, 0) / values.length);
    };
    const sizes = { imageSize: 64, patchSize: 8, dModel: 96, layers: 2, heads: 2, hidden: 160 };
    const of = (kind: 'clip' | 'siglip') => {
      using tower = tinyTower({ kind, ...sizes, pool: kind === 'clip' ? 'class' : 'attention' });
      return Object.fromEntries(
        [...tower.namedParameters()].map(([name, t]) => [name, deviation(t.toArray())]),
      );
    };
    const near = (got: number | undefined, wanted: number): void => {
      expect(Math.abs(got! / wanted - 1)).toBeLessThan(0.1);
    };
    const clip = of('clip');
    near(clip['patchEmbedding.weight'], 0.02);
    near(clip['positionEmbedding.weight'], 0.02);
    near(clip['blocks.0.attention.query.weight'], 96 ** -0.5 / 2);
    near(clip['blocks.0.attention.output.weight'], 96 ** -0.5);
    near(clip['blocks.1.feedForward.up'], 192 ** -0.5);
    near(clip['blocks.1.feedForward.down'], 96 ** -0.5 / 2);
    expect(clip['blocks.1.feedForward.upBias']).toBe(0);
    const siglip = of('siglip');
    near(siglip['patchEmbedding.weight'], 192 ** -0.5);
    near(siglip['positionEmbedding.weight'], 96 ** -0.5);
    near(siglip['blocks.0.attention.value.weight'], Math.sqrt(2 / 192));
    near(siglip['blocks.1.feedForward.up'], Math.sqrt(2 / 256));
    expect(siglip['blocks.1.feedForward.downBias']).toBeGreaterThan(5e-7);
    expect(siglip['blocks.1.feedForward.downBias']).toBeLessThan(2e-6);
    near(siglip['head.key.weight'], Math.sqrt(2 / 384));
    near(siglip['head.output.weight'], 96 ** -0.5);
    near(siglip['head.feedForward.down'], Math.sqrt(2 / 256));
  });

  it('runs in bf16, near to f32', () => {
    using tower = tinyTower({ ...tinySiglip, scales: [1, 2], pool: undefined }, { dtype: 'bf16' });
    using x = somePixels(2, 12);
    using out = noGrad(() => tower.forward(x));
    expect(out.dtype).toBe('bf16');
    const wanted = outputOf({ ...tinySiglip, scales: [1, 2] });
    const worst = Math.max(...out.toArray().map((v, i) => Math.abs(v - wanted[i]!)));
    expect(worst).toBeLessThan(0.05 * Math.max(...wanted.map(Math.abs)));
  });

  it('refuses images of another size, and answers about fewer images than there are', () => {
    using tower = tinyTower();
    using x = somePixels(2, 13);
    expect(() => tower.forward(x)).toThrow(/ERR_LIBMOE_SHAPE.*\[images, 3, 12, 12\], got \[2, 3, 13, 13\]/);
    using y = somePixels(2, 12);
    expect(() => tower.forward(y, undefined, { counted: [true] })).toThrow(/ERR_LIBMOE_ARGUMENT.*2 images/);
    expect(() => tower.pooled(y)).toThrow(/ERR_LIBMOE_CONFIG.*pool/);
  });
});

describe('the configuration of a tower', () => {
  it('writes out its defaults, and comes back unchanged', () => {
    const config = resolveVisionTowerConfig({ ...tinyClip, moe: { experts: 3, topK: 2 } });
    expect(config).toMatchObject({
      activation: 'quickGelu',
      eps: 1e-5,
      resolution: 12,
      selectLayer: -1,
      scales: [1],
    });
    expect(config.moe).toMatchObject({
      layers: 'all',
      router: { name: 'smoe', flavour: 'vision-language' },
      expert: { hidden: 20, activation: 'quickGelu', gated: false, bias: true },
    });
    expect(resolveVisionTowerConfig(config)).toEqual(config);
    expect(resolveVisionTowerConfig(tinySiglip)).toMatchObject({ activation: 'geluTanh', eps: 1e-6 });
  });

  it.each([
    [{ selectLayr: -2 }, /unknown key "selectLayr".*"selectLayer"/],
    [{ heads: 5 }, /dModel 12 must be a multiple of heads 5/],
    [{ patchSize: 13 }, /imageSize 12 is less than one patch/],
    [{ resolution: 3 }, /resolution 3 is less than one patch/],
    [{ selectLayer: -6 }, /selectLayer must lie in -5…4/],
    [{ selectLayer: 5 }, /selectLayer must lie in -5…4/],
    [{ scales: [1, 1] }, /scales are named twice/],
    [{ scales: [] }, /scales/],
    [{ kind: 'clip', selectFeature: 'full', scales: [1, 2] }, /selectFeature "full" needs scales \[1\]/],
    [{ pool: 'class' }, /pool "class" needs a class token/],
    [{ pool: 'mean', selectLayer: -2 }, /needs all layers/],
    [{ pool: 'mean', compat: 'libmoe' }, /needs all layers/],
    [{ moe: { experts: 2, topK: 3 } }, /vision tower: moe.topK 3 is more than the 2 experts/],
    [{ moe: { experts: 2, topK: 1, layers: [7] } }, /vision tower: layer 7 does not exist/],
    [{ selectLayer: -2, moe: { experts: 2, topK: 1, layers: [1, 3] } }, /layer 3, whose output nothing uses/],
    [{ selectLayer: 1, moe: { experts: 2, topK: 1, layers: 'every:2' } }, /selects none of the 1 layers/],
    [{ moe: { experts: 2, topK: 1, router: { name: 'smo' } } }, /no router "smo", did you mean "smoe"/],
  ])('refuses %j', (change, message) => {
    expect(() => resolveVisionTowerConfig({ ...tinySiglip, ...change })).toThrow(message);
  });
});
