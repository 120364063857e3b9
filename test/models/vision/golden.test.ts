import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';
import { fileTensorsOf } from '../../../ts/models/language/file-tensors.ts';
import { towerLayout } from '../../../ts/models/vision/file-tensors.ts';
import {
  imageTextLogits,
  loadVisionTower,
  sigmoidContrastiveLoss,
  type TowerChanges,
  towerTensors,
  type VisionTower,
} from '../../../ts/models/vision/index.ts';
import { readSafetensors } from '../../../ts/storage/safetensors.ts';
import { square } from '../../../ts/tensor/elementwise.ts';
import { noGrad, parameter, scope, type Tensor, tensor } from '../../../ts/tensor/index.ts';
import { mean } from '../../../ts/tensor/reduction.ts';

// Weights and expectations made by transformers: test/golden/vision/make.py
const golden = fileURLToPath(new URL('../../golden/vision', import.meta.url));
const step = 17;

function pixels(images: number, side: number): Tensor {
  const values = Float32Array.from(
    { length: images * 3 * side * side },
    (_, i) => ((i * 7919 + Math.floor(i / 97) * 31) % 1009) / 504 - 1,
  );
  return tensor(values, [images, 3, side, side]);
}

/** The largest difference, as a part of the largest number. */
function worst(got: readonly number[], wanted: readonly number[]): number {
  expect(got.length).toBe(wanted.length);
  const size = Math.max(...wanted.map(Math.abs));
  return got.reduce((most, value, i) => Math.max(most, Math.abs(value - wanted[i]!)), 0) / size;
}

/** Rows 0, 17, 34, … of each of two images. */
function kept(rows: Tensor): number[] {
  const [count = 0, width = 0] = rows.shape;
  const values = rows.toArray();
  const per = count / 2;
  const found: number[] = [];
  for (const image of [0, 1])
    for (let row = 0; row < per; row += step)
      found.push(...values.slice((image * per + row) * width, (image * per + row + 1) * width));
  return found;
}

const loaded = (name: string, changes: TowerChanges = {}): Promise<VisionTower> =>
  loadVisionTower(join(golden, name), { changes });

const features = (tower: VisionTower, x: Tensor): Tensor => noGrad(() => tower.forward(x));

describe('towers agree with transformers', () => {
  const cases = [
    { name: 'clip-32', side: 224, resized: [], pool: 'class' },
    { name: 'clip-14', side: 70, resized: [98, 56, 336], pool: 'class' },
    { name: 'siglip-14', side: 60, resized: [84, 384], pool: 'attention' },
    { name: 'siglip-16', side: 48, resized: [224], pool: undefined },
  ] as const;

  it.each(cases)(
    '$name: every hidden state, pooled output, other resolutions',
    async ({ name, side, resized, pool }) => {
      const expected = readSafetensors(join(golden, name, 'expected.safetensors'));
      using x = pixels(2, side);
      const layers = [...expected.keys()].filter((key) => key.startsWith('hidden.')).length - 1;
      expect(layers).toBeGreaterThan(1);
      for (let layer = 0; layer <= layers; layer += 1) {
        for (const selectLayer of [layer, layer - layers - 1]) {
          using tower = await loaded(name, { selectLayer, selectFeature: 'full' });
          expect(tower.blocks).toHaveLength(layer);
          using out = features(tower, x);
          expect(out.shape).toEqual([2 * tower.tokensPerImage, tower.featureWidth]);
          expect(worst(kept(out), expected.get(`hidden.${layer}`)!.toArray()), `${layer}`).toBeLessThan(1e-5);
        }
      }
      if (pool) {
        using tower = await loaded(name, { pool });
        using out = noGrad(() => tower.pooled(x));
        expect(worst(out.toArray(), expected.get('pooled')!.toArray())).toBeLessThan(1e-5);
      }
      for (const resolution of resized) {
        using tower = await loaded(name, { resolution, selectFeature: 'full' });
        expect(tower.imageSize).toBe(resolution);
        using other = pixels(2, resolution);
        using out = features(tower, other);
        expect(
          worst(kept(out), expected.get(`resized.${resolution}`)!.toArray()),
          `${resolution}`,
        ).toBeLessThan(1e-5);
      }
      for (const t of expected.values()) t.dispose();
    },
  );

  it.each(['clip-14', 'siglip-16'])('%s: features at scales 1 and 3', async (name) => {
    const expected = readSafetensors(join(golden, name, 'expected.safetensors'));
    using tower = await loaded(name, { selectLayer: -2, scales: [1, 3] });
    using x = pixels(2, tower.imageSize);
    using out = features(tower, x);
    const wanted = expected.get('scales')!;
    expect(out.shape).toEqual([wanted.shape[0]! * wanted.shape[1]!, wanted.shape[2]]);
    expect(worst(out.toArray(), wanted.toArray())).toBeLessThan(1e-5);
    for (const t of expected.values()) t.dispose();
  });

  it.each(['clip-14', 'siglip-14'])('%s: gradients, with and without recomputation', async (name) => {
    const expected = readSafetensors(join(golden, name, 'expected.safetensors'));
    using tower = await loaded(name, { selectFeature: 'full' });
    using x = pixels(2, tower.imageSize);
    const names = [...expected.keys()].filter((key) => key.startsWith('gradient.'));
    expect(names.length).toBeGreaterThan(7);
    for (const recompute of [false, true]) {
      tower.activationCheckpointing = recompute;
      tower.zeroGrad();
      scope(() => {
        mean(square(tower.forward(x))).backward();
        const ours = fileTensorsOf(
          towerLayout(tower.config, ''),
          [...tower.namedParameters()].map(([key, p]) => [key, p.grad!] as const),
        );
        for (const key of names) {
          const wanted = expected.get(key)!.toArray();
          const got = ours.get(key.slice('gradient.'.length))!.toArray().slice(0, wanted.length);
          expect(worst(got, wanted), key).toBeLessThan(2e-5);
        }
      });
    }
    for (const t of expected.values()) t.dispose();
  });

  it.each(cases)('$name: gives back the tensors that it was read from', async ({ name, pool }) => {
    const whole = readSafetensors(join(golden, name, 'model.safetensors'));
    using tower = await loaded(name, pool ? { pool } : {});
    const prefix = name === 'clip-32' ? 'vision_model.' : '';
    scope(() => {
      const written = towerTensors(tower, prefix);
      expect([...written.keys()].sort()).toEqual([...whole.keys()].sort());
      for (const [key, t] of written) {
        expect(t.shape, key).toEqual(whole.get(key)!.shape);
        if (pool || !key.includes('post_layernorm'))
          expect(t.toArray(), key).toEqual(whole.get(key)!.toArray());
      }
    });
    for (const t of whole.values()) t.dispose();
  });
});

describe('the contrastive loss of SigLIP', () => {
  it('agrees with transformers, gradients too', () => {
    const expected = readSafetensors(join(golden, 'contrastive.safetensors'));
    const names = ['images', 'texts', 'scale', 'bias'] as const;
    const [images, texts, factor, bias] = names.map((name) => parameter(expected.get(name)!)) as [
      Tensor,
      Tensor,
      Tensor,
      Tensor,
    ];
    scope(() => {
      const logits = noGrad(() => imageTextLogits(images, texts, factor, bias));
      expect(worst(logits.toArray(), expected.get('logits')!.toArray())).toBeLessThan(1e-12);
      const loss = sigmoidContrastiveLoss(images, texts, factor, bias);
      expect(Math.abs(loss.item() - expected.get('loss')!.item())).toBeLessThan(1e-12);
      loss.backward();
      for (const name of names)
        expect(
          worst(expected.get(name)!.grad!.toArray(), expected.get(`gradient.${name}`)!.toArray()),
          name,
        ).toBeLessThan(1e-10);
    });
    for (const t of expected.values()) {
      t.grad?.dispose();
      t.dispose();
    }
  });
});
