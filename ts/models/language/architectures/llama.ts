import { fail } from '../../../native/index.ts';
import type { ActivationName } from '../../../nn/feed-forward.ts';
import type { JsonObject } from '../../../storage/json.ts';
import { type LanguageModelConfig, type LanguageModelOptions, windowsOf } from '../config.ts';
import type { Architecture, FileTensor } from './architecture.ts';
import { Fields } from './fields.ts';
import { type RotaryDefaults, readRotary, writeRotary } from './rotary-fields.ts';

const activations: Record<string, ActivationName> = {
  silu: 'silu',
  swish: 'silu',
  relu: 'relu',
  gelu: 'gelu',
  gelu_new: 'geluTanh',
  gelu_pytorch_tanh: 'geluTanh',
  quick_gelu: 'quickGelu',
};

/** Our activation of the field that names it. */
export function activationOf(fields: Fields, field = 'hidden_act', fallback = 'silu'): ActivationName {
  const name = fields.string(field, fallback);
  return (
    activations[name] ??
    fields.wrong(`"${field}": "${name}" is not one of ${Object.keys(activations).join(', ')}`)
  );
}

/** Hugging Face's name of an activation of ours. */
export function hiddenActOf(activation: ActivationName): string | undefined {
  return Object.entries(activations).find(([, ours]) => ours === activation)?.[0];
}

/** What a family assumes where config.json is silent. */
export interface LlamaDefaults extends RotaryDefaults {
  eps: number;
  /** Default: as many as heads. */
  keyValueHeads?: number;
  headDim?: number;
}

/** What Llama and its relatives share. */
export function readLlamaFields(fields: Fields, defaults: LlamaDefaults): LanguageModelOptions {
  const heads = fields.number('num_attention_heads');
  const dModel = fields.number('hidden_size');
  const written = fields.optionalNumber('head_dim');
  const headDim = written ?? (fields.has('head_dim') ? undefined : defaults.headDim) ?? dModel / heads;
  const fewer = fields.has('num_key_value_heads') ? undefined : defaults.keyValueHeads;
  return {
    vocabularySize: fields.number('vocab_size'),
    dModel,
    layers: fields.number('num_hidden_layers'),
    heads,
    keyValueHeads: fields.number('num_key_value_heads', fewer ?? heads),
    headDim,
    norm: 'rmsnorm',
    eps: fields.number('rms_norm_eps', defaults.eps),
    rotary: readRotary(fields, headDim, defaults),
    feedForward: {
      hidden: fields.number('intermediate_size'),
      activation: activationOf(fields),
      gated: true,
    },
    tieEmbeddings: fields.boolean('tie_word_embeddings', false),
    maxPositions: fields.number('max_position_embeddings', defaults.maxPositions),
    init: { std: fields.number('initializer_range', 0.02) },
  };
}

/** Whether a model has the form of Llama outside its feed-forward layers, but for biases, norms of queries and keys, and windows. */
export function hasLlamaForm(
  config: LanguageModelConfig,
  allowed: { partialRotary?: boolean; sinks?: boolean } = {},
): boolean {
  return (
    config.norm === 'rmsnorm' &&
    config.positions === 'rotary' &&
    config.attention === undefined &&
    config.rotary.interleaved === undefined &&
    config.rotary.layers === undefined &&
    config.chunk === undefined &&
    (allowed.partialRotary === true || config.rotary.dims === config.headDim) &&
    !config.outputBias &&
    (allowed.sinks === true || !config.attentionSinks)
  );
}

/** Whether a dense model has the form of Llama with gated feed-forward layers without bias. */
export function hasDenseLlamaForm(
  config: LanguageModelConfig,
  allowed: { partialRotary?: boolean } = {},
): boolean {
  const { gated, bias } = config.feedForward;
  return hasLlamaForm(config, allowed) && config.moe === undefined && gated && !bias;
}

/** The window of all layers, null when none has one; undefined when they differ. */
export function commonWindow(config: LanguageModelConfig): number | null | undefined {
  const windows = windowsOf(config);
  return windows.every((window) => window === windows[0]) ? (windows[0] ?? null) : undefined;
}

/** The fields of config.json that Llama and its relatives share. */
export function writeLlamaFields(config: LanguageModelConfig): JsonObject {
  return {
    vocab_size: config.vocabularySize,
    hidden_size: config.dModel,
    num_hidden_layers: config.layers,
    num_attention_heads: config.heads,
    num_key_value_heads: config.keyValueHeads,
    head_dim: config.headDim,
    rms_norm_eps: config.eps,
    max_position_embeddings: config.maxPositions,
    tie_word_embeddings: config.tieEmbeddings,
    ...writeRotary(config),
    initializer_range: config.init === 'libmoe' ? 0.02 : config.init.std,
  };
}

/** The same with those of dense feed-forward layers; undefined when Hugging Face has no name for the activation. */
export function writeDenseLlamaFields(config: LanguageModelConfig): JsonObject | undefined {
  const hiddenAct = hiddenActOf(config.feedForward.activation);
  if (hiddenAct === undefined) return undefined;
  return {
    ...writeLlamaFields(config),
    intermediate_size: config.feedForward.hidden,
    hidden_act: hiddenAct,
  };
}

const renamed: Record<string, string> = {
  'attentionNorm.weight': 'input_layernorm.weight',
  'feedForwardNorm.weight': 'post_attention_layernorm.weight',
  'attention.query': 'self_attn.q_proj',
  'attention.key': 'self_attn.k_proj',
  'attention.value': 'self_attn.v_proj',
  'attention.output': 'self_attn.o_proj',
  'attention.queryNorm': 'self_attn.q_norm',
  'attention.keyNorm': 'self_attn.k_norm',
};
const whole: Record<string, string> = {
  'embedding.weight': 'model.embed_tokens.weight',
  'finalNorm.weight': 'model.norm.weight',
  'output.weight': 'lm_head.weight',
};

/** Buffers of older files that follow from the configuration. */
export const isRotaryBuffer = (name: string): boolean => name.endsWith('rotary_emb.inv_freq');

/** The file tensors of everything but experts and routers. */
export function llamaTensors(name: string, shape: readonly number[]): FileTensor[] {
  const top = whole[name];
  if (top !== undefined) return [{ name: top, shape }];
  const [, layer, rest] = /^blocks\.(\d+)\.(.+)$/.exec(name) ?? [];
  const prefix = `model.layers.${layer}.`;
  const [, part, field] = /^(attention\.\w+)\.(weight|bias)$/.exec(rest ?? '') ?? [];
  if (part !== undefined) return [{ name: `${prefix}${renamed[part]}.${field}`, shape }];
  if (rest !== undefined && rest in renamed) return [{ name: prefix + renamed[rest], shape }];
  const halves = [shape[0]! / 2, ...shape.slice(1)];
  switch (rest) {
    case 'feedForward.up':
      return ['gate_proj', 'up_proj'].map((part) => ({ name: `${prefix}mlp.${part}.weight`, shape: halves }));
    case 'feedForward.upBias':
      return ['gate_proj', 'up_proj'].map((part) => ({ name: `${prefix}mlp.${part}.bias`, shape: halves }));
    case 'feedForward.down':
      return [{ name: `${prefix}mlp.down_proj.weight`, shape }];
    case 'feedForward.downBias':
      return [{ name: `${prefix}mlp.down_proj.bias`, shape }];
    default:
      return fail('ERR_LIBMOE_CHECKPOINT', `the Llama form has no place for the parameter "${name}"`);
  }
}

/** Llama 1–3, SmolLM, TinyLlama and other checkpoints of `LlamaForCausalLM`. */
export const llama: Architecture = {
  name: 'LlamaForCausalLM',
  modelType: 'llama',
  read(json, source) {
    const fields = new Fields(json, source);
    const { feedForward, ...rest } = readLlamaFields(fields, { base: 10000, maxPositions: 2048, eps: 1e-6 });
    return {
      ...rest,
      feedForward: { ...feedForward!, bias: fields.boolean('mlp_bias', false) },
      attentionBias: fields.boolean('attention_bias', false),
    };
  },
  write(config) {
    const { feedForward, attentionBias, attentionOutputBias } = config;
    const fits =
      hasLlamaForm(config) &&
      config.moe === undefined &&
      feedForward.gated &&
      attentionBias === attentionOutputBias &&
      config.qkNorm === undefined &&
      commonWindow(config) === null;
    const fields = writeDenseLlamaFields(config);
    if (!fits || fields === undefined) return undefined;
    return { ...fields, attention_bias: attentionBias, mlp_bias: feedForward.bias };
  },
  fileTensors: llamaTensors,
  ignorable: isRotaryBuffer,
};
