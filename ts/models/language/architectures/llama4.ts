import type { JsonObject } from '../../../storage/json.ts';
import {
  chunksOf,
  type LanguageModelConfig,
  type LanguageModelOptions,
  type MoeConfig,
  moeLayersOf,
  turningLayersOf,
} from '../config.ts';
import type { LayerSelection } from '../layer-selection.ts';
import type { Architecture, FileTensor } from './architecture.ts';
import {
  dropless,
  gatedExperts,
  noExpertBias,
  noRouterBias,
  noSigmoidGate,
  oneActivation,
  routedBy,
  selectionOf,
  sharedSum,
  stepOf,
  unscaled,
  withSharedExpert,
} from './expert-fields.ts';
import { Fields } from './fields.ts';
import {
  isRotaryBuffer,
  knownActivation,
  llamaTensors,
  readLlamaFields,
  writeDenseLlamaFields,
} from './llama.ts';
import {
  type FamilyNeed,
  gatedFeedForward,
  llamaForm,
  needsMixture,
  noFeedForwardBias,
  noWindow,
  oneAttentionBias,
  queryKeyNorm,
  turnsNeighbours,
} from './needs.ts';

const chunked = 'chunked_attention';
const full = 'full_attention';

/** `no_rope_layers` has a 1 for each layer that turns (its name notwithstanding); without it every `no_rope_layer_interval`th does not. */
function readTurning(fields: Fields, layers: number): number[] {
  const every = fields.count('no_rope_layer_interval', 4);
  const given = fields.get('no_rope_layers') === undefined ? [] : fields.numbers('no_rope_layers');
  if (given.length > 0 && given.length < layers)
    fields.wrong(`"no_rope_layers" must list ${layers} layers, got ${given.length}`);
  const turning = Array.from({ length: layers }, (_, layer) => layer).filter((layer) =>
    given.length > 0 ? given[layer] !== 0 : (layer + 1) % every !== 0,
  );
  fields.refuse(turning.length === 0, 'a model without any layer that turns ("no_rope_layers")');
  return turning;
}

/** The layers that `layer_types` names, or those that turn, see pieces of sequences. */
function readChunk(
  fields: Fields,
  layers: number,
  turning: readonly number[],
): LanguageModelOptions['chunk'] {
  const types = fields.get('layer_types');
  if (types !== undefined) {
    const known = Array.isArray(types) && types.every((type) => type === chunked || type === full);
    if (!known || types.length !== layers)
      fields.wrong(
        `"layer_types" must be a list of ${layers} times "${full}" or "${chunked}", got ${JSON.stringify(types)}`,
      );
  }
  const chosen = Array.isArray(types)
    ? types.flatMap((type, layer) => (type === chunked ? [layer] : []))
    : turning;
  if (chosen.length === 0) return undefined;
  const size = fields.optionalNumber('attention_chunk_size', 8192);
  if (size === undefined)
    return fields.wrong(`layers of "${chunked}" need "attention_chunk_size", which is null`);
  return { size, layers: selectionOf(chosen, layers) };
}

/** `moe_layers`, or every `interleave_moe_layer_step`th layer. Undefined: no layer. */
function readMoeLayers(fields: Fields, layers: number): LayerSelection | undefined {
  const step = fields.count('interleave_moe_layer_step', 1);
  const every = Array.from({ length: layers }, (_, layer) => layer).filter(
    (layer) => (layer + 1) % step === 0,
  );
  const chosen = fields.get('moe_layers') === undefined ? every : fields.numbers('moe_layers');
  return chosen.length === 0 ? undefined : selectionOf(chosen, layers, step);
}

/** Early files have a number there. */
function readTemperature(fields: Fields): LanguageModelOptions['temperature'] {
  const on = fields.get('attn_temperature_tuning');
  if (on === false || on === 0) return undefined;
  return { strength: fields.number('attn_scale', 0.1), every: fields.number('floor_scale', 8192) };
}

function readText(fields: Fields): LanguageModelOptions {
  const defaults = { base: 500_000, maxPositions: 131_072, eps: 1e-5, keyValueHeads: 8, headDim: 128 };
  const { feedForward, rotary, ...rest } = readLlamaFields(fields, defaults);
  const { hidden, activation } = feedForward!;
  const turning = readTurning(fields, rest.layers);
  const moeLayers = readMoeLayers(fields, rest.layers);
  return {
    ...rest,
    rotary: { ...rotary, interleaved: true, layers: turning },
    feedForward: { hidden: fields.count('intermediate_size_mlp', 16_384), activation, gated: true },
    attentionBias: fields.boolean('attention_bias', false),
    qkNorm: fields.boolean('use_qk_norm', true) ? 'turned' : undefined,
    chunk: readChunk(fields, rest.layers, turning),
    temperature: turning.length < rest.layers ? readTemperature(fields) : undefined,
    ...(moeLayers && {
      moe: {
        layers: moeLayers,
        experts: fields.count('num_local_experts', 16),
        topK: fields.count('num_experts_per_tok', 1),
        router: { name: 'sigmoid', normalise: false },
        weighted: 'inputs',
        expert: { hidden, activation, gated: true },
        shared: { hidden },
      },
    }),
  };
}

/** A sigmoid of each chosen logit times the input of an expert, beside a shared block of an expert's width. */
const llama4Experts = (moe: MoeConfig): FamilyNeed[] => [
  routedBy(moe, 'sigmoid'),
  noRouterBias(moe),
  [
    moe.router.normalise === false || moe.router.activationAfterTopK === true,
    'weights that are divided by their sum',
  ],
  [moe.weighted === 'inputs', "weights of experts' outputs"],
  gatedExperts(moe),
  noExpertBias(moe),
  withSharedExpert(moe),
  [
    moe.shared === undefined || moe.shared.hidden === moe.expert.hidden,
    'a shared expert of another width than the routed ones',
  ],
  noSigmoidGate(moe),
  sharedSum(moe),
  unscaled(moe),
  dropless(moe),
];

function tensorsOf(name: string, shape: readonly number[], prefix: string): FileTensor[] {
  const [, layer, rest] = /^blocks\.(\d+)\.((?:moe|feedForward)\..+)$/.exec(name) ?? [];
  if (rest === undefined)
    return llamaTensors(name, shape).map((part) => ({ ...part, name: prefix + part.name }));
  const block = `${prefix}model.layers.${layer}.feed_forward.`;
  const halves = (of: string): FileTensor[] =>
    ['gate_proj', 'up_proj'].map((matrix) => ({
      name: `${of}${matrix}.weight`,
      shape: [shape[0]! / 2, shape[1]!],
    }));
  const fused = (matrix: string): FileTensor[] => [
    { name: `${block}experts.${matrix}`, shape: [shape[0]!, shape[2]!, shape[1]!], transposed: true },
  ];
  switch (rest) {
    case 'moe.router.weight':
      return [{ name: `${block}router.weight`, shape }];
    case 'moe.experts.up':
      return fused('gate_up_proj');
    case 'moe.experts.down':
      return fused('down_proj');
    case 'moe.shared.up':
      return halves(`${block}shared_expert.`);
    case 'moe.shared.down':
      return [{ name: `${block}shared_expert.down_proj.weight`, shape }];
    case 'feedForward.up':
      return halves(block);
    default:
      return [{ name: `${block}down_proj.weight`, shape }];
  }
}

/**
 * The text model of Llama 4 (Meta 2025): experts weighted before they compute, beside a shared one; layers that turn (neighbouring channels, then a
 * norm of each head) and see pieces of the sequence, and layers without positions that see all of it.
 */
export const llama4: Architecture = {
  name: 'Llama4ForCausalLM',
  modelType: 'llama4_text',
  read: (json, source) => readText(new Fields(json, source)),
  needs(config) {
    const { rotary } = config;
    const plain: LanguageModelConfig = {
      ...config,
      rotary: { dims: rotary.dims, base: rotary.base },
      chunk: undefined,
    };
    return [
      ...llamaForm(plain),
      turnsNeighbours(config),
      ...needsMixture(config, (moe) => [...llama4Experts(moe), oneActivation(config)]),
      oneAttentionBias(config),
      queryKeyNorm(config, undefined, 'turned'),
      noWindow(config),
      knownActivation(config.feedForward.activation),
      gatedFeedForward(config),
      noFeedForwardBias(config),
    ];
  },
  write(config) {
    const { feedForward, chunk, temperature } = config;
    const moe = config.moe!;
    const turning = turningLayersOf(config);
    return {
      ...writeDenseLlamaFields(config),
      intermediate_size: moe.expert.hidden,
      intermediate_size_mlp: feedForward.hidden,
      num_local_experts: moe.experts,
      num_experts_per_tok: moe.topK,
      interleave_moe_layer_step: stepOf(moe.layers),
      moe_layers: moeLayersOf(config),
      use_qk_norm: config.qkNorm === 'turned',
      no_rope_layer_interval: 4, // without effect beside the list
      no_rope_layers: Array.from({ length: config.layers }, (_, layer) => (turning.includes(layer) ? 1 : 0)),
      attention_chunk_size: chunk?.size ?? 8192, // transformers needs one
      layer_types: chunksOf(config).map((size) => (size === undefined ? full : chunked)),
      attn_temperature_tuning: temperature !== undefined,
      floor_scale: temperature?.every ?? 8192,
      attn_scale: temperature?.strength ?? 0.1,
      attention_bias: config.attentionBias,
    };
  },
  fileTensors: (name, shape) => tensorsOf(name, shape, ''),
  ignorable: isRotaryBuffer,
};

/** What Llama 4 is published as: the text model beside one for images, which is left unread. It is written as {@link llama4}. */
export const llama4WithImages: Architecture = {
  name: 'Llama4ForConditionalGeneration',
  modelType: 'llama4',
  read(json, source) {
    const fields = new Fields(json, source);
    const text: JsonObject | undefined = fields.object('text_config');
    return text === undefined
      ? fields.wrong('"text_config" is missing')
      : readText(fields.nested('text_config'));
  },
  needs: (config) => [...llama4.needs(config), [false, 'text alone']],
  write: (config) => llama4.write(config),
  fileTensors: (name, shape) => tensorsOf(name, shape, 'language_model.'),
  ignorable: (name) => /^(vision_model|multi_modal_projector)\./.test(name) || isRotaryBuffer(name),
};
