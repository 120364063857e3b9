import { describe, expect, it } from 'vitest';
import {
  type LanguageModel,
  type LanguageModelOptions,
  packSequences,
} from '../../ts/models/language/index.ts';
import { memory, noGrad, scope } from '../../ts/tensor/index.ts';
import { type UpcycleOptions, upcycle, upcycleWithReport } from '../../ts/upcycling/index.ts';
import { someIds, tinyConfig, tinyLibmoe, tinyModel, tinyMoe } from '../models/tiny.ts';

const batch = packSequences([someIds(30), someIds(11, 1)]);
const logits = (model: LanguageModel): number[] =>
  noGrad(() => scope(() => model.logits(model.forward(batch)).toArray()));
const worst = (a: number[], b: number[]): number =>
  a.reduce((most, value, i) => Math.max(most, Math.abs(value - b[i]!)), 0);

describe('upcycling', () => {
  const forms: [string, LanguageModelOptions][] = [
    ['Llama', tinyConfig],
    ['LibMoE', tinyLibmoe],
    ['tied', { ...tinyConfig, tieEmbeddings: true, attentionBias: true }],
    ["Qwen3's", { ...tinyConfig, qkNorm: 'head', window: [8, null, 8] }],
    ["GPT-2's", { ...tinyLibmoe, outputBias: false, positions: 'learned', tieEmbeddings: true }],
  ];
  const kinds: UpcycleOptions[] = [
    { experts: 4, topK: 2 },
    { experts: 6, topK: 3, router: 'sigmoid', layers: 'every:2' },
    {
      experts: 3,
      topK: 1,
      router: { name: 'smoe', zCoefficient: 0.001 },
      layers: [0, 2],
      shared: true,
      seed: 7,
    },
    { experts: 5, topK: 2, router: 'sigmoid', shared: true },
  ];
  for (const [form, config] of forms) {
    it.each(kinds)(`${form} with %o computes what the dense model does`, async (options) => {
      using dense = tinyModel(config);
      using model = await upcycle(dense, options);
      expect(worst(logits(dense), logits(model))).toBeLessThan(1e-5);
    });
  }

  it('reports what was copied and what is new', () => {
    using dense = tinyModel(tinyLibmoe);
    dense.specialTokens = { eos_token_id: 7 };
    const { model, report } = upcycleWithReport(dense, { experts: 4, topK: 2, layers: [1], shared: true });
    expect(report.layers).toEqual([1]);
    expect(model.specialTokens).toEqual({ eos_token_id: 7 });
    expect(report.initialised).toEqual(['blocks.1.moe.router.weight']);
    expect(report.replicated).toContainEqual({
      from: 'blocks.1.feedForward.up',
      to: 'blocks.1.moe.experts.up',
      copies: 4,
    });
    expect(report.replicated).toContainEqual({
      from: 'blocks.1.feedForward.downBias',
      to: 'blocks.1.moe.shared.downBias',
      copies: 1,
    });
    expect(report.replicated).toHaveLength(8);
    expect([...report.copied, ...report.replicated.map(({ from }) => from)].sort()).toEqual(
      expect.arrayContaining([...dense.stateDict().keys()].sort()),
    );
    const expert = 24 * 40 * 2 + 40 + 24;
    expect(report.parameters).toEqual({
      before: dense.parameterCount(),
      after: dense.parameterCount() + 4 * expert + 4 * 24,
    });
    expect(model.parameterCount()).toBe(report.parameters.after);
    model.dispose();
  });

  it('draws routers N(0, initStd²) from the seed and the layer', async () => {
    using dense = tinyModel({ ...tinyConfig, dModel: 96, headDim: 24 });
    const router = (model: LanguageModel, layer: number): number[] =>
      model.blocks[layer]!.moe!.router.namedParameters().get('weight')!.toArray();
    using a = await upcycle(dense, { experts: 8, topK: 2, seed: 1 });
    using b = await upcycle(dense, { experts: 8, topK: 2, seed: 1 });
    using c = await upcycle(dense, { experts: 8, topK: 2, seed: 2, initStd: 0.5 });
    expect(router(a, 0)).toEqual(router(b, 0));
    expect(router(a, 0)).not.toEqual(router(a, 1));
    const std = (values: number[]): number =>
      Math.sqrt(values.reduce((sum, v) => sum + v * v, 0) / values.length);
    expect(Math.abs(std(router(a, 2)) / 0.02 - 1)).toBeLessThan(0.1);
    expect(Math.abs(std(router(c, 2)) / 0.5 - 1)).toBeLessThan(0.1);
    // LibMoE's vision-language layers all start with one matrix, as behind its published numbers
    const options = { experts: 8, topK: 2, router: { name: 'smoe', flavour: 'vision-language' } };
    using d = await upcycle(dense, { ...options, compat: 'libmoe', seed: 1 });
    using e = await upcycle(dense, { ...options, seed: 1 });
    expect(router(d, 0)).toEqual(router(d, 1));
    expect(router(e, 0)).not.toEqual(router(e, 1));
  });

  it('copies, so that training one model leaves the other', async () => {
    using dense = tinyModel();
    using model = await upcycle(dense, { experts: 2, topK: 1 });
    const before = logits(dense);
    for (const parameter of model.parameters()) parameter.write(parameter.toArray().map(() => 0));
    expect(logits(dense)).toEqual(before);
  });

  it('refuses what would lose dense weights, and leaves nothing behind', () => {
    using dense = tinyModel();
    using moe = tinyModel(tinyMoe);
    const before = memory().tensors;
    const refused = (model: LanguageModel, options: object, message: RegExp): void => {
      expect(() => upcycleWithReport(model, options as UpcycleOptions)).toThrow(message);
    };
    refused(moe, { experts: 4, topK: 2 }, /ERR_LIBMOE_CONFIG.*already has MoE layers/);
    refused(
      dense,
      { experts: 4, topK: 2, hidden: 20 },
      /ERR_LIBMOE_CONFIG.*width 20 cannot take the dense layer of width 40/,
    );
    refused(dense, { experts: 2, topK: 3 }, /ERR_LIBMOE_CONFIG.*topK 3/);
    refused(dense, { experts: 4, topK: 2, layers: [3] }, /ERR_LIBMOE_CONFIG.*layer 3 does not exist/);
    refused(dense, { experts: 4, topK: 2, router: 'smoke' }, /ERR_LIBMOE_CONFIG.*did you mean "smoe"/);
    refused(dense, { experts: 4, topk: 2 }, /ERR_LIBMOE_CONFIG.*unknown key "topk", did you mean "topK"/);
    refused(dense, { experts: 4, topK: 2, sharedMix: 'half' }, /ERR_LIBMOE_CONFIG.*shared/);
    expect(memory().tensors).toBe(before);
  });
});
