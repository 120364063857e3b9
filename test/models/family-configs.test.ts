import { cpSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';
import { familyOf } from '../../ts/models/language/architectures/index.ts';
import { phi3 } from '../../ts/models/language/architectures/phi3.ts';
import {
  configJson,
  countParameters,
  LanguageModel,
  type LanguageModelOptions,
  loadModel,
  parameterReport,
  resolveLanguageModelConfig,
  windowsOf,
} from '../../ts/models/language/index.ts';
import type { JsonObject } from '../../ts/storage/json.ts';
import { openSafetensors, writeShardedSafetensors } from '../../ts/storage/safetensors.ts';
import { scope } from '../../ts/tensor/index.ts';
import { configOf } from './family-json.ts';
import { tinyConfig } from './tiny.ts';

const sizes = (
  hidden: number,
  inner: number,
  layers: number,
  heads: number,
  keyValueHeads: number,
  vocabulary: number,
): JsonObject => ({
  hidden_size: hidden,
  intermediate_size: inner,
  num_hidden_layers: layers,
  num_attention_heads: heads,
  num_key_value_heads: keyValueHeads,
  vocab_size: vocabulary,
});

const factors = (value: number): number[] => Array(48).fill(value) as number[];
/** Published models, in the spelling of their own config.json, and their sizes. */
const published: [string, string, JsonObject, number][] = [
  [
    'Llama-3.2-1B',
    'LlamaForCausalLM',
    {
      ...sizes(2048, 8192, 16, 32, 8, 128_256),
      head_dim: 64,
      tie_word_embeddings: true,
      max_position_embeddings: 131_072,
      rope_theta: 500_000,
      rope_scaling: {
        factor: 32,
        high_freq_factor: 4,
        low_freq_factor: 1,
        original_max_position_embeddings: 8192,
        rope_type: 'llama3',
      },
    },
    1_235_814_400,
  ],
  [
    'Mistral-7B-v0.1',
    'MistralForCausalLM',
    { ...sizes(4096, 14_336, 32, 32, 8, 32_000), sliding_window: 4096, max_position_embeddings: 32_768 },
    7_241_732_096,
  ],
  [
    'Qwen2.5-0.5B',
    'Qwen2ForCausalLM',
    {
      ...sizes(896, 4864, 24, 14, 2, 151_936),
      tie_word_embeddings: true,
      use_sliding_window: false,
      sliding_window: 32_768,
      max_window_layers: 24,
      rope_theta: 1_000_000,
    },
    494_032_768,
  ],
  [
    'Qwen3-0.6B',
    'Qwen3ForCausalLM',
    {
      ...sizes(1024, 3072, 28, 16, 8, 151_936),
      head_dim: 128,
      tie_word_embeddings: true,
      sliding_window: null,
      rope_theta: 1_000_000,
      rope_scaling: null,
    },
    596_049_920,
  ],
  [
    'Phi-3-mini-128k',
    'Phi3ForCausalLM',
    {
      ...sizes(3072, 8192, 32, 32, 32, 32_064),
      max_position_embeddings: 131_072,
      original_max_position_embeddings: 4096,
      rope_scaling: { type: 'su', short_factor: factors(1.05), long_factor: factors(30) },
      sliding_window: 262_144,
    },
    3_821_079_552,
  ],
  ['GPT-2', 'GPT2LMHeadModel', { n_embd: 768, n_layer: 12, n_head: 12, n_ctx: 1024 }, 124_439_808],
];

describe('config.json', () => {
  it.each(published)('%s has its published number of parameters', (_, family, json, parameters) => {
    expect(countParameters(configOf(family, json))).toBe(parameters);
  });

  it.each(published)('%s is described by its own family again, in fields that mean the same', (...row) => {
    const [, family, json] = row;
    const config = configOf(family, json);
    const { architecture, fields } = familyOf(config, { preferred: family });
    expect(architecture.name).toBe(family);
    expect(configOf(family, fields)).toEqual(config);
  });

  it('knows the defaults of absent fields, and what null says', () => {
    const json = sizes(64, 96, 4, 4, 2, 50);
    expect(configOf('MistralForCausalLM', json).window).toBe(4096);
    expect(configOf('MistralForCausalLM', { ...json, sliding_window: null }).window).toBeUndefined();
    const qwen = { ...json, use_sliding_window: true, sliding_window: 8, max_window_layers: 3 };
    expect(windowsOf(configOf('Qwen2ForCausalLM', qwen))).toEqual([undefined, undefined, undefined, 8]);
    const { num_key_value_heads: _, ...silent } = sizes(64, 96, 4, 16, 2, 50);
    expect(configOf('MistralForCausalLM', silent).keyValueHeads).toBe(8);
    expect(configOf('LlamaForCausalLM', silent).keyValueHeads).toBe(16);
    expect(configOf('Qwen3ForCausalLM', json).headDim).toBe(128);
    const phi = configOf('Phi3ForCausalLM', published[4]![2]);
    expect(phi.rotary.scaling).toMatchObject({ kind: 'longrope', factor: 32, originalPositions: 4096 });
  });

  it('writes a part of a head that turns as a fraction whose product is no channel less', () => {
    const odd: number[] = [];
    for (let headDim = 4; headDim <= 128; headDim += 2) {
      for (let dims = 2; dims < headDim; dims += 2) {
        const options = {
          ...tinyConfig,
          dModel: headDim,
          heads: 1,
          keyValueHeads: 1,
          headDim,
          rotary: { dims },
        };
        const json = phi3.write(resolveLanguageModelConfig(options));
        const fraction = json.partial_rotary_factor as number;
        if (Math.floor(headDim * fraction) !== dims) odd.push(headDim, dims);
      }
    }
    expect(odd).toEqual([]);
    const phi = sizes(44, 96, 4, 1, 1, 50);
    expect(configOf('Phi3ForCausalLM', { ...phi, partial_rotary_factor: 0.5 }).rotary.dims).toBe(22);
    expect(() => configOf('Phi3ForCausalLM', { ...phi, partial_rotary_factor: 30 / 44 })).toThrow(
      /"partial_rotary_factor": 0.68\d+, which is 29 of 44 channels, is not supported/,
    );
  });

  const llama = sizes(64, 96, 4, 4, 2, 50);
  const refused: [string, string, JsonObject, RegExp][] = [
    ['dynamic scaling', 'Qwen2ForCausalLM', { rope_scaling: { type: 'dynamic', factor: 2 } }, /"dynamic"/],
    [
      'a rotary embedding per layer type',
      'Qwen3ForCausalLM',
      { rope_parameters: { full_attention: {}, sliding_attention: {} } },
      /a rotary embedding for each type of layer is not supported/,
    ],
    ['partial rotary', 'LlamaForCausalLM', { partial_rotary_factor: 0.5 }, /"partial_rotary_factor": 0.5/],
    ['layer types of Mistral', 'MistralForCausalLM', { layer_types: ['x'] }, /"layer_types" in a Mistral/],
    [
      'unknown layer types',
      'Qwen2ForCausalLM',
      { layer_types: ['full_attention', 'chunked', 'full_attention', 'full_attention'] },
      /must be a list of 4 times "full_attention" or "sliding_attention"/,
    ],
    [
      'windows without a size',
      'Qwen3ForCausalLM',
      { layer_types: Array(4).fill('sliding_attention') as string[], sliding_window: 8 },
      /needs "use_sliding_window"/,
    ],
    ['biases of Phi-3', 'Phi3ForCausalLM', { attention_bias: true }, /a bias of attention in a Phi-3/],
    [
      'factors of another length',
      'Phi3ForCausalLM',
      { rope_scaling: { type: 'longrope', short_factor: [1], long_factor: [1] } },
      /rotary.scaling: .*one factor for each of 8 pairs, got 1/,
    ],
    [
      'no factors',
      'Phi3ForCausalLM',
      { rope_scaling: { type: 'longrope' } },
      /"short_factor" must be a list/,
    ],
    ['unscaled scores', 'GPT2LMHeadModel', { scale_attn_weights: false }, /"scale_attn_weights": false/],
    ['cross attention', 'GPT2LMHeadModel', { add_cross_attention: true }, /"add_cross_attention"/],
    [
      'an unknown activation',
      'GPT2LMHeadModel',
      { activation_function: 'mish' },
      /"activation_function": "mish" is not one of/,
    ],
  ];
  it.each(refused)('refuses %s', (_, family, change, message) => {
    expect(() => configOf(family, { ...llama, ...change })).toThrow(/ERR_LIBMOE_CONFIG/);
    expect(() => configOf(family, { ...llama, ...change })).toThrow(message);
  });
});

describe('forms beyond the published ones', () => {
  const learned: LanguageModelOptions = {
    ...tinyConfig,
    positions: 'learned',
    norm: 'layernorm',
    tieEmbeddings: true,
  };
  const forms: [string, LanguageModelOptions, string][] = [
    ['windows by layer', { ...tinyConfig, window: [4, null, 9] }, 'LibMoeForCausalLM'],
    ['one window for all', { ...tinyConfig, window: 4 }, 'MistralForCausalLM'],
    ['windows and biases', { ...tinyConfig, attentionBias: true, window: [4, null, 4] }, 'LibMoeForCausalLM'],
    [
      "Qwen2's biases",
      { ...tinyConfig, attentionBias: true, attentionOutputBias: false, window: [4, null, 4] },
      'Qwen2ForCausalLM',
    ],
    ['norms of heads', { ...tinyConfig, qkNorm: 'head' }, 'Qwen3ForCausalLM'],
    ['norms of projections', { ...tinyConfig, qkNorm: 'projection' }, 'LibMoeForCausalLM'],
    ['partial rotary', { ...tinyConfig, rotary: { dims: 4 } }, 'Phi3ForCausalLM'],
    ['learned positions', learned, 'LibMoeForCausalLM'],
    [
      "GPT-2's",
      {
        ...learned,
        keyValueHeads: 4,
        attentionBias: true,
        feedForward: { hidden: 40, activation: 'geluTanh', gated: false, bias: true },
      },
      'GPT2LMHeadModel',
    ],
    [
      'experts',
      { ...learned, moe: { layers: [1], experts: 3, topK: 1, expert: { hidden: 8 } }, qkNorm: 'head' },
      'LibMoeForCausalLM',
    ],
  ];
  it.each(forms)('%s: counted as made, written as the family that has them', (_, options, family) => {
    using model = new LanguageModel(options, { seed: 3 });
    expect(countParameters(options)).toBe(model.parameterCount());
    expect(configJson(model).architectures).toEqual([family]);
    // Norms start at 1, positions as the embedding does.
    for (const [name, value] of model.namedParameters()) {
      if (/Norm\.weight$/.test(name)) expect(new Set(value.toArray())).toEqual(new Set([1]));
      if (name === 'positionEmbedding.weight') expect(new Set(value.toArray()).size).toBeGreaterThan(1000);
    }
  });

  it('counts the keys of each layer by its window', () => {
    const flops = (window?: LanguageModelOptions['window']): number =>
      parameterReport({ ...tinyConfig, ...(window && { window }) }, 4).flopsPerToken;
    const perKey = 3 * 4 * 24;
    expect(flops() - flops([2, null, 1])).toBeCloseTo(perKey * (3 * 2.5 - (1.75 + 2.5 + 1)), 6);
  });

  it('refuses lists of another length and scaling of what does not turn', () => {
    const resolve = (change: object) => () => resolveLanguageModelConfig({ ...tinyConfig, ...change });
    expect(resolve({ window: [4] })).toThrow(/ERR_LIBMOE_CONFIG.*window must list 3 layers, got 1/);
    const scaling = { kind: 'linear', factor: 2 };
    expect(resolve({ positions: 'learned', rotary: { scaling } })).toThrow(
      /scaling needs positions: "rotary"/,
    );
    expect(resolve({ rotary: { scaling: { kind: 'linear' } } })).toThrow(/ERR_LIBMOE_CONFIG.*factor/);
    expect(resolveLanguageModelConfig({ ...tinyConfig, rotary: { scaling } }).rotary.scaling).toEqual(
      scaling,
    );
  });
});

describe('GPT-2 files', () => {
  const golden = fileURLToPath(new URL('../golden/language/gpt2', import.meta.url));

  it('may leave out the prefix and hold causal masks, as those of the hub do; special tokens are kept', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'libmoe-gpt2-'));
    cpSync(golden, folder, { recursive: true });
    const ids = { bos_token_id: 5, eos_token_id: 6, pad_token_id: null };
    using original = await loadModel(golden);
    writeFileSync(join(folder, 'config.json'), JSON.stringify({ ...configJson(original), ...ids }));
    scope(() => {
      const file = openSafetensors(golden);
      const bare = new Map(
        file.names().map((name) => [name.replace(/^transformer\./, ''), file.read(name)] as const),
      );
      bare.set('h.0.attn.bias', file.read('transformer.wpe.weight'));
      writeShardedSafetensors(folder, bare);
    });
    using model = await loadModel(folder);
    expect(model.positionEmbedding!.weight.toArray()).toEqual(original.positionEmbedding!.weight.toArray());
    expect(model.blocks[1]!.attention.key.bias!.toArray()).toEqual(
      original.blocks[1]!.attention.key.bias!.toArray(),
    );
    expect(configJson(model)).toMatchObject(ids);
    rmSync(folder, { recursive: true });
  });

  it('refuses positions beyond the learned ones', async () => {
    using model = await loadModel(golden);
    const ids = Int32Array.from(Array(49).fill(1) as number[]);
    expect(() => model.forward({ ids, sequenceOffsets: Int32Array.from([0, 49]) })).toThrow(
      /ERR_LIBMOE_ARGUMENT.*0…47/,
    );
  });
});
