import { describe, expect, it } from 'vitest';
import {
  countParameters,
  LanguageModel,
  type LanguageModelOptions,
  parameterReport,
  resolveLanguageModelConfig,
  resolveLayers,
} from '../../ts/models/language/index.ts';
import { memory } from '../../ts/tensor/index.ts';
import { tinyConfig, tinyLibmoe, tinyMoe } from './tiny.ts';

/** LibMoE's two sizes. */
const libmoe = (d: number, layers: number, headDim: number, hidden: number): LanguageModelOptions => ({
  vocabularySize: 8000,
  dModel: d,
  layers,
  heads: 4,
  headDim,
  norm: 'layernorm',
  rotary: { fraction: 0.5 },
  outputBias: true,
  maxPositions: 1024,
  init: 'libmoe',
  moe: { experts: 66, topK: 8, expert: { hidden, activation: 'relu', gated: false } },
});
const small = libmoe(512, 16, 82, 128);
const large = libmoe(1024, 18, 128, 256);
const denseOf = ({ moe: _, ...rest }: LanguageModelOptions): LanguageModelOptions => ({
  ...rest,
  feedForward: { hidden: 2 * rest.dModel, activation: 'relu', gated: false, bias: true },
});

describe('parameterReport', () => {
  it("gives LibMoE's published sizes", () => {
    expect(countParameters(small)).toBe(157_934_400);
    expect(countParameters(large)).toBe(678_287_168);
    const report = parameterReport(small);
    expect(report.active).toBe(157_934_400 - 16 * 58 * 2 * 512 * 128);
    expect(report.routedExperts).toBe(16 * 8_650_752);
    expect(countParameters(denseOf(small))).toBe(35_783_488);
    expect(countParameters(denseOf(large))).toBe(129_769_280);
    expect(resolveLanguageModelConfig(small).rotary.dims).toBe(40);
    expect(resolveLanguageModelConfig(large).rotary.dims).toBe(64);
  });

  it('agrees with models that were really made', () => {
    const shared: LanguageModelOptions = {
      ...tinyLibmoe,
      attentionBias: true,
      moe: {
        layers: [0, 2],
        experts: 5,
        topK: 2,
        expert: { hidden: 8, bias: true },
        shared: { hidden: 12 },
        router: { name: 'sigmoid' },
      },
    };
    for (const config of [tinyConfig, tinyLibmoe, tinyMoe, shared, { ...tinyConfig, tieEmbeddings: true }]) {
      using model = new LanguageModel(config, { seed: 'later' });
      expect(countParameters(config)).toBe(model.parameterCount());
    }
  });

  it('counts operations by its formula', () => {
    const { flopsPerToken } = parameterReport({ ...tinyConfig, layers: 1 }, 4);
    const products = 50 * 24 + 24 * 24 + 2 * 24 * 12 + 24 * 24 + 3 * 24 * 40;
    expect(flopsPerToken).toBe(3 * (2 * products + 4 * 24 * 2.5));
    const windowed = parameterReport({ ...tinyConfig, layers: 1, window: 2 }, 4);
    expect(windowed.flopsPerToken).toBe(3 * (2 * products + 4 * 24 * 1.75));
  });
});

describe('language model configuration', () => {
  it('writes defaults out, and takes its own result unchanged', () => {
    const config = resolveLanguageModelConfig(tinyMoe);
    expect(config).toMatchObject({
      headDim: 6,
      keyValueHeads: 2,
      rotary: { dims: 6, base: 10000 },
      eps: 1e-5,
      attentionOutputBias: false,
    });
    expect(config.moe).toMatchObject({
      router: { name: 'smoe' },
      sharedMix: 'sum',
      routedScaling: 1,
      compat: 'fixed',
    });
    expect(resolveLanguageModelConfig(JSON.parse(JSON.stringify(config)))).toEqual(config);
  });

  it('selects layers', () => {
    expect(resolveLayers('all', 3)).toEqual([0, 1, 2]);
    expect(resolveLayers('every:2', 5)).toEqual([1, 3]);
    expect(resolveLayers([2, 0], 3)).toEqual([0, 2]);
    expect(() => resolveLayers('every:4', 3)).toThrow(/selects none of 3 layers/);
    expect(() => resolveLayers([0, 3], 3)).toThrow(/layer 3 does not exist: there are 0 to 2/);
    expect(() => resolveLayers([1, 1], 3)).toThrow(/named twice/);
  });

  const bad: [string, object, RegExp][] = [
    ['an unknown key', { vocabularySiz: 3 }, /unknown key "vocabularySiz", did you mean "vocabularySize"\?/],
    [
      'an unknown nested key',
      { feedForward: { hidden: 4, biass: true } },
      /unknown key "feedForward.biass", did you mean "bias"\?/,
    ],
    ['heads that do not divide', { keyValueHeads: 3 }, /heads 4 must be a multiple of keyValueHeads 3/],
    ['a fractional size', { dModel: 2.5 }, /dModel: /],
    ['both rotary forms', { rotary: { dims: 2, fraction: 0.5 } }, /dims or fraction, not both/],
    ['too many rotary dims', { rotary: { dims: 8 } }, /between 2 and headDim 6, got 8/],
    [
      'tied and biased output',
      { tieEmbeddings: true, outputBias: true },
      /outputBias needs a projection of its own/,
    ],
    [
      'topK > experts',
      { moe: { experts: 2, topK: 3, expert: { hidden: 4 } } },
      /topK 3 is more than the 2 experts/,
    ],
    [
      'an unknown router',
      { moe: { experts: 2, topK: 1, expert: { hidden: 4 }, router: { name: 'smoo' } } },
      /no router "smoo", did you mean "smoe"/,
    ],
    [
      'a router option that does not exist',
      { moe: { experts: 2, topK: 1, expert: { hidden: 4 }, router: { name: 'smoe', tau: 1 } } },
      /ERR_LIBMOE_CONFIG.*tau/,
    ],
    [
      'half of nothing',
      { moe: { experts: 2, topK: 1, expert: { hidden: 4 }, sharedMix: 'half' } },
      /needs moe.shared/,
    ],
    [
      'layers that do not exist',
      { moe: { experts: 2, topK: 1, expert: { hidden: 4 }, layers: [7] } },
      /layer 7 does not exist/,
    ],
  ];
  it.each(bad)('refuses %s and allocates nothing', (_, change, message) => {
    const before = memory().tensors;
    const make = (): LanguageModel => new LanguageModel({ ...tinyConfig, ...change } as LanguageModelOptions);
    expect(make).toThrow(/ERR_LIBMOE_CONFIG/);
    expect(make).toThrow(message);
    expect(memory().tensors).toBe(before);
  });

  it('needs a dense layer where there is one', () => {
    const { feedForward: _, ...rest } = tinyMoe;
    expect(() => resolveLanguageModelConfig(rest)).toThrow(/set feedForward/);
    expect(
      resolveLanguageModelConfig({ ...rest, moe: { ...tinyMoe.moe!, layers: 'all' } }).feedForward.hidden,
    ).toBe(16);
  });
});
