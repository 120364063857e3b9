import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { architectureOf } from '../../ts/models/language/architectures/index.ts';
import {
  LanguageModel,
  loadModel,
  parameterReport,
  resolveLanguageModelConfig,
  saveModel,
  windowsOf,
} from '../../ts/models/language/index.ts';
import type { JsonObject } from '../../ts/storage/json.ts';
import { openSafetensors, readSafetensors, writeSafetensors } from '../../ts/storage/safetensors.ts';
import { memory, noGrad, scope } from '../../ts/tensor/index.ts';

const golden = fileURLToPath(new URL('../golden/language', import.meta.url));
let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'libmoe-gpt-oss-'));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

/** The fields of the config.json of gpt-oss-20b that say what the model computes. */
const published: JsonObject = {
  architectures: ['GptOssForCausalLM'],
  model_type: 'gpt_oss',
  attention_bias: true,
  experts_per_token: 4,
  head_dim: 64,
  hidden_act: 'silu',
  hidden_size: 2880,
  initial_context_length: 4096,
  intermediate_size: 2880,
  max_position_embeddings: 131_072,
  num_attention_heads: 64,
  num_experts_per_tok: 4,
  num_hidden_layers: 24,
  num_key_value_heads: 8,
  num_local_experts: 32,
  rms_norm_eps: 1e-5,
  rope_scaling: {
    beta_fast: 32,
    beta_slow: 1,
    factor: 32,
    original_max_position_embeddings: 4096,
    rope_type: 'yarn',
    truncate: false,
  },
  rope_theta: 150_000,
  sliding_window: 128,
  swiglu_limit: 7,
  tie_word_embeddings: false,
  vocab_size: 201_088,
  quantization_config: { quant_method: 'mxfp4' },
};
const read = (json: JsonObject) =>
  resolveLanguageModelConfig(architectureOf(json, 'config.json').read(json, 'config.json'));

describe('config.json of gpt-oss', () => {
  it('as published: 20.9 billion parameters, 3.6 of them active, windows in every other layer', () => {
    const config = read(published);
    const report = parameterReport(config);
    expect(report.total).toBe(20_914_757_184);
    expect((report.active - report.embeddings / 2) / 1e9).toBeCloseTo(3.6, 1); // without the look-up of embeddings
    expect(windowsOf(config).slice(0, 4)).toEqual([128, undefined, 128, undefined]);
    expect(config.rotary).toEqual({
      dims: 64,
      base: 150_000,
      scaling: {
        kind: 'yarn',
        factor: 32,
        originalPositions: 4096,
        betaFast: 32,
        betaSlow: 1,
        truncate: false,
      },
    });
    expect(config.attentionBias && config.attentionOutputBias && config.attentionSinks).toBe(true);
    expect(parameterReport(read({ ...published, num_hidden_layers: 36, num_local_experts: 128 })).total).toBe(
      116_829_156_672,
    );
  });

  it('takes the defaults of transformers where it is silent, and refuses what would change the numbers', () => {
    const {
      rope_scaling: _,
      rope_theta: __,
      num_experts_per_tok: ___,
      sliding_window: ____,
      ...bare
    } = published;
    expect(read(bare)).toEqual(read(published));
    const layers = [...Array(23).fill('full_attention'), 'sliding_attention'] as string[];
    expect(windowsOf(read({ ...published, layer_types: layers })).indexOf(128)).toBe(23);
    const wrong: [JsonObject, RegExp][] = [
      [{ swiglu_limit: 5 }, /"swiglu_limit" than 7/],
      [{ hidden_act: 'gelu' }, /"hidden_act" than silu/],
      [{ sliding_window: null }, /needs "sliding_window"/],
      [{ layer_types: ['full_attention'] }, /"layer_types" must be a list of 24 times/],
    ];
    for (const [change, message] of wrong)
      expect(() => read({ ...published, ...change }), String(message)).toThrow(message);
  });

  it('is what a new model of that form is saved under, and no other form is', async () => {
    const options = {
      vocabularySize: 20,
      dModel: 8,
      layers: 2,
      heads: 2,
      attentionSinks: true,
      moe: {
        experts: 3,
        topK: 2,
        router: { name: 'smoe', bias: true },
        expert: { hidden: 4, activation: 'clampedSwiglu', gated: true, bias: true },
      },
    } as const;
    const nameOf = async (change: object): Promise<unknown> => {
      using model = new LanguageModel({ ...options, ...change });
      rmSync(join(folder, 'm'), { recursive: true, force: true });
      await saveModel(model, join(folder, 'm'));
      return (JSON.parse(readFileSync(join(folder, 'm/config.json'), 'utf8')) as JsonObject).architectures;
    };
    expect(await nameOf({})).toEqual(['GptOssForCausalLM']);
    expect(await nameOf({ window: [8, null], attentionBias: true })).toEqual(['GptOssForCausalLM']);
    for (const change of [
      { attentionSinks: false },
      { window: [8, 4] },
      { outputBias: true },
      { moe: { ...options.moe, router: { name: 'smoe' } } },
      { moe: { ...options.moe, layers: [1] }, feedForward: { hidden: 4 } },
      { moe: { ...options.moe, expert: { ...options.moe.expert, activation: 'quickGelu' } } },
      { moe: undefined, feedForward: { hidden: 4 } },
    ])
      expect(await nameOf(change), JSON.stringify(change)).toEqual(['LibMoeForCausalLM']);
    expect(
      () =>
        new LanguageModel({
          ...options,
          attentionBias: true,
          moe: { ...options.moe, expert: { ...options.moe.expert, gated: false } },
        }),
    ).toThrow(/ERR_LIBMOE_CONFIG.*clampedSwiglu needs gated: true/);
  });
});

describe('experts in 4-bit numbers', () => {
  const path = join(golden, 'gpt-oss-mxfp4');

  it('are dequantised as they are read: the logits of transformers', async () => {
    const expected = readSafetensors(join(path, 'expected.safetensors'));
    using model = await loadModel(path);
    scope(() => {
      const logits = noGrad(() =>
        model.logits(
          model.forward({
            ids: expected.get('ids')!.readSync() as Int32Array,
            sequenceOffsets: expected.get('offsets')!.readSync() as Int32Array,
          }),
        ),
      ).toArray();
      const wanted = expected.get('logits')!.toArray();
      const worst = logits.reduce((most, x, i) => Math.max(most, Math.abs(x - wanted[i]!)), 0);
      expect(worst).toBeLessThan(1e-4);
    });
    for (const tensor of expected.values()) tensor.dispose();
    // 4 bits fit into bf16: nothing is lost there, and saving writes them out in full.
    using rounded = await loadModel(path, { dtype: 'bf16' });
    const weights = (m: LanguageModel): number[] =>
      m.blocks[1]!.moe!.stateDict().get('experts.up')!.toArray();
    expect(weights(rounded)).toEqual(weights(model));
    await saveModel(model, join(folder, 'm'));
    expect(openSafetensors(join(folder, 'm')).names()).toContain('model.layers.0.mlp.experts.down_proj');
    using again = await loadModel(join(folder, 'm'));
    expect(weights(again)).toEqual(weights(model));
  });

  it('with blocks or scales that do not fit are refused', async () => {
    const copy = join(folder, 'm');
    const name = 'model.layers.0.mlp.experts.down_proj';
    const refused = async (
      change: (tensors: ReturnType<typeof readSafetensors>) => void,
      message: RegExp,
    ) => {
      cpSync(path, copy, { recursive: true });
      scope(() => {
        const tensors = readSafetensors(join(path, 'model.safetensors'));
        change(tensors);
        writeSafetensors(join(copy, 'model.safetensors'), tensors);
      });
      const before = memory().tensors;
      await expect(loadModel(copy)).rejects.toThrow(message);
      expect(memory().tensors).toBe(before);
    };
    await refused((t) => t.delete(`${name}_scales`), /ERR_LIBMOE_CHECKPOINT.*no tensor ".*down_proj_scales"/);
    await refused((t) => t.delete(`${name}_blocks`), /ERR_LIBMOE_CHECKPOINT.*missing: .*down_proj;/);
    await refused(
      (t) => t.set(`${name}_scales`, t.get('model.norm.weight')!),
      /ERR_LIBMOE_CHECKPOINT.*"model\.layers\.0\.mlp\.experts\.down_proj_scales" should hold 160 bytes \(U8\) for 5 experts, got F32 \[32\]/,
    );
    const config = JSON.parse(readFileSync(join(copy, 'config.json'), 'utf8')) as JsonObject;
    writeFileSync(
      join(copy, 'config.json'),
      JSON.stringify({ ...config, quantization_config: { quant_method: 'gptq' } }),
    );
    await expect(loadModel(copy)).rejects.toThrow(/ERR_LIBMOE_UNSUPPORTED.*"gptq"/);
  });
});
