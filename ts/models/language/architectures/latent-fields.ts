import type { JsonObject } from '../../../storage/json.ts';
import type { LanguageModelConfig, LanguageModelOptions } from '../config.ts';
import type { FileTensor } from './architecture.ts';
import type { Fields } from './fields.ts';
import {
  denseLlamaForm,
  type LlamaDefaults,
  llamaTensors,
  readLlamaFields,
  writeDenseLlamaFields,
} from './llama.ts';
import { type FamilyNeed, noWindow, oneAttentionBias } from './needs.ts';
import { readRotary } from './rotary-fields.ts';

/** Whatever config.json says of others, the norms of latents have this one. */
const latentEps = 1e-6;

/** Everything of a model with latent attention but its mixture of experts. */
export function readLatentFields(
  fields: Fields,
  defaults: LlamaDefaults,
  interleaved: boolean,
): LanguageModelOptions {
  const {
    headDim: _,
    keyValueHeads,
    rotary: __,
    ...rest
  } = readLlamaFields(fields, { ...defaults, latent: true });
  fields.refuse(
    keyValueHeads !== rest.heads,
    `"num_key_value_heads": ${keyValueHeads} beside ${rest.heads} heads`,
  );
  const rotaryDim = fields.count('qk_rope_head_dim', 64);
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
  const queryRank = fields.optionalNumber('q_lora_rank', 1536);
  return {
    ...rest,
    attention: {
      kind: 'mla',
      ...(queryRank !== undefined && { queryRank }),
      keyValueRank: fields.count('kv_lora_rank', 512),
      contentDim: fields.count('qk_nope_head_dim', 128),
      rotaryDim,
      valueDim: fields.count('v_head_dim', 128),
      eps: latentEps,
    },
    rotary: { ...rotary, ...(interleaved && { interleaved }) },
    attentionBias: fields.boolean('attention_bias', false),
  };
}

/** Beside attention and experts a model of Llama's form; what these families call head_dim are the channels that turn. */
function withoutLatents(config: LanguageModelConfig): LanguageModelConfig {
  const { attention, moe: _, ...others } = config;
  const { interleaved: __, ...rotary } = config.rotary;
  return { ...others, headDim: attention?.rotaryDim ?? config.headDim, rotary };
}

/** The form that {@link readLatentFields} reads. */
export const latentForm = (config: LanguageModelConfig): FamilyNeed[] => [
  [config.attention !== undefined, 'attention without latents'],
  [(config.attention?.eps ?? latentEps) === latentEps, `norms of latents with eps ${config.attention?.eps}`],
  ...denseLlamaForm(withoutLatents(config)),
  oneAttentionBias(config),
  noWindow(config),
  [config.rotary.scaling?.kind !== 'longrope', 'rotary scaling "longrope"'],
];

/** The fields of {@link readLatentFields}. */
export function writeLatentFields(config: LanguageModelConfig): JsonObject {
  const { queryRank, keyValueRank, contentDim, rotaryDim, valueDim } = config.attention!;
  return {
    ...writeDenseLlamaFields(withoutLatents(config)),
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
