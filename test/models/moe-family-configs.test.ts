import { describe, expect, it } from 'vitest';
import { familyOf } from '../../ts/models/language/architectures/index.ts';
import {
  countParameters,
  type LanguageModelOptions,
  moeLayersOf,
  resolveLanguageModelConfig,
} from '../../ts/models/language/index.ts';
import type { JsonObject } from '../../ts/storage/json.ts';
import { configOf } from './family-json.ts';
import { tinyConfig } from './tiny.ts';

const sizes = (hidden: number, layers: number, heads: number, vocabulary: number): JsonObject => ({
  hidden_size: hidden,
  num_hidden_layers: layers,
  num_attention_heads: heads,
  vocab_size: vocabulary,
});

const llama4: JsonObject = {
  intermediate_size: 8192,
  intermediate_size_mlp: 16_384,
  num_key_value_heads: 8,
  head_dim: 128,
  num_experts_per_tok: 1,
  attention_chunk_size: 8192,
  attn_scale: 0.1,
  floor_scale: 8192,
  rope_theta: 500_000,
};

/** Published models, in the spelling of their own config.json, and the parameters that transformers counts in them. */
const published: [string, string, JsonObject, number][] = [
  [
    'OLMoE-1B-7B-0924',
    'OlmoeForCausalLM',
    {
      ...sizes(2048, 16, 16, 50_304),
      intermediate_size: 1024,
      num_key_value_heads: 16,
      num_experts: 64,
      num_experts_per_tok: 8,
      clip_qkv: null,
      rope_scaling: null,
      norm_topk_prob: false,
    },
    6_919_161_856,
  ],
  [
    'Qwen1.5-MoE-A2.7B',
    'Qwen2MoeForCausalLM',
    {
      ...sizes(2048, 24, 16, 151_936),
      intermediate_size: 5632,
      moe_intermediate_size: 1408,
      shared_expert_intermediate_size: 5632,
      num_key_value_heads: 16,
      num_experts: 60,
      num_experts_per_tok: 4,
      decoder_sparse_step: 1,
      norm_topk_prob: false,
      use_sliding_window: false,
      sliding_window: 32_768,
      max_window_layers: 21,
      max_position_embeddings: 8192,
      rope_theta: 1_000_000,
    },
    14_315_784_192,
  ],
  [
    'Qwen3-30B-A3B',
    'Qwen3MoeForCausalLM',
    {
      ...sizes(2048, 48, 32, 151_936),
      intermediate_size: 6144,
      moe_intermediate_size: 768,
      num_key_value_heads: 4,
      head_dim: 128,
      num_experts: 128,
      num_experts_per_tok: 8,
      decoder_sparse_step: 1,
      mlp_only_layers: [],
      norm_topk_prob: true,
      use_sliding_window: false,
      sliding_window: null,
      max_window_layers: 48,
      rope_theta: 1_000_000,
    },
    30_532_122_624,
  ],
  [
    'Llama-4-Scout-17B-16E (text)',
    'Llama4ForCausalLM',
    {
      ...sizes(5120, 48, 40, 202_048),
      ...llama4,
      max_position_embeddings: 10_485_760,
      num_local_experts: 16,
      interleave_moe_layer_step: 1,
      no_rope_layers: [],
      use_qk_norm: true,
      attn_temperature_tuning: 4,
      rope_scaling: {
        factor: 16,
        high_freq_factor: 1,
        low_freq_factor: 1,
        original_max_position_embeddings: 8192,
        rope_type: 'llama3',
      },
    },
    107_769_861_120,
  ],
  [
    'Llama-4-Maverick-17B-128E (text)',
    'Llama4ForCausalLM',
    {
      ...sizes(5120, 48, 40, 202_048),
      ...llama4,
      max_position_embeddings: 1_048_576,
      num_local_experts: 128,
      interleave_moe_layer_step: 2,
      no_rope_layers: Array.from({ length: 48 }, (_, layer) => (layer % 4 === 3 ? 0 : 1)),
      use_qk_norm: false,
      rope_scaling: null,
    },
    400_711_848_960,
  ],
];

describe('config.json of families with experts', () => {
  it.each(published)('%s has as many parameters as in transformers', (_, family, json, parameters) => {
    expect(countParameters(configOf(family, json))).toBe(parameters);
  });

  it.each(published)('%s is described by its own family again, in fields that mean the same', (...row) => {
    const [, family, json] = row;
    const config = configOf(family, json);
    const { architecture, fields } = familyOf(config, { preferred: family });
    expect(architecture.name).toBe(family);
    expect(configOf(family, fields)).toEqual(config);
  });

  const small: JsonObject = { ...sizes(24, 4, 4, 50), intermediate_size: 32 };
  it('knows the defaults of absent fields', () => {
    const olmoe = configOf('OlmoeForCausalLM', small);
    expect(olmoe.moe).toMatchObject({ experts: 64, topK: 8, router: { name: 'smoe', normalise: false } });
    expect(olmoe).toMatchObject({ keyValueHeads: 4, qkNorm: 'projection', eps: 1e-5, maxPositions: 4096 });
    const qwen2 = configOf('Qwen2MoeForCausalLM', { ...small, num_attention_heads: 16, head_dim: 2 });
    expect(qwen2).toMatchObject({ keyValueHeads: 16, attentionBias: true, attentionOutputBias: false });
    expect(qwen2.moe).toMatchObject({ experts: 60, topK: 4, shared: { hidden: 5632, sigmoidGate: true } });
    const qwen3 = configOf('Qwen3MoeForCausalLM', { ...small, use_sliding_window: true });
    expect(qwen3).toMatchObject({ keyValueHeads: 4, headDim: 6, window: 4096, qkNorm: 'head' });
    expect(qwen3.moe).toMatchObject({ experts: 128, topK: 8, expert: { hidden: 768 } });
  });

  it.each([
    ['every layer', {}, [0, 1, 2, 3], 'all'],
    ['every second', { decoder_sparse_step: 2 }, [1, 3], 'every:2'],
    ['all but named ones', { mlp_only_layers: [0, 2] }, [1, 3], [1, 3]],
    ['both', { decoder_sparse_step: 2, mlp_only_layers: [1] }, [3], [3]],
    ['none', { decoder_sparse_step: 5 }, [], undefined],
    ['none of no experts', { num_experts: 0 }, [], undefined],
  ] as const)('of Qwen says which layers have experts: %s', (_, change, layers, selection) => {
    const json = { ...small, ...(change as unknown as JsonObject), num_key_value_heads: 4 };
    for (const family of ['Qwen2MoeForCausalLM', 'Qwen3MoeForCausalLM']) {
      const config = configOf(family, json);
      expect(moeLayersOf(config)).toEqual(layers);
      expect(config.moe?.layers).toEqual(selection);
      expect(config.feedForward.hidden).toBe(32);
      const { architecture, fields } = familyOf(config, { preferred: family });
      expect(architecture.name).toBe(layers.length > 0 ? family : family.replace('Moe', ''));
      expect(configOf(architecture.name, fields)).toEqual(config);
    }
  });

  it('of Llama 4 says which layers turn, see pieces and have experts', () => {
    const json = { ...small, num_key_value_heads: 4, head_dim: 6 };
    const llama = (change: JsonObject) => configOf('Llama4ForCausalLM', { ...json, ...change });
    const silent = llama({});
    expect(silent).toMatchObject({
      rotary: { base: 500_000, interleaved: true, layers: [0, 1, 2] },
      chunk: { size: 8192, layers: [0, 1, 2] },
      temperature: { strength: 0.1, every: 8192 },
      qkNorm: 'turned',
      feedForward: { hidden: 16_384 },
      moe: {
        layers: 'all',
        experts: 16,
        topK: 1,
        weighted: 'inputs',
        shared: { hidden: 32 },
        expert: { hidden: 32 },
      },
    });
    const other = llama({
      no_rope_layer_interval: 2,
      layer_types: ['full_attention', 'chunked_attention', 'chunked_attention', 'full_attention'],
      attention_chunk_size: 16,
      attn_temperature_tuning: false,
      moe_layers: [0, 3],
      use_qk_norm: false,
    });
    expect(other).toMatchObject({
      rotary: { layers: [0, 2] },
      chunk: { size: 16, layers: [1, 2] },
      moe: { layers: [0, 3] },
    });
    expect([other.temperature, other.qkNorm]).toEqual([undefined, undefined]);
    const every = llama({ no_rope_layers: [1, 1, 1, 1, 0], moe_layers: [] });
    expect([every.rotary.layers, every.temperature, every.moe]).toEqual([undefined, undefined, undefined]);
    for (const config of [silent, other]) {
      const { architecture, fields } = familyOf(config);
      expect(architecture.name).toBe('Llama4ForCausalLM');
      expect(configOf('Llama4ForCausalLM', fields)).toEqual(config);
    }
  });

  it('of Llama 4 with images holds that of its text model', () => {
    const text = { ...small, num_key_value_heads: 4, head_dim: 6 };
    const json = { text_config: text, vision_config: { hidden_size: 9 } };
    expect(configOf('Llama4ForConditionalGeneration', json)).toEqual(configOf('Llama4ForCausalLM', text));
    expect(() => configOf('Llama4ForConditionalGeneration', {})).toThrow(
      /ERR_LIBMOE_CONFIG.*"text_config" is missing/,
    );
  });

  const refused: [string, string, JsonObject, RegExp][] = [
    ['clipped queries', 'OlmoeForCausalLM', { clip_qkv: 8 }, /"clip_qkv" is not supported/],
    ['windows of OLMoE', 'OlmoeForCausalLM', { sliding_window: 8 }, /"sliding_window" in an OLMoE/],
    ['heads of another size in OLMoE', 'OlmoeForCausalLM', { head_dim: 8 }, /"head_dim" in an OLMoE/],
    [
      'windows of which versions disagree',
      'Qwen2MoeForCausalLM',
      { use_sliding_window: true },
      /"use_sliding_window" without "layer_types"/,
    ],
    [
      'layer types of Qwen3-MoE',
      'Qwen3MoeForCausalLM',
      { layer_types: Array(4).fill('full_attention') as string[] },
      /"layer_types" in a Qwen3-MoE/,
    ],
    [
      'a step of zero',
      'Qwen3MoeForCausalLM',
      { decoder_sparse_step: 0 },
      /"decoder_sparse_step" must be a positive/,
    ],
    ['layers that are no numbers', 'Qwen2MoeForCausalLM', { mlp_only_layers: 'x' }, /must be a list of numb/],
    [
      'more choices than experts',
      'OlmoeForCausalLM',
      { num_experts: 4 },
      /topK 8 is more than the 4 experts/,
    ],
    [
      'a step of half a layer',
      'Llama4ForCausalLM',
      { interleave_moe_layer_step: 0.5 },
      /must be a positive integer/,
    ],
    [
      'an interval of zero',
      'Llama4ForCausalLM',
      { no_rope_layer_interval: 0 },
      /must be a positive integer, got 0/,
    ],
    ['a list of too few layers', 'Llama4ForCausalLM', { no_rope_layers: [1] }, /must list 4 layers, got 1/],
    [
      'no layer that turns',
      'Llama4ForCausalLM',
      { no_rope_layers: [0, 0, 0, 0] },
      /without any layer that turns/,
    ],
    [
      'pieces of no size',
      'Llama4ForCausalLM',
      { attention_chunk_size: null },
      /need "attention_chunk_size", which/,
    ],
    [
      'unknown layer types',
      'Llama4ForCausalLM',
      { layer_types: Array(4).fill('sliding_attention') as string[] },
      /must be a list of 4 times "full_attention" or "chunked_attention"/,
    ],
    ['dynamic scaling', 'OlmoeForCausalLM', { rope_scaling: { type: 'dynamic', factor: 2 } }, /"dynamic"/],
  ];
  it.each(refused)('refuses %s', (_, family, change, message) => {
    const json = { ...small, num_key_value_heads: 4, ...change };
    expect(() => configOf(family, json)).toThrow(/ERR_LIBMOE_CONFIG/);
    expect(() => configOf(family, json)).toThrow(message);
  });
});

describe('a model that no family computes keeps our own form', () => {
  const moe = { experts: 4, topK: 2, expert: { hidden: 16 } };
  const gated = { hidden: 8, sigmoidGate: true };
  const likeLlama4: LanguageModelOptions = {
    ...tinyConfig,
    rotary: { interleaved: true },
    chunk: { size: 8 },
  };
  const weighing: LanguageModelOptions['moe'] = {
    ...moe,
    router: { name: 'sigmoid', normalise: false },
    weighted: 'inputs',
    shared: { hidden: 16 },
  };
  const forms: [string, LanguageModelOptions, string][] = [
    ['Mixtral', { ...tinyConfig, moe }, 'MixtralForCausalLM'],
    [
      'Mixtral without normalisation',
      { ...tinyConfig, moe: { ...moe, router: { name: 'smoe', normalise: false } } },
      'LibMoeForCausalLM',
    ],
    ['OLMoE', { ...tinyConfig, qkNorm: 'projection', moe }, 'OlmoeForCausalLM'],
    [
      'some layers of OLMoE',
      { ...tinyConfig, qkNorm: 'projection', moe: { ...moe, layers: [1] } },
      'LibMoeForCausalLM',
    ],
    ['Qwen3-MoE', { ...tinyConfig, qkNorm: 'head', moe: { ...moe, layers: [1] } }, 'Qwen3MoeForCausalLM'],
    ['Qwen2-MoE', { ...tinyConfig, moe: { ...moe, shared: gated } }, 'Qwen2MoeForCausalLM'],
    [
      'half of a shared block',
      { ...tinyConfig, moe: { ...moe, shared: gated, sharedMix: 'half' } },
      'LibMoeForCausalLM',
    ],
    [
      'a shared block without a gate',
      { ...tinyConfig, moe: { ...moe, shared: { hidden: 8 } } },
      'LibMoeForCausalLM',
    ],
    ['Llama 4', { ...likeLlama4, moe: weighing }, 'Llama4ForCausalLM'],
    [
      'normalised weights',
      { ...likeLlama4, moe: { ...weighing, router: { name: 'sigmoid' } } },
      'LibMoeForCausalLM',
    ],
    ['no shared block', { ...likeLlama4, moe: { ...weighing, shared: undefined } }, 'LibMoeForCausalLM'],
    ['pairs of both halves', { ...likeLlama4, rotary: {}, moe: weighing }, 'LibMoeForCausalLM'],
    ['pieces elsewhere', { ...tinyConfig, chunk: { size: 8 } }, 'LibMoeForCausalLM'],
    ['still layers elsewhere', { ...tinyConfig, rotary: { layers: [1] } }, 'LibMoeForCausalLM'],
    ['weighted inputs', { ...tinyConfig, moe: { ...moe, weighted: 'inputs' } }, 'LibMoeForCausalLM'],
    [
      'scaled outputs',
      { ...tinyConfig, qkNorm: 'head', moe: { ...moe, routedScaling: 2 } },
      'LibMoeForCausalLM',
    ],
    [
      'another router',
      { ...tinyConfig, qkNorm: 'head', moe: { ...moe, router: { name: 'sigmoid' } } },
      'LibMoeForCausalLM',
    ],
    [
      'dense layers with another activation',
      {
        ...tinyConfig,
        feedForward: { hidden: 40, activation: 'gelu' },
        qkNorm: 'head',
        moe: { ...moe, layers: [1] },
      },
      'LibMoeForCausalLM',
    ],
  ];
  it.each(forms)('%s', (_, options, family) => {
    const config = resolveLanguageModelConfig(options);
    const { architecture } = familyOf(config);
    expect(architecture.name).toBe(family);
  });
});
