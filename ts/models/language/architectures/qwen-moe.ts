import type { JsonObject } from '../../../storage/json.ts';
import {
  type LanguageModelConfig,
  type LanguageModelOptions,
  type MoeConfig,
  moeLayersOf,
} from '../config.ts';
import type { LayerSelection } from '../layer-selection.ts';
import type { Architecture } from './architecture.ts';
import {
  expertTensors,
  mlpExperts,
  normalises,
  noSharedExpert,
  oneActivation,
  selectionOf,
  sharedSum,
  softmaxExperts,
  softmaxRouter,
  stepOf,
  withSharedExpert,
} from './expert-fields.ts';
import { Fields } from './fields.ts';
import {
  isRotaryBuffer,
  knownActivation,
  type LlamaDefaults,
  readLlamaFields,
  writeDenseLlamaFields,
} from './llama.ts';
import {
  commonWindow,
  type FamilyNeed,
  gatedFeedForward,
  llamaForm,
  needsMixture,
  noAttentionOutputBias,
  noFeedForwardBias,
  oneAttentionBias,
  oneWindow,
  oneWindowSize,
  queryKeyNorm,
} from './needs.ts';
import { readLayerWindows, writeLayerWindows } from './qwen.ts';

const defaults: LlamaDefaults = { base: 10_000, maxPositions: 32_768, eps: 1e-6 };

/** Every `decoder_sparse_step`th layer has experts, unless `mlp_only_layers` names it. Undefined: no layer. */
function readMoeLayers(fields: Fields, layers: number): LayerSelection | undefined {
  const step = fields.count('decoder_sparse_step', 1);
  const dense = fields.get('mlp_only_layers') === undefined ? [] : fields.numbers('mlp_only_layers');
  const chosen = Array.from({ length: layers }, (_, layer) => layer).filter(
    (layer) => (layer + 1) % step === 0 && !dense.includes(layer),
  );
  if (chosen.length === 0 || fields.number('num_experts', 1) === 0) return undefined;
  return selectionOf(chosen, layers, step);
}

function writeMoeLayers(config: LanguageModelConfig): JsonObject {
  const step = stepOf(config.moe?.layers);
  const chosen = moeLayersOf(config);
  const dense = Array.from({ length: config.layers }, (_, layer) => layer).filter(
    (layer) => !chosen.includes(layer),
  );
  return { decoder_sparse_step: step, mlp_only_layers: step === 1 ? dense : [] };
}

/** What both families say of their experts; `moe` is absent when no layer has any. */
function readExperts(
  fields: Fields,
  rest: LanguageModelOptions,
  usual: { experts: number; topK: number; hidden: number },
): Pick<LanguageModelOptions, 'moe'> {
  const layers = readMoeLayers(fields, rest.layers);
  if (layers === undefined) return {};
  return {
    moe: {
      layers,
      experts: fields.count('num_experts', fields.count('num_local_experts', usual.experts)),
      topK: fields.count('num_experts_per_tok', usual.topK),
      router: softmaxRouter(fields.boolean('norm_topk_prob', false)),
      expert: {
        hidden: fields.count('moe_intermediate_size', usual.hidden),
        activation: rest.feedForward!.activation,
        gated: true,
      },
    },
  };
}

/** A model of Llama's form with such experts, and dense layers of the same kind. */
const mixedForm = (
  config: LanguageModelConfig,
  more: (moe: MoeConfig) => readonly FamilyNeed[],
): FamilyNeed[] => [
  ...llamaForm(config),
  ...needsMixture(config, (moe) => [...softmaxExperts(moe), oneActivation(config), ...more(moe)]),
  knownActivation(config.feedForward.activation),
  gatedFeedForward(config),
  noFeedForwardBias(config),
];

/** The fields of such a model. */
function writeExperts(config: LanguageModelConfig): JsonObject {
  const moe = config.moe!;
  return {
    ...writeDenseLlamaFields(config),
    ...writeMoeLayers(config),
    moe_intermediate_size: moe.expert.hidden,
    num_experts: moe.experts,
    num_experts_per_tok: moe.topK,
    norm_topk_prob: normalises(moe),
  };
}

/** Qwen2-MoE (Qwen1.5-MoE-A2.7B; arXiv 2407.10671): Qwen2 with experts and a block for every token, times a sigmoid of the token. */
export const qwen2Moe: Architecture = {
  name: 'Qwen2MoeForCausalLM',
  modelType: 'qwen2_moe',
  read(json, source) {
    const fields = new Fields(json, source);
    const rest = readLlamaFields(fields, { ...defaults, keyValueHeads: 16 });
    fields.refuse(
      fields.boolean('use_sliding_window', false) && fields.get('layer_types') === undefined,
      '"use_sliding_window" without "layer_types", of which versions of transformers make different layers,',
    );
    const { moe } = readExperts(fields, rest, { experts: 60, topK: 4, hidden: 1408 });
    const shared = { hidden: fields.count('shared_expert_intermediate_size', 5632), sigmoidGate: true };
    return {
      ...rest,
      attentionBias: fields.boolean('qkv_bias', true),
      attentionOutputBias: false,
      window: readLayerWindows(fields, rest.layers),
      ...(moe && { moe: { ...moe, shared } }),
    };
  },
  needs: (config) => [
    ...mixedForm(config, (moe) => [
      withSharedExpert(moe),
      [moe.shared === undefined || moe.shared.sigmoidGate === true, 'a shared expert without sigmoidGate'],
      sharedSum(moe),
    ]),
    noAttentionOutputBias(config),
    queryKeyNorm(config, undefined),
    oneWindowSize(config),
  ],
  write: (config) => ({
    ...writeExperts(config),
    ...writeLayerWindows(config),
    qkv_bias: config.attentionBias,
    shared_expert_intermediate_size: config.moe!.shared!.hidden,
  }),
  fileTensors: (name, shape) => expertTensors(name, shape, mlpExperts),
  ignorable: isRotaryBuffer,
};

/** Qwen3-MoE (arXiv 2505.09388): Qwen3 with experts, none of them shared; one window for all layers. */
export const qwen3Moe: Architecture = {
  name: 'Qwen3MoeForCausalLM',
  modelType: 'qwen3_moe',
  read(json, source) {
    const fields = new Fields(json, source);
    const rest = readLlamaFields(fields, { ...defaults, keyValueHeads: 4 });
    fields.refuse(fields.get('layer_types') !== undefined, '"layer_types" in a Qwen3-MoE model');
    const slides = fields.boolean('use_sliding_window', false);
    const size = fields.optionalNumber('sliding_window', 4096);
    return {
      ...rest,
      attentionBias: fields.boolean('attention_bias', false),
      qkNorm: 'head',
      window: slides ? size : undefined,
      ...readExperts(fields, rest, { experts: 128, topK: 8, hidden: 768 }),
    };
  },
  needs: (config) => [
    ...mixedForm(config, (moe) => [noSharedExpert(moe)]),
    oneAttentionBias(config),
    queryKeyNorm(config, 'head'),
    oneWindow(config),
  ],
  write(config) {
    const window = commonWindow(config)!;
    return {
      ...writeExperts(config),
      num_local_experts: config.moe!.experts, // its name in transformers 5
      attention_bias: config.attentionBias,
      use_sliding_window: window !== null,
      sliding_window: window,
    };
  },
  fileTensors: (name, shape) => expertTensors(name, shape, mlpExperts),
  ignorable: isRotaryBuffer,
};
