import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';
import { familyOf } from '../../ts/models/language/architectures/index.ts';
import {
  architectures,
  configJson,
  countParameters,
  LanguageModel,
  type LanguageModelConfig,
  type LanguageModelOptions,
  loadModel,
  parameterReport,
  resolveLanguageModelConfig,
  saveModel,
} from '../../ts/models/language/index.ts';
import { ForwardContext } from '../../ts/moe/context.ts';
import type { JsonObject } from '../../ts/storage/json.ts';
import { openSafetensors, writeShardedSafetensors } from '../../ts/storage/safetensors.ts';
import { noGrad, scope, zeros } from '../../ts/tensor/index.ts';
import { upcycle } from '../../ts/upcycling/index.ts';
import { configOf } from './family-json.ts';

const golden = (name: string): string =>
  fileURLToPath(new URL(`../golden/language/${name}`, import.meta.url));
const v2 = 'DeepseekV2ForCausalLM';
const v3 = 'DeepseekV3ForCausalLM';
const goldenJson = (name: string): JsonObject =>
  JSON.parse(readFileSync(join(golden(name), 'config.json'), 'utf8')) as JsonObject;

/** DeepSeek-V2-Lite in the spelling of its own config.json. */
const lite: JsonObject = {
  attention_bias: false,
  aux_loss_alpha: 0.001,
  first_k_dense_replace: 1,
  hidden_act: 'silu',
  hidden_size: 2048,
  intermediate_size: 10_944,
  kv_lora_rank: 512,
  max_position_embeddings: 163_840,
  moe_intermediate_size: 1408,
  moe_layer_freq: 1,
  n_group: 1,
  n_routed_experts: 64,
  n_shared_experts: 2,
  norm_topk_prob: false,
  num_attention_heads: 16,
  num_experts_per_tok: 6,
  num_hidden_layers: 27,
  num_key_value_heads: 16,
  q_lora_rank: null,
  qk_nope_head_dim: 128,
  qk_rope_head_dim: 64,
  rms_norm_eps: 1e-6,
  rope_scaling: {
    beta_fast: 32,
    beta_slow: 1,
    factor: 40,
    mscale: 0.75,
    mscale_all_dim: 0.75,
    original_max_position_embeddings: 4096,
    type: 'yarn',
  },
  rope_theta: 10_000,
  routed_scaling_factor: 1,
  scoring_func: 'softmax',
  seq_aux: true,
  topk_group: 1,
  topk_method: 'greedy',
  v_head_dim: 128,
  vocab_size: 102_400,
};
/** DeepSeek-V3: what it leaves out of these is its family's default. */
const large: JsonObject = {
  hidden_size: 7168,
  intermediate_size: 18_432,
  num_attention_heads: 128,
  num_hidden_layers: 61,
  num_key_value_heads: 128,
  scoring_func: 'sigmoid',
  topk_method: 'noaux_tc',
  vocab_size: 129_280,
};

const attention = { kind: 'mla', keyValueRank: 6, contentDim: 4, rotaryDim: 4, valueDim: 5 } as const;
const dense: LanguageModelOptions = {
  vocabularySize: 50,
  dModel: 12,
  layers: 2,
  heads: 2,
  attention,
  rotary: { base: 10_000, interleaved: true },
  feedForward: { hidden: 16 },
  maxPositions: 32,
};
const mixture = (moe: Partial<NonNullable<LanguageModelOptions['moe']>>): LanguageModelOptions => ({
  ...dense,
  moe: { layers: [1], experts: 4, topK: 2, expert: { hidden: 8 }, shared: { hidden: 16 }, ...moe },
});
const familyNameOf = (options: LanguageModelOptions): string =>
  familyOf(resolveLanguageModelConfig(options)).architecture.name;

describe('config.json of DeepSeek', () => {
  it('reads the published ones, which count as transformers counts them', () => {
    const config = configOf(v2, lite);
    expect(config).toMatchObject({
      headDim: 192,
      keyValueHeads: 16,
      attention: { kind: 'mla', keyValueRank: 512, contentDim: 128, rotaryDim: 64, valueDim: 128, eps: 1e-6 },
      rotary: { dims: 64, interleaved: true, scaling: { kind: 'yarn', mscale: 0.75, mscaleAllDims: 0.75 } },
      moe: { experts: 64, topK: 6, expert: { hidden: 1408 }, shared: { hidden: 2816 }, routedScaling: 1 },
    });
    expect(config.attention?.queryRank).toBeUndefined();
    expect(config.moe?.router).toEqual({ name: 'shared-v2', balanceCoefficient: 0.001 });
    expect(config.moe?.layers).toEqual(Array.from({ length: 26 }, (_, i) => i + 1));
    const report = parameterReport(config, 4096);
    expect(report.total).toBe(15_706_484_224);
    expect(Math.abs(report.active / 2.66e9 - 1)).toBeLessThan(0.01);
    expect(countParameters(configOf(v3, { ...large, num_hidden_layers: 4 }))).toBe(15_111_101_440);
  });

  it('takes losses from the fields of the original code', () => {
    const routerOf = (family: string, json: JsonObject) => configOf(family, json).moe!.router;
    const { aux_loss_alpha: _, ...silent } = lite;
    expect(routerOf(v2, { ...silent, seq_aux: false })).toEqual({
      name: 'shared-v2',
      balanceCoefficient: 0.001,
      balanceOver: 'batch',
    });
    const groups = { count: 8, kept: 4 };
    const small = { ...large, num_hidden_layers: 4 };
    expect(routerOf(v3, small)).toEqual({ name: 'shared-v3', groups });
    expect(routerOf(v3, { ...small, aux_loss_alpha: 0.002 })).toEqual({
      name: 'shared-v3',
      groups,
      balanceCoefficient: 0.002,
    });
    // Null is none, not the default of an absent field.
    expect(routerOf(v3, { ...small, n_group: null, topk_group: null })).toEqual({ name: 'shared-v3' });
  });

  it('refuses what the model does not have', () => {
    for (const [family, change, message] of [
      [v2, { norm_topk_prob: true }, /"norm_topk_prob" is not supported/],
      [v2, { topk_method: 'noaux_tc' }, /"topk_method": "noaux_tc"/],
      [v2, { scoring_func: 'sigmoid' }, /"scoring_func": "sigmoid"/],
      [v2, { mlp_bias: true }, /"mlp_bias"/],
      [v2, { moe_layer_freq: 2 }, /"moe_layer_freq" other than 1/],
      [v2, { num_key_value_heads: 4 }, /"num_key_value_heads": 4 beside 16 heads/],
      [v2, { n_shared_experts: 0 }, /without shared experts/],
      [v2, { n_shared_experts: null }, /without shared experts/],
      [v3, { n_shared_experts: null }, /without shared experts/],
      [v3, { n_routed_experts: null }, /"n_routed_experts": null is not supported/],
      [v3, { n_group: 8, topk_group: null }, /"topk_group" is null beside "n_group": 8/],
      [
        v2,
        { rope_scaling: { type: 'linear', factor: 2, mscale_all_dim: 1 } },
        /"mscale_all_dim" without yarn/,
      ],
      [v2, { topk_method: 'group_limited_greedy', n_group: null }, /"n_group" must be a number/],
      [v3, { topk_method: 'greedy' }, /"topk_method": "greedy"/],
      [v3, { scoring_func: 'softmax' }, /"scoring_func": "softmax"/],
    ] as const) {
      expect(() => configOf(family, { ...(family === v2 ? lite : large), ...change } as JsonObject)).toThrow(
        message,
      );
    }
  });

  it.each([
    ['deepseek-v2', v2],
    ['deepseek-v2-groups', v2],
    ['deepseek-v3', v3],
    ['deepseek-v3-halves', v3],
  ])('%s is no other family, and changed beyond the family it is libmoe’s own', (name, family) => {
    const config = configOf(family, goldenJson(name));
    const claims = (changed: LanguageModelConfig): string[] =>
      architectures.filter((known) => known.needs(changed).every(([met]) => met)).map((known) => known.name);
    expect(claims(config)).toEqual([family, 'LibMoeForCausalLM']);
    const moe = config.moe!;
    for (const change of [
      { window: 8 },
      { attention: { ...config.attention!, eps: 1e-5 } },
      { attentionOutputBias: !config.attentionOutputBias },
      { moe: { ...moe, layers: [0] } },
      { moe: { ...moe, shared: { hidden: 9 } } },
      { moe: { ...moe, shared: { hidden: 8, sigmoidGate: true } } },
      { moe: { ...moe, sharedMix: 'half' as const } },
      { moe: { ...moe, weighted: 'inputs' as const } },
      { moe: { ...moe, capacityFactor: 2 } },
      { moe: { ...moe, router: { name: 'smoe' } } },
      { moe: { ...moe, router: { ...moe.router, bias: true } } },
      { moe: { ...moe, compat: 'libmoe' as const } },
    ])
      expect(claims({ ...config, ...change } as LanguageModelConfig), JSON.stringify(change)).toEqual([
        'LibMoeForCausalLM',
      ]);
  });

  it('says models of ours in its fields, which alone mean the same model', () => {
    const v3Router = { name: 'shared-v3' };
    for (const [options, family] of [
      [dense, v2],
      [{ ...dense, rotary: { base: 500 } }, v3],
      [mixture({ compat: 'original', router: { name: 'shared-v2', balanceCoefficient: 0.5 } }), v2],
      [mixture({ router: v3Router, routedScaling: 2 }), v3],
      [mixture({ router: { ...v3Router, normalise: false, groups: { count: 2, kept: 1 } } }), v3],
    ] as const) {
      const config = resolveLanguageModelConfig(options);
      const { architecture, fields } = familyOf(config);
      expect(architecture.name).toBe(family);
      expect(configOf(family, fields)).toEqual(config);
    }
    // Two factors become one, and what training alone sees stays behind.
    const scaled = resolveLanguageModelConfig(
      mixture({ compat: 'original', router: v3Router, routedScaling: 2 }),
    );
    expect(familyOf(scaled).fields).toMatchObject({ routed_scaling_factor: 5 });
    const undivided = { name: 'shared-v2', normalise: false };
    expect(familyNameOf(mixture({ router: undivided }))).toBe(v2);
    expect(familyNameOf(mixture({ router: { name: 'shared-v2' } }))).toBe('LibMoeForCausalLM');
    expect(familyNameOf(mixture({ compat: 'original', router: { ...undivided, normalise: true } }))).toBe(
      'LibMoeForCausalLM',
    );
    expect(familyNameOf(mixture({ experts: 1, topK: 1, router: v3Router }))).toBe('LibMoeForCausalLM');
  });
});

describe('models with latent attention', () => {
  it('refuse sizes that do not fit together', () => {
    for (const [change, message] of [
      [{ headDim: 12 }, /headDim must be 8 beside this attention, got 12/],
      [{ keyValueHeads: 1 }, /keyValueHeads must be 2/],
      [{ rotary: { dims: 6 } }, /rotary.dims must be 4/],
      [{ rotary: { fraction: 0.5 } }, /rotary.fraction must be undefined/],
      [{ qkNorm: 'head' }, /qkNorm/],
      [{ positions: 'learned' }, /positions must be rotary/],
      [{ attention: { ...attention, rotaryDim: 3 } }, /attention.rotaryDim: must be even/],
      [{ attention: { ...attention, queryrank: 3 } }, /queryrank.*queryRank/],
    ] as const)
      expect(() => resolveLanguageModelConfig({ ...dense, ...change })).toThrow(message);
    const config = resolveLanguageModelConfig(dense);
    expect(resolveLanguageModelConfig(config)).toEqual(config);
  });

  it('start as others do, in either initialisation', () => {
    for (const init of [{ std: 0.1 }, 'libmoe'] as const) {
      const options = { ...dense, init, attention: { ...attention, queryRank: 3 }, attentionBias: true };
      using model = new LanguageModel(options, { seed: 4 });
      expect(countParameters(options)).toBe(model.parameterCount());
      for (const [name, value] of model.namedParameters()) {
        const values = new Set(value.toArray());
        if (/Norm\.weight$/.test(name)) expect(values, name).toEqual(new Set([1]));
        else if (name.endsWith('bias')) expect(values, name).toEqual(new Set([0]));
        else expect(values.size, name).toBeGreaterThan(10);
      }
    }
  });

  it('recompute blocks for the same gradient bits', () => {
    const options = mixture({ router: { name: 'shared-v3' } });
    using model = new LanguageModel({ ...options, attention: { ...attention, queryRank: 3 } }, { seed: 5 });
    const ids = Int32Array.from([3, 1, 4, 1, 5, 9, 2]);
    const batch = { ids, targets: ids.toReversed(), sequenceOffsets: Int32Array.from([0, 4, 7]) };
    const gradients = [false, true].map((again) => {
      model.activationCheckpointing = again;
      model.zeroGrad();
      scope(() => {
        using context = new ForwardContext({ training: false });
        model.loss(batch, context).backward();
      });
      return [...model.namedParameters()].map(([name, p]) => [name, p.grad!.toArray()]);
    });
    expect(gradients[1]).toEqual(gradients[0]);
  });

  it('upcycle, and say what they say at once', async () => {
    using model = new LanguageModel({ ...dense, init: { std: 0.3 } }, { seed: 2 });
    using sparse = await upcycle(model, { experts: 3, topK: 2, router: 'smoe' });
    const ids = { ids: Int32Array.from([3, 1, 4, 1, 5]), sequenceOffsets: Int32Array.from([0, 5]) };
    const logits = (of: LanguageModel): number[] =>
      noGrad(() => scope(() => of.logits(of.forward(ids)).toArray()));
    const [before, after] = [logits(model), logits(sparse)];
    for (const [i, value] of after.entries()) expect(Math.abs(value - before[i]!)).toBeLessThan(1e-5);
    expect(configJson(sparse).architectures).toEqual(['LibMoeForCausalLM']);
  });
});

describe('files of DeepSeek', () => {
  it('may hold layers that predict further tokens; anything else too much is refused', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'libmoe-deepseek-'));
    cpSync(golden('deepseek-v3'), folder, { recursive: true });
    const add = (name: string): void =>
      scope(() => {
        const file = openSafetensors(golden('deepseek-v3'));
        const all = new Map(file.names().map((known) => [known, file.read(known)] as const));
        writeShardedSafetensors(folder, all.set(name, zeros([3])));
      });
    add('model.layers.2.eh_proj.weight');
    (await loadModel(folder)).dispose();
    add('model.layers.1.eh_proj.weight');
    await expect(loadModel(folder)).rejects.toThrow(/unexpected: model.layers.1.eh_proj.weight/);
    rmSync(folder, { recursive: true });
  });

  it('say whole factors with a decimal point, as transformers demands', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'libmoe-deepseek-'));
    using model = await loadModel(golden('deepseek-v2'));
    await saveModel(model, join(folder, 'm'));
    const text = readFileSync(join(folder, 'm', 'config.json'), 'utf8');
    expect(text).toMatch(/^ {2}"routed_scaling_factor": 1\.0,$/m);
    expect(text).toMatch(/"num_hidden_layers": 2,/);
    expect(JSON.parse(text)).toEqual(JSON.parse(JSON.stringify(configJson(model))));
    rmSync(folder, { recursive: true });
  });

  it('keep the correction of choices in f32 beside weights in bf16', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'libmoe-deepseek-'));
    using model = await loadModel(golden('deepseek-v3'), { dtype: 'bf16' });
    await saveModel(model, join(folder, 'm'));
    const [theirs, ours] = [openSafetensors(golden('deepseek-v3')), openSafetensors(join(folder, 'm'))];
    const name = 'model.layers.1.mlp.gate.e_score_correction_bias';
    expect(ours.entry(name).dtype).toBe('f32');
    expect(ours.entry('model.layers.1.mlp.gate.weight').dtype).toBe('bf16');
    scope(() => expect(ours.read(name).toArray()).toEqual(theirs.read(name).toArray()));
    rmSync(folder, { recursive: true });
  });

  it('in the spelling of transformers 4 mean the same', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'libmoe-deepseek-'));
    cpSync(golden('deepseek-v3'), folder, { recursive: true });
    const { rope_parameters, head_dim: _, ...rest } = goldenJson('deepseek-v3');
    const { rope_theta, rope_type, ...scaling } = rope_parameters as JsonObject;
    const old = { ...rest, rope_theta: rope_theta!, rope_scaling: { ...scaling, type: rope_type! } };
    writeFileSync(join(folder, 'config.json'), JSON.stringify(old));
    using older = await loadModel(folder);
    using newer = await loadModel(golden('deepseek-v3'));
    expect(older.config).toEqual(newer.config);
    rmSync(folder, { recursive: true });
  });
});
