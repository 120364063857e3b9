import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, describe, expect, it } from 'vitest';
import {
  configOf,
  isVisionLanguageCheckpoint,
  loadAnyModel,
  loadVisionLanguageModel,
  newVisionLanguageModel,
  readVisionLanguageConfig,
  readVisionLanguageWeights,
  saveVisionLanguageModel,
  type VisionLanguageModel,
} from '../../../ts/models/vision-language/index.ts';
import { readSafetensors, writeSafetensors } from '../../../ts/storage/safetensors.ts';
import { noGrad, scope, type Tensor } from '../../../ts/tensor/index.ts';

// Weights and expectations made by transformers: test/golden/vision-language/make.py
const golden = fileURLToPath(new URL('../../golden/vision-language', import.meta.url));
const temporary = mkdtempSync(join(tmpdir(), 'libmoe-vlm-'));
afterAll(() => rmSync(temporary, { recursive: true, force: true }));

function worst(got: readonly number[], wanted: readonly number[]): number {
  expect(got.length).toBe(wanted.length);
  return got.reduce((most, value, i) => Math.max(most, Math.abs(value - wanted[i]!)), 0);
}

/** The batch of a golden folder, and everything expected of it. */
function expectedIn(name: string) {
  const tensors = readSafetensors(join(golden, name, 'expected.safetensors'));
  const array = (key: string): number[] => tensors.get(key)!.toArray();
  const ints = (key: string): Int32Array => Int32Array.from(array(key));
  const pixels = tensors.get('pixels')!;
  const images = {
    pixels: pixels.readSync() as Float32Array,
    count: pixels.shape[0]!,
    side: pixels.shape[2]!,
    starts: ints('starts'),
  };
  const found = {
    batch: { ids: ints('ids'), targets: ints('targets'), sequenceOffsets: ints('offsets'), images },
    logits: array('logits'),
    loss: array('loss')[0]!,
    gradients: [...tensors.keys()]
      .filter((key) => key.startsWith('gradient.'))
      .map((key) => [key.slice('gradient.'.length), array(key)] as const),
  };
  for (const t of tensors.values()) t.dispose();
  return found;
}

const logitsOf = (model: VisionLanguageModel, batch: ReturnType<typeof expectedIn>['batch']): number[] =>
  noGrad(() => scope(() => model.logits(model.forward(batch)).toArray()));

/** The folder with its tensors called otherwise. */
function renamed(name: string, to: string, rename: (tensor: string) => string): string {
  const folder = join(temporary, to);
  mkdirSync(folder);
  writeFileSync(join(folder, 'config.json'), readFileSync(join(golden, name, 'config.json')));
  const tensors = readSafetensors(join(golden, name, 'model.safetensors'));
  const entries = [...tensors].map(([key, t]): [string, Tensor] => [rename(key), t]);
  writeSafetensors(join(folder, 'model.safetensors'), new Map(entries));
  for (const t of tensors.values()) t.dispose();
  return folder;
}

describe.each(['siglip-llama', 'clip-phi3'])('LLaVA of transformers, %s', (name) => {
  it('gives the same logits, loss and gradients for 0, 1 and 2 images per sequence, packed', async () => {
    const { batch, logits, loss, gradients } = expectedIn(name);
    using model = await loadVisionLanguageModel(join(golden, name));
    expect(worst(logitsOf(model, batch), logits)).toBeLessThan(1e-4);
    for (const again of [false, true]) {
      model.activationCheckpointing = again;
      scope(() => {
        const ours = model.loss(batch);
        expect(Math.abs(ours.item() - loss)).toBeLessThan(1e-5);
        ours.backward();
      });
      for (const [parameter, wanted] of gradients) {
        const own = model.namedParameters().get(parameter)!.grad!.toArray();
        const largest = wanted.reduce((most, g) => Math.max(most, Math.abs(g)), 0);
        expect(worst(own, wanted) / largest, parameter).toBeLessThan(1e-4);
      }
      model.zeroGrad();
    }
  });

  it('reads the names of other versions of transformers', async () => {
    const { batch, logits } = expectedIn(name);
    const older = (key: string): string =>
      key.replace(/^vision_tower\.(?!vision_model\.)/, 'vision_tower.vision_model.');
    const flat = (key: string): string =>
      /^language_model\.lm_head/.test(key)
        ? key.slice('language_model.'.length)
        : `model.${key.replace(/^language_model\.model\./, 'language_model.')}`;
    for (const [form, rename] of [
      ['older', older],
      ['flat', flat],
    ] as const) {
      using model = await loadVisionLanguageModel(renamed(name, `${name}-${form}`, rename));
      expect(worst(logitsOf(model, batch), logits)).toBeLessThan(1e-4);
    }
  });

  it('is saved as LLaVA and loads again with the same bits', async () => {
    const { batch } = expectedIn(name);
    const folder = join(temporary, `${name}-saved`);
    using model = await loadVisionLanguageModel(join(golden, name));
    await saveVisionLanguageModel(model, folder, { family: 'public' });
    expect(isVisionLanguageCheckpoint(folder)).toBe(true);
    const { json } = readVisionLanguageConfig(folder);
    expect(json.architectures).toEqual(['LlavaForConditionalGeneration']);
    const saved = await loadAnyModel(folder);
    expect(logitsOf(saved as VisionLanguageModel, batch)).toEqual(logitsOf(model, batch));
    saved.dispose();
    // Without our own block, as another reader sees it.
    const { libmoe: _, ...public_ } = json;
    writeFileSync(join(folder, 'config.json'), JSON.stringify(public_));
    rmSync(join(folder, 'checksums.json'), { force: true });
    using other = await loadVisionLanguageModel(folder);
    expect(logitsOf(other, batch)).toEqual(logitsOf(model, batch));
  });
});

it('saves what LLaVA has not under our own names, the same bits again', async () => {
  const folder = join(temporary, 'own');
  using model = newVisionLanguageModel(
    {
      vision: {
        kind: 'clip',
        imageSize: 16,
        patchSize: 8,
        dModel: 8,
        layers: 2,
        heads: 2,
        hidden: 12,
        scales: [1, 2],
        moe: { experts: 3, topK: 2 },
      },
      projector: {
        type: 'moe',
        pixelShuffle: 2,
        moe: { experts: 4, topK: 2, shared: true, sharedMix: 'half' },
      },
      language: { vocabularySize: 20, dModel: 12, layers: 1, heads: 2, feedForward: { hidden: 8 } },
      imageTokenId: 25,
      compat: 'libmoe',
    },
    { seed: 2 },
  );
  await expect(saveVisionLanguageModel(model, folder, { family: 'public' })).rejects.toThrow(
    /ERR_LIBMOE_UNSUPPORTED.*mixture of experts in the vision tower; the scales \[1, 2\]; a projector "moe"; pixelShuffle 2/,
  );
  await saveVisionLanguageModel(model, folder);
  using again = await loadVisionLanguageModel(folder);
  expect(configOf(again)).toEqual(configOf(model));
  expect(again.tokensPerImage).toBe(1);
  const pixels = Float32Array.from({ length: 3 * 256 }, (_, i) => Math.sin(i));
  const batch = {
    ids: Int32Array.of(3, 25, 4),
    targets: Int32Array.of(-1, 4, -1),
    sequenceOffsets: Int32Array.of(0, 3),
    images: { pixels, count: 1, side: 16, starts: Int32Array.of(1) },
  };
  expect(logitsOf(again, batch)).toEqual(logitsOf(model, batch));
  readVisionLanguageWeights(again, folder);
});
