import { fail } from '../../../native/index.ts';
import type { ActivationName } from '../../../nn/feed-forward.ts';
import type { JsonObject } from '../../../storage/json.ts';
import type { LanguageModelConfig, LanguageModelOptions } from '../config.ts';
import type { Architecture, FileTensor } from './architecture.ts';
import { Fields } from './fields.ts';

const activations: Record<string, ActivationName> = {
  silu: 'silu',
  swish: 'silu',
  relu: 'relu',
  gelu: 'gelu',
  gelu_new: 'geluTanh',
  gelu_pytorch_tanh: 'geluTanh',
  quick_gelu: 'quickGelu',
};

/** Our activation of `hidden_act`. */
export function activationOf(fields: Fields): ActivationName {
  const name = fields.string('hidden_act', 'silu');
  return (
    activations[name] ??
    fields.wrong(`"hidden_act": "${name}" is not one of ${Object.keys(activations).join(', ')}`)
  );
}

/** Hugging Face's name of an activation of ours. */
export function hiddenActOf(activation: ActivationName): string | undefined {
  return Object.entries(activations).find(([, ours]) => ours === activation)?.[0];
}

/** The base of rotary embedding, in the spelling of transformers 4 or 5. */
export function rotaryBaseOf(fields: Fields, fallback: number): number {
  const parameters = new Fields(fields.object('rope_parameters') ?? {}, 'config.json: rope_parameters');
  const scaling = fields.object('rope_scaling');
  const kind = parameters.string(
    'rope_type',
    scaling === undefined ? 'default' : String(scaling.rope_type ?? scaling.type ?? 'default'),
  );
  fields.refuse(kind !== 'default', `rotary scaling "${kind}"`);
  return parameters.optionalNumber('rope_theta') ?? fields.number('rope_theta', fallback);
}

/** What Llama and its relatives share. */
export function readLlamaFields(fields: Fields, rotaryBase: number): LanguageModelOptions {
  const heads = fields.number('num_attention_heads');
  const dModel = fields.number('hidden_size');
  const headDim = fields.optionalNumber('head_dim') ?? dModel / heads;
  const fraction = fields.number('partial_rotary_factor', 1);
  return {
    vocabularySize: fields.number('vocab_size'),
    dModel,
    layers: fields.number('num_hidden_layers'),
    heads,
    keyValueHeads: fields.number('num_key_value_heads', heads),
    headDim,
    norm: 'rmsnorm',
    eps: fields.number('rms_norm_eps', 1e-6),
    rotary: { fraction, base: rotaryBase },
    feedForward: {
      hidden: fields.number('intermediate_size'),
      activation: activationOf(fields),
      gated: true,
      bias: fields.boolean('mlp_bias', false),
    },
    attentionBias: fields.boolean('attention_bias', false),
    tieEmbeddings: fields.boolean('tie_word_embeddings', false),
    maxPositions: fields.number('max_position_embeddings', 2048),
    init: { std: fields.number('initializer_range', 0.02) },
  };
}

/** Whether a model has the form of Llama outside its feed-forward layers. */
export function hasLlamaForm(config: LanguageModelConfig): boolean {
  return (
    config.norm === 'rmsnorm' &&
    config.rotary.dims === config.headDim &&
    config.attentionBias === config.attentionOutputBias &&
    !config.outputBias
  );
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
    attention_bias: config.attentionBias,
    rope_theta: config.rotary.base,
    rope_parameters: { rope_type: 'default', rope_theta: config.rotary.base },
    initializer_range: config.init === 'libmoe' ? 0.02 : config.init.std,
  };
}

const renamed: Record<string, string> = {
  'attentionNorm.weight': 'input_layernorm.weight',
  'feedForwardNorm.weight': 'post_attention_layernorm.weight',
  'attention.query': 'self_attn.q_proj',
  'attention.key': 'self_attn.k_proj',
  'attention.value': 'self_attn.v_proj',
  'attention.output': 'self_attn.o_proj',
};
const whole: Record<string, string> = {
  'embedding.weight': 'model.embed_tokens.weight',
  'finalNorm.weight': 'model.norm.weight',
  'output.weight': 'lm_head.weight',
};

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
    return readLlamaFields(fields, rotaryBaseOf(fields, 10000));
  },
  write(config) {
    const { feedForward } = config;
    const hiddenAct = hiddenActOf(feedForward.activation);
    if (!hasLlamaForm(config) || config.moe || config.window || !feedForward.gated || !hiddenAct)
      return undefined;
    return {
      ...writeLlamaFields(config),
      intermediate_size: feedForward.hidden,
      hidden_act: hiddenAct,
      mlp_bias: feedForward.bias,
    };
  },
  fileTensors: llamaTensors,
  ignorable: (name) => name.endsWith('rotary_emb.inv_freq'),
};
