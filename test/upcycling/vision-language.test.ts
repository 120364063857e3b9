import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';
import { packSequences } from '../../ts/models/language/index.ts';
import {
  loadVisionLanguageModel,
  newVisionLanguageModel,
  type VisionLanguageModel,
  type VisionLanguageOptions,
} from '../../ts/models/vision-language/index.ts';
import { ForwardContext, routerDefinition, routerNames } from '../../ts/moe/index.ts';
import { memory, noGrad, scope } from '../../ts/tensor/index.ts';
import {
  upcycleVisionLanguageWithReport,
  type VisionLanguageUpcycleOptions,
} from '../../ts/upcycling/vision-language.ts';
import { someIds, tinyConfig } from '../models/tiny.ts';

const golden = fileURLToPath(new URL('../golden/vision-language', import.meta.url));
const image = 49;

const options: VisionLanguageOptions = {
  vision: {
    kind: 'siglip',
    imageSize: 16,
    patchSize: 8,
    dModel: 16,
    layers: 3,
    heads: 2,
    hidden: 20,
    selectLayer: -2,
    scales: [1, 2],
  },
  language: tinyConfig,
  imageTokenId: image,
};
const tiny = (projector: VisionLanguageOptions['projector'] = {}) =>
  newVisionLanguageModel({ ...options, projector }, { seed: 4 });

const text = someIds(9).map((id) => id % image);
const batch = {
  ...packSequences([[...text.slice(0, 3), ...Array<number>(4).fill(image), ...text.slice(3)], text]),
  images: {
    pixels: Float32Array.from({ length: 3 * 256 }, (_, i) => Math.sin(i * 0.37)),
    count: 1,
    side: 16,
    starts: Int32Array.of(3),
  },
};
const logits = (model: VisionLanguageModel, training = false): number[] =>
  noGrad(() =>
    scope(() => {
      using context = new ForwardContext({ training });
      return model.logits(model.forward(batch, context)).toArray();
    }),
  );
const worst = (a: readonly number[], b: readonly number[]): number =>
  a.reduce((most, value, i) => Math.max(most, Math.abs(value - b[i]!)), 0);

/** What a router needs to be a fair trial: options without which its weights do not sum to 1, or none does. */
const routers = routerNames().filter((name) => !routerDefinition(name).byTokenId);

describe('upcycling of tower and projector', () => {
  it.each(routers)('%s computes what the dense model does, or the report says why not', (name) => {
    using dense = tiny();
    const { model, report } = upcycleVisionLanguageWithReport(dense, {
      experts: 4,
      topK: 2,
      router: name,
      seed: 3,
    });
    using upcycled = model;
    const difference = worst(logits(dense), logits(upcycled));
    if (report.unlikeDense.length === 0) expect(difference).toBeLessThan(1e-5);
    else {
      expect(difference).toBeGreaterThan(1e-6);
      expect(report.unlikeDense.every((why) => /^(vision|projector): router /.test(why))).toBe(true);
    }
    expect(report.leftOut).toEqual([]);
    expect(report.layers).toEqual({ vision: [0, 1], projector: [0] });
    // LibMoE: the projector of moe++ is a plain smoe, where widths differ.
    expect(upcycled.projector.config.moe!.router.name).toBe(name === 'moe++' ? 'smoe' : name);
    expect(report.notes).toHaveLength(name === 'moe++' ? 1 : 0);
  });

  it('starts at the dense logits for the methods of LibMoE whose weights sum to 1', () => {
    using dense = tiny();
    for (const router of ['smoe', 'sigmoid', 'xmoe', 'shared-v2', 'shared-v3']) {
      const { model, report } = upcycleVisionLanguageWithReport(dense, { experts: 4, topK: 2, router });
      expect(report.unlikeDense, router).toEqual([]);
      expect(worst(logits(dense), logits(model)), router).toBeLessThan(1e-5);
      if (router.startsWith('shared')) expect(model.projector.moe!.sharedMix).toBe('half');
      model.dispose();
    }
  });

  it('also of the language model, of LLaVA checkpoints, and of a projector with pixel shuffle', async () => {
    using llava = await loadVisionLanguageModel(join(golden, 'siglip-llama'));
    const parts: VisionLanguageUpcycleOptions['parts'] = ['vision', 'projector', 'language'];
    const { model, report } = upcycleVisionLanguageWithReport(llava, {
      experts: 3,
      topK: 2,
      parts: [...parts],
      layers: 'every:2',
    });
    using all = model;
    const starts = Int32Array.of(1);
    const pixels = Float32Array.from({ length: 3 * 42 * 42 }, (_, i) => Math.sin(i * 0.11));
    const own = {
      ...packSequences([[5, ...Array<number>(9).fill(57), 6]]),
      images: { pixels, count: 1, side: 42, starts },
    };
    const of = (m: VisionLanguageModel): number[] =>
      noGrad(() => scope(() => m.logits(m.forward(own)).toArray()));
    expect(worst(of(llava), of(all))).toBeLessThan(1e-4);
    expect(report.layers).toEqual({ vision: [1], projector: [0], language: [1] });
    expect(report.initialised.sort()).toEqual([
      'language.blocks.1.moe.router.weight',
      'projector.moe.router.weight',
      'vision.blocks.1.moe.router.weight',
    ]);
    expect(all.language.family).toBe('LlamaForCausalLM');
    using shuffled = tiny({ pixelShuffle: 2 });
    const again = upcycleVisionLanguageWithReport(shuffled, {
      experts: 3,
      topK: 2,
      parts: ['projector'],
      router: 'shared-v2',
    });
    using mixed = again.model;
    const short = { ...packSequences([[5, image, 6]]), images: batch.images };
    const brief = { ...short, images: { ...short.images, starts: Int32Array.of(1) } };
    const shortOf = (m: VisionLanguageModel): number[] =>
      noGrad(() => scope(() => m.logits(m.forward(brief)).toArray()));
    expect(worst(shortOf(shuffled), shortOf(mixed))).toBeLessThan(1e-5);
    expect(mixed.vision.config.moe).toBeUndefined();
  });

  it('draws experts from scratch when asked, and says what is lost', () => {
    using dense = tiny();
    const asked: VisionLanguageUpcycleOptions = { experts: 4, topK: 2, fromScratch: true, seed: 1 };
    const { model, report } = upcycleVisionLanguageWithReport(dense, asked);
    using scratch = model;
    expect(report.leftOut).toContain('vision.blocks.0.moe.experts.up');
    expect(report.leftOut).toContain('projector.moe.experts.down');
    expect(report.replicated).toEqual([]);
    expect(report.unlikeDense.join()).toMatch(/vision: fromScratch.*projector: fromScratch/);
    const experts = scratch.projector.moe!.namedParameters().get('experts.up')!.toArray();
    const each = experts.length / 4;
    expect(experts.slice(0, each)).not.toEqual(experts.slice(each, 2 * each));
    expect(worst(logits(dense), logits(scratch))).toBeGreaterThan(1e-3);
    expect(scratch.vision.stateDict().get('blocks.0.attention.query.weight')!.toArray()).toEqual(
      dense.vision.stateDict().get('blocks.0.attention.query.weight')!.toArray(),
    );
  });

  it('adds noise to experts of either width, and draws routers of the parts apart', () => {
    using dense = tiny();
    const { model, report } = upcycleVisionLanguageWithReport(dense, {
      experts: 4,
      topK: 2,
      expertNoise: { reinitialise: 0.5, keepFirst: true },
    });
    using noisy = model;
    expect(report.expertNoise).toEqual({
      vision: { changed: 3, experts: 4, units: 10, hidden: 20 },
      projector: { changed: 3, experts: 4, units: 12, hidden: 24 },
    });
    const up = noisy.projector.moe!.namedParameters().get('experts.up')!;
    const each = up.size / 4;
    const dense0 = dense.projector.layers[0]!.weight.toArray();
    const values = up.toArray();
    const width = dense0.length / 24;
    const changed = (expert: number): number =>
      Array.from({ length: 24 }, (_, unit) => {
        const at = expert * each + unit * width;
        return values.slice(at, at + width).some((v, i) => v !== dense0[unit * width + i]);
      }).filter(Boolean).length;
    expect([0, 1, 2, 3].map(changed)).toEqual([0, 12, 12, 12]);
    const router = (layer: number) =>
      noisy.vision.blocks[layer]!.moe!.router.namedParameters().get('weight')!.toArray();
    expect(router(0)).not.toEqual(router(1));
  });

  it('refuses what cannot be upcycled, and leaves nothing behind', () => {
    using dense = tiny();
    using linear = tiny({ type: 'linear' });
    const { model } = upcycleVisionLanguageWithReport(dense, { experts: 2, topK: 1, parts: ['projector'] });
    using mixed = model;
    const before = memory().tensors;
    const refused = (from: typeof dense, more: object, message: RegExp): void => {
      const asked = { experts: 4, topK: 2, ...more } as VisionLanguageUpcycleOptions;
      expect(() => upcycleVisionLanguageWithReport(from, asked)).toThrow(message);
    };
    refused(linear, {}, /ERR_LIBMOE_CONFIG.*the projector is "linear"/);
    refused(mixed, {}, /ERR_LIBMOE_CONFIG.*projector already is a mixture/);
    refused(dense, { router: 'hash' }, /ERR_LIBMOE_CONFIG.*"hash" goes by the ids of tokens/);
    refused(dense, { parts: ['tower'] }, /ERR_LIBMOE_CONFIG.*vision, projector, language/);
    refused(dense, { layers: [2] }, /ERR_LIBMOE_CONFIG.*layer 2 does not exist/);
    refused(dense, { fromScratch: true, expertNoise: { perturb: 1 } }, /ERR_LIBMOE_CONFIG.*expertNoise/);
    refused(dense, { experts: 1 }, /topK 2/);
    expect(memory().tensors).toBe(before);
  });
});
