import { fail } from '../../../native/index.ts';
import type { ActivationName } from '../../../nn/feed-forward.ts';
import type { JsonObject } from '../../../storage/json.ts';
import type { LanguageModelConfig, LanguageModelOptions } from '../config.ts';
import type { Architecture, FileTensor } from './architecture.ts';
import { Fields } from './fields.ts';
import {
  type FamilyNeed,
  gatedFeedForward,
  llamaForm,
  noFeedForwardBias,
  noMixture,
  noWindow,
  oneAttentionBias,
  queryKeyNorm,
} from './needs.ts';
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

const nameOf = (activation: ActivationName): string | undefined =>
  Object.entries(activations).find(([, ours]) => ours === activation)?.[0];

/** Hugging Face must have a name for an activation. */
export const knownActivation = (activation: ActivationName): FamilyNeed => [
  nameOf(activation) !== undefined,
  `activation "${activation}"`,
];

/** Hugging Face's name of a {@link knownActivation} of ours. */
export const hiddenActOf = (activation: ActivationName): string => nameOf(activation)!;

/** What a family assumes where config.json is silent. */
export interface LlamaDefaults extends RotaryDefaults {
  eps: number;
  /** Default: as many as heads. */
  keyValueHeads?: number;
  headDim?: number;
  /** Heads are as wide as latent attention says. */
  latent?: boolean;
}

/** What Llama and its relatives share. */
export function readLlamaFields(fields: Fields, defaults: LlamaDefaults): LanguageModelOptions {
  const heads = fields.count('num_attention_heads');
  const dModel = fields.count('hidden_size');
  const written = fields.get('head_dim') === undefined ? undefined : fields.count('head_dim');
  const headDim = written ?? (fields.has('head_dim') ? undefined : defaults.headDim) ?? dModel / heads;
  if (!Number.isInteger(headDim) && !defaults.latent)
    fields.wrong(
      `"hidden_size" ${dModel} is not a multiple of "num_attention_heads" ${heads}: write "head_dim"`,
    );
  const fewer = fields.has('num_key_value_heads') ? undefined : defaults.keyValueHeads;
  return {
    vocabularySize: fields.count('vocab_size'),
    dModel,
    layers: fields.layers('num_hidden_layers'),
    heads,
    keyValueHeads: fields.count('num_key_value_heads', fewer ?? heads),
    headDim,
    norm: 'rmsnorm',
    eps: fields.number('rms_norm_eps', defaults.eps),
    rotary: readRotary(fields, headDim, defaults),
    feedForward: {
      hidden: fields.count('intermediate_size'),
      activation: activationOf(fields),
      gated: true,
    },
    tieEmbeddings: fields.boolean('tie_word_embeddings', false),
    maxPositions: fields.count('max_position_embeddings', defaults.maxPositions),
    init: { std: fields.number('initializer_range', 0.02) },
  };
}

/** A dense model of Llama's form with gated feed-forward layers without bias. */
export const denseLlamaForm = (
  config: LanguageModelConfig,
  allowed: { partialRotary?: boolean } = {},
): FamilyNeed[] => [
  ...llamaForm(config, allowed),
  noMixture(config),
  gatedFeedForward(config),
  noFeedForwardBias(config),
  knownActivation(config.feedForward.activation),
];

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

/** The same with those of dense feed-forward layers. */
export const writeDenseLlamaFields = (config: LanguageModelConfig): JsonObject => ({
  ...writeLlamaFields(config),
  intermediate_size: config.feedForward.hidden,
  hidden_act: hiddenActOf(config.feedForward.activation),
});

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
  needs: (config) => [
    ...llamaForm(config),
    noMixture(config),
    gatedFeedForward(config),
    knownActivation(config.feedForward.activation),
    oneAttentionBias(config),
    queryKeyNorm(config, undefined),
    noWindow(config),
  ],
  write: (config) => ({
    ...writeDenseLlamaFields(config),
    attention_bias: config.attentionBias,
    mlp_bias: config.feedForward.bias,
  }),
  fileTensors: llamaTensors,
  ignorable: isRotaryBuffer,
};
