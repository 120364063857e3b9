import type { JsonObject } from '../../../storage/json.ts';
import type { LanguageModelConfig, LanguageModelOptions } from '../config.ts';
import type { FileTensor } from './architecture.ts';
import type { Fields } from './fields.ts';
import {
  commonWindow,
  hasDenseLlamaForm,
  type LlamaDefaults,
  llamaTensors,
  readLlamaFields,
  writeDenseLlamaFields,
} from './llama.ts';
import { readRotary } from './rotary-fields.ts';

/** Whatever config.json says of others, the norms of latents have this one. */
const latentEps = 1e-6;

/** Everything of a model with latent attention but its mixture of experts. */
export function readLatentFields(
  fields: Fields,
  defaults: LlamaDefaults,
  interleaved: boolean,
): LanguageModelOptions {
  const { headDim: _, keyValueHeads, rotary: __, ...rest } = readLlamaFields(fields, defaults);
  fields.refuse(
    keyValueHeads !== rest.heads,
    `"num_key_value_heads": ${keyValueHeads} beside ${rest.heads} heads`,
  );
  const rotaryDim = fields.number('qk_rope_head_dim', 64);
  const rotary = readRotary(fields, rotaryDim, defaults);
  const settings = fields.nested(
    fields.object('rope_scaling') === undefined ? 'rope_parameters' : 'rope_scaling',
  );
  fields.refuse(
    rotary.scaling !== undefined &&
      rotary.scaling.kind !== 'yarn' &&
      settings.get('mscale_all_dim') !== undefined,
    '"mscale_all_dim" without yarn',
  );
  const queryRank = fields.has('q_lora_rank') ? fields.optionalNumber('q_lora_rank') : 1536;
  return {
    ...rest,
    attention: {
      kind: 'mla',
      ...(queryRank !== undefined && { queryRank }),
      keyValueRank: fields.number('kv_lora_rank', 512),
      contentDim: fields.number('qk_nope_head_dim', 128),
      rotaryDim,
      valueDim: fields.number('v_head_dim', 128),
      eps: latentEps,
    },
    rotary: { ...rotary, ...(interleaved && { interleaved }) },
    attentionBias: fields.boolean('attention_bias', false),
  };
}

/** The fields of {@link readLatentFields}; undefined for a model that is not of this form. */
export function writeLatentFields(config: LanguageModelConfig): JsonObject | undefined {
  const { attention, rotary } = config;
  if (attention === undefined) return undefined;
  const { queryRank, keyValueRank, contentDim, rotaryDim, valueDim } = attention;
  // Beside attention and experts a model of Llama's form; what these families call head_dim are the channels that turn.
  const { attention: _, moe: __, ...others } = config;
  const rest = { ...others, headDim: rotaryDim, rotary: { ...rotary, interleaved: undefined } };
  const fits =
    hasDenseLlamaForm(rest) &&
    attention.eps === latentEps &&
    config.attentionBias === config.attentionOutputBias &&
    commonWindow(config) === null &&
    rotary.scaling?.kind !== 'longrope';
  const fields = writeDenseLlamaFields(rest);
  if (!fits || fields === undefined) return undefined;
  return {
    ...fields,
    attention_bias: config.attentionBias,
    q_lora_rank: queryRank ?? null,
    kv_lora_rank: keyValueRank,
    qk_nope_head_dim: contentDim,
    qk_rope_head_dim: rotaryDim,
    qk_head_dim: contentDim + rotaryDim,
    v_head_dim: valueDim,
  };
}

/** The file tensors of everything but experts and routers. Files lay out a head's query with the channels that turn last. */
export function latentTensors(
  name: string,
  shape: readonly number[],
  config: LanguageModelConfig,
): FileTensor[] {
  const [, layer, part, field] = /^blocks\.(\d+)\.attention\.(\w+)\.(weight|bias)$/.exec(name) ?? [];
  if (part === undefined || part === 'output') return llamaTensors(name, shape);
  const { queryRank, keyValueRank, contentDim, rotaryDim, valueDim } = config.attention!;
  const file = (theirs: string): string => `model.layers.${layer}.self_attn.${theirs}.${field}`;
  const rows = (
    theirs: string,
    height: number,
    parts: readonly (readonly [number, number])[],
  ): FileTensor[] =>
    parts.map(([from, to]) => ({ name: file(theirs), shape: [height, ...shape.slice(1)], rows: [from, to] }));
  /** Of each head's `width` rows these stretches. */
  const perHead = (theirs: string, width: number, stretches: readonly (readonly [number, number])[]) =>
    rows(
      theirs,
      config.heads * width,
      Array.from({ length: config.heads }, (_, head) =>
        stretches.map(([from, to]) => [head * width + from, head * width + to] as const),
      ).flat(),
    );
  const down = keyValueRank + rotaryDim;
  const head = contentDim + rotaryDim;
  switch (part) {
    case 'queryDown':
      return [{ name: file('q_a_proj'), shape }];
    case 'queryNorm':
      return [{ name: file('q_a_layernorm'), shape }];
    case 'query':
      return perHead(queryRank === undefined ? 'q_proj' : 'q_b_proj', head, [
        [contentDim, head],
        [0, contentDim],
      ]);
    case 'keyValueDown':
      return rows('kv_a_proj_with_mqa', down, [[0, keyValueRank]]);
    case 'rotaryKey':
      return rows('kv_a_proj_with_mqa', down, [[keyValueRank, down]]);
    case 'keyValueNorm':
      return [{ name: file('kv_a_layernorm'), shape }];
    case 'key':
      return perHead('kv_b_proj', contentDim + valueDim, [[0, contentDim]]);
    case 'value':
      return perHead('kv_b_proj', contentDim + valueDim, [[contentDim, contentDim + valueDim]]);
    default:
      return llamaTensors(name, shape);
  }
}
