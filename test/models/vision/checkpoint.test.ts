import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import {
  loadVisionTower,
  readVisionTowerConfig,
  saveVisionTower,
  towerPrefixIn,
  visionConfigOf,
} from '../../../ts/models/vision/index.ts';
import { openSafetensors, readSafetensors, writeSafetensors } from '../../../ts/storage/safetensors.ts';
import { noGrad, scope } from '../../../ts/tensor/index.ts';
import { somePixels, tinyClip, tinyExperts, tinySiglip, tinyTower } from './tiny.ts';

const golden = fileURLToPath(new URL('../../golden/vision', import.meta.url));
let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'libmoe-tower-'));
});
afterAll(() => rmSync(folder, { recursive: true }));

describe('the folder of a tower', () => {
  it.each([
    ['siglip', { ...tinySiglip, pool: 'attention' }],
    ['siglip-part', { ...tinySiglip, selectLayer: -2, scales: [1, 2] }],
    ['clip', { ...tinyClip, pool: 'class' }],
    ['clip-part', { ...tinyClip, selectLayer: 2, selectFeature: 'full' }],
    [
      'moe',
      { ...tinyClip, selectLayer: -2, moe: { ...tinyExperts, layers: [0, 2], router: { name: 'xmoe' } } },
    ],
  ] as const)('%s: comes back with the same bits', async (name, config) => {
    const place = join(folder, name);
    using tower = tinyTower(config as Parameters<typeof tinyTower>[0]);
    await saveVisionTower(tower, place);
    using again = await loadVisionTower(place);
    expect(again.config).toEqual(tower.config);
    expect(again.checkpoint).toBe(place);
    const state = tower.stateDict();
    for (const [key, t] of again.stateDict()) expect(t.toArray(), key).toEqual(state.get(key)!.toArray());
    const json = JSON.parse(readFileSync(join(place, 'config.json'), 'utf8'));
    expect(json.num_hidden_layers).toBe(tower.blocks.length);
    expect(json.hidden_act).toBe(tower.config.kind === 'clip' ? 'quick_gelu' : 'gelu_pytorch_tanh');
    expect(json.architectures).toEqual([
      name === 'moe'
        ? 'LibMoeVisionTower'
        : name.startsWith('clip')
          ? 'CLIPVisionModel'
          : 'SiglipVisionModel',
    ]);
    if (name === 'moe') return;
    // What transformers reads: the libmoe block aside it is a tower of as many layers.
    const { libmoe: _, ...theirs } = json;
    const plain = join(folder, `${name}-plain`);
    cpSync(place, plain, { recursive: true });
    rmSync(join(plain, 'checksums.json'));
    writeFileSync(join(plain, 'config.json'), JSON.stringify(theirs));
    using read = await loadVisionTower(plain, {
      changes: { selectFeature: tower.config.selectFeature, scales: tower.config.scales },
    });
    using x = somePixels(1, 12);
    scope(() => {
      const [a, b] = noGrad(() => [tower.forward(x), read.forward(x)]);
      expect(b!.toArray()).toEqual(a!.toArray());
    });
  });

  it('may be that of a model with other parts', async () => {
    const whole = join(folder, 'llava');
    cpSync(join(golden, 'clip-14'), whole, { recursive: true });
    const tower = readSafetensors(join(golden, 'clip-14', 'model.safetensors'));
    const named = [...tower].map(([name, t]) => [`vision_tower.vision_model.${name}`, t] as const);
    writeSafetensors(
      join(whole, 'model.safetensors'),
      new Map([...named, ['language_model.lm_head.weight', named[0]![1]]]),
    );
    const { model_type, ...rest } = JSON.parse(readFileSync(join(whole, 'config.json'), 'utf8'));
    const json = {
      model_type: 'llava',
      vision_config: { model_type, ...rest },
      vision_feature_layer: -2,
      vision_feature_select_strategy: 'default',
    };
    writeFileSync(join(whole, 'config.json'), JSON.stringify(json));
    expect(towerPrefixIn(openSafetensors(whole), whole)).toBe('vision_tower.vision_model.');
    using inside = await loadVisionTower(whole);
    expect(inside.config).toMatchObject({ kind: 'clip', selectLayer: -2, selectFeature: 'patch' });
    expect(inside.blocks).toHaveLength(3);
    expect(inside.blocks[2]!.feedForward!.up.toArray()).toEqual(
      tower.get('encoder.layers.2.mlp.fc1.weight')!.toArray(),
    );
    for (const t of tower.values()) t.dispose();
  });

  it('names what is missing and what does not belong', async () => {
    const place = join(folder, 'short');
    cpSync(join(golden, 'clip-14'), place, { recursive: true });
    const tensors = readSafetensors(join(place, 'model.safetensors'));
    const kept = new Map([...tensors].filter(([name]) => !name.startsWith('encoder.layers.1.mlp.fc1')));
    writeSafetensors(
      join(place, 'model.safetensors'),
      new Map([...kept, ['encoder.layers.0.extra', tensors.get('pre_layrnorm.bias')!]]),
    );
    for (const t of tensors.values()) t.dispose();
    await expect(loadVisionTower(place)).rejects.toThrow(
      /ERR_LIBMOE_CHECKPOINT.*missing: encoder.layers.1.mlp.fc1.weight, encoder.layers.1.mlp.fc1.bias; unexpected: encoder.layers.0.extra/,
    );
    await expect(loadVisionTower(join(folder, 'nowhere'))).rejects.toThrow(/ERR_LIBMOE_/);
    expect(readVisionTowerConfig(place, { scales: [1, 3] }).scales).toEqual([1, 3]);
  });
});

describe('a config.json of Hugging Face', () => {
  const read = (json: Parameters<typeof visionConfigOf>[0]) => visionConfigOf(json, 'config.json');

  it('may leave out what its family assumes', () => {
    expect(read({ model_type: 'siglip_vision_model' })).toMatchObject({
      kind: 'siglip',
      patchSize: 16,
      activation: 'geluTanh',
      eps: 1e-6,
      layers: 12,
    });
    expect(read({ model_type: 'clip', vision_config: { image_size: [336, 336] } })).toMatchObject({
      kind: 'clip',
      imageSize: 336,
      patchSize: 32,
      activation: 'quickGelu',
      eps: 1e-5,
    });
  });

  it('is refused where ours differs', () => {
    expect(() => read({ model_type: 'dinov2' })).toThrow(
      /ERR_LIBMOE_CONFIG: config.json: "model_type" "dinov2" is no vision tower/,
    );
    expect(() => read({ model_type: 'clip_vision_model', num_channels: 1 })).toThrow(
      /"num_channels": 1 is not supported/,
    );
    expect(() => read({ model_type: 'clip_vision_model', image_size: [2, 3] })).toThrow(
      /"image_size" must be a square/,
    );
    const llava = {
      model_type: 'llava',
      vision_config: { model_type: 'siglip_vision_model' },
      vision_feature_layer: -2,
    };
    expect(() => read(llava)).toThrow(/leaves out the first patch/);
    expect(() => read({ ...llava, vision_feature_layer: [-2, -5] })).toThrow(
      /a list of "vision_feature_layer"/,
    );
  });
});
