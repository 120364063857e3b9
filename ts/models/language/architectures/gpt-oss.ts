import type { JsonObject } from '../../../storage/json.ts';
import type { Architecture, FileTensor } from './architecture.ts';
import {
  dropless,
  expertsEverywhere,
  normalised,
  noSharedExpert,
  routedBy,
  unscaled,
  weighsOutputs,
} from './expert-fields.ts';
import { Fields } from './fields.ts';
import { isRotaryBuffer, llamaTensors, readLlamaFields, writeLlamaFields } from './llama.ts';
import {
  llamaForm,
  needsMixture,
  oneAttentionBias,
  oneWindowSize,
  queryKeyNorm,
  windowSizes,
} from './needs.ts';
import { readLayerTypes, writeLayerTypes } from './qwen.ts';

/** Rotary scaling where config.json says nothing of it. */
const usualScaling: JsonObject = {
  rope_type: 'yarn',
  factor: 32,
  beta_fast: 32,
  beta_slow: 1,
  truncate: false,
  original_max_position_embeddings: 4096,
};

/** The published files say some things under older names, and nothing of the scaling's defaults. */
function withDefaults(json: JsonObject): JsonObject {
  const scaled = (json.rope_parameters ?? json.rope_scaling ?? null) !== null;
  return {
    ...json,
    ...(!scaled && { rope_parameters: usualScaling }),
    num_local_experts: json.num_local_experts ?? json.num_experts ?? 128,
    num_experts_per_tok: json.num_experts_per_tok ?? json.experts_per_token ?? 4,
  };
}

/** Windows by layer: as `layer_types` says, else every other layer from the first on. */
function readWindows(fields: Fields, layers: number): (number | null)[] {
  const window = fields.optionalNumber('sliding_window', 128) ?? null;
  const slides =
    fields.get('layer_types') === undefined
      ? Array.from({ length: layers }, (_, layer) => layer % 2 === 0)
      : readLayerTypes(fields, layers);
  if (window === null && slides.includes(true))
    fields.wrong('"layer_types" names sliding_attention, which needs "sliding_window"');
  return slides.map((slide) => (slide ? window : null));
}

/**
 * gpt-oss (OpenAI 2025, arXiv 2508.10925): Llama's form with biases, a window in every other layer and attention sinks; in every layer a router with
 * bias, the softmax of the chosen logits as weights, and experts with biases and a clamped SwiGLU, whose gate and up columns alternate in the file.
 */
export const gptOss: Architecture = {
  name: 'GptOssForCausalLM',
  modelType: 'gpt_oss',
  quantisations: ['mxfp4'],
  read(json, source) {
    const fields = new Fields(withDefaults(json), source);
    fields.refuse(fields.string('hidden_act', 'silu') !== 'silu', 'another "hidden_act" than silu');
    fields.refuse(fields.number('swiglu_limit', 7) !== 7, 'another "swiglu_limit" than 7');
    const { feedForward, ...rest } = readLlamaFields(fields, {
      base: 150_000,
      maxPositions: 131_072,
      eps: 1e-5,
      keyValueHeads: 8,
      headDim: 64,
    });
    return {
      ...rest,
      attentionBias: fields.boolean('attention_bias', true),
      attentionSinks: true,
      window: readWindows(fields, rest.layers),
      moe: {
        layers: 'all',
        experts: fields.count('num_local_experts'),
        topK: fields.count('num_experts_per_tok'),
        router: { name: 'smoe', bias: true, activationAfterTopK: true },
        expert: { hidden: feedForward!.hidden, activation: 'clampedSwiglu', gated: true, bias: true },
      },
    };
  },
  needs: (config) => [
    ...llamaForm(config, { sinks: true }),
    [config.attentionSinks === true, 'attention without sinks'],
    oneAttentionBias(config),
    queryKeyNorm(config, undefined),
    oneWindowSize(config),
    ...needsMixture(config, (moe) => [
      expertsEverywhere(config),
      routedBy(moe, 'smoe'),
      [moe.router.bias === true, 'a router without bias'],
      normalised(moe), // the sum of 1 that it leaves is that of a softmax over the chosen
      [moe.expert.activation === 'clampedSwiglu', `activation "${moe.expert.activation}" of experts`],
      [moe.expert.bias, 'experts without biases'],
      noSharedExpert(moe),
      weighsOutputs(moe),
      unscaled(moe),
      dropless(moe),
    ]),
  ],
  write(config) {
    const moe = config.moe!;
    return {
      ...writeLlamaFields(config),
      intermediate_size: moe.expert.hidden,
      hidden_act: 'silu',
      attention_bias: config.attentionBias,
      num_local_experts: moe.experts,
      num_experts_per_tok: moe.topK,
      sliding_window: windowSizes(config)[0] ?? null,
      layer_types: writeLayerTypes(config),
    };
  },
  fileTensors(name, shape): FileTensor[] {
    const [, layer, rest] = /^blocks\.(\d+)\.(.+)$/.exec(name) ?? [];
    const prefix = `model.layers.${layer}.`;
    const experts = `${prefix}mlp.experts.`;
    const [count = 0, rows = 0, columns = 0] = shape;
    switch (rest) {
      case 'attention.sinks':
        return [{ name: `${prefix}self_attn.sinks`, shape }];
      case 'moe.router.weight':
      case 'moe.router.bias':
        return [{ name: `${prefix}mlp.${rest.slice('moe.'.length)}`, shape }];
      case 'moe.experts.up': // [experts, gate or up, hidden, d]; in the file d is outside and gate or up inside
        return [
          {
            name: `${experts}gate_up_proj`,
            shape: [count, columns, rows],
            arranged: { shape: [count, 2, rows / 2, columns], axes: [0, 3, 2, 1], mxfp4: [0, 2, 1, 3] },
          },
        ];
      case 'moe.experts.upBias':
        return [
          {
            name: `${experts}gate_up_proj_bias`,
            shape,
            arranged: { shape: [count, 2, rows / 2], axes: [0, 2, 1] },
          },
        ];
      case 'moe.experts.down':
        return [
          {
            name: `${experts}down_proj`,
            shape: [count, columns, rows],
            arranged: { shape, axes: [0, 2, 1], mxfp4: [0, 1, 2] },
          },
        ];
      case 'moe.experts.downBias':
        return [{ name: `${experts}down_proj_bias`, shape }];
      default:
        return llamaTensors(name, shape);
    }
  },
  ignorable: isRotaryBuffer,
};
