import type { JsonObject } from '../../../storage/json.ts';
import {
  type LanguageModelConfig,
  type LanguageModelOptions,
  type MoeConfig,
  moeLayersOf,
} from '../config.ts';
import type { Architecture, FileTensor } from './architecture.ts';
import { expertTensors, mlpExperts } from './expert-fields.ts';
import { Fields } from './fields.ts';
import { latentTensors, readLatentFields, writeLatentFields } from './latent-fields.ts';
import { isRotaryBuffer } from './llama.ts';

/** What the two families assume where config.json is silent. */
interface MixtureDefaults {
  firstMoe: number;
  experts: number;
  shared: number;
  topK?: number;
  hidden: number;
  scaling: number;
}

/** Sizes and places of the experts beside a router. */
function readMixture(
  fields: Fields,
  model: LanguageModelOptions,
  defaults: MixtureDefaults,
): Omit<NonNullable<LanguageModelOptions['moe']>, 'router'> | undefined {
  fields.refuse(fields.number('moe_layer_freq', 1) !== 1, 'a "moe_layer_freq" other than 1');
  const first = fields.number('first_k_dense_replace', defaults.firstMoe);
  if (first >= model.layers) return undefined;
  const hidden = fields.number('moe_intermediate_size', defaults.hidden);
  const shared = fields.number('n_shared_experts', defaults.shared);
  fields.refuse(shared < 1, 'a mixture without shared experts');
  return {
    layers: first === 0 ? 'all' : Array.from({ length: model.layers - first }, (_, i) => first + i),
    experts: fields.number('n_routed_experts', defaults.experts),
    topK: fields.number('num_experts_per_tok', defaults.topK),
    expert: { ...model.feedForward!, hidden },
    shared: { hidden: shared * hidden },
    routedScaling: fields.number('routed_scaling_factor', defaults.scaling),
  };
}

/** The balance loss that the original code trains with; transformers has none. */
function readBalance(fields: Fields, alpha?: number): JsonObject {
  const balanceCoefficient = fields.optionalNumber('aux_loss_alpha') ?? alpha;
  return {
    ...(balanceCoefficient !== undefined && { balanceCoefficient }),
    ...(fields.boolean('seq_aux', true) ? {} : { balanceOver: 'batch' }),
  };
}

const groupsOf = (moe: MoeConfig): { count: number; kept: number } | undefined =>
  moe.router.groups as { count: number; kept: number } | undefined;

/** The fields of {@link readMixture} and {@link readBalance}, groups apart; undefined for a mixture that is not of this form. */
function writeMixture(config: LanguageModelConfig): JsonObject | undefined {
  const { moe, feedForward, layers } = config;
  if (moe === undefined) return { first_k_dense_replace: layers };
  const first = layers - moeLayersOf(config).length;
  const { expert, shared, router } = moe;
  const fits =
    moeLayersOf(config)[0] === first &&
    expert.gated &&
    !expert.bias &&
    expert.activation === feedForward.activation &&
    shared !== undefined &&
    shared.hidden % expert.hidden === 0 &&
    !shared.sigmoidGate &&
    moe.sharedMix === 'sum' &&
    moe.weighted !== 'inputs' &&
    moe.capacityFactor === undefined &&
    router.bias !== true;
  if (!fits) return undefined;
  return {
    first_k_dense_replace: first,
    n_routed_experts: moe.experts,
    n_shared_experts: shared.hidden / expert.hidden,
    num_experts_per_tok: moe.topK,
    moe_intermediate_size: expert.hidden,
    routed_scaling_factor: moe.routedScaling,
    ...(typeof router.balanceCoefficient === 'number' && { aux_loss_alpha: router.balanceCoefficient }),
    seq_aux: router.balanceOver !== 'batch',
  };
}

const names = { ...mlpExperts, shared: 'shared_experts' };

function fileTensors(name: string, shape: readonly number[], config: LanguageModelConfig): FileTensor[] {
  const [, layer, part] = /^blocks\.(\d+)\.moe\.(.+)$/.exec(name) ?? [];
  if (part === undefined) return latentTensors(name, shape, config);
  if (part !== 'router.selectionBias') return expertTensors(name, shape, names);
  return [{ name: `model.layers.${layer}.mlp.gate.e_score_correction_bias`, shape }];
}

/** Layers beyond the last predict further tokens (DeepSeek-V3 §2.2); neither transformers nor we run them. */
function ignorable(name: string, config: LanguageModelConfig): boolean {
  const layer = /^model\.layers\.(\d+)\./.exec(name)?.[1];
  return isRotaryBuffer(name) || (layer !== undefined && Number(layer) >= config.layers);
}

/** Whether the router weighs experts by their probabilities as they are. */
const leavesProbabilities = ({ router, compat }: MoeConfig): boolean =>
  router.activationAfterTopK !== true &&
  (compat === 'original' ? router.normalise !== true : router.normalise === false);

/**
 * DeepSeek-V2 and V2-Lite (arXiv 2405.04434): latent attention, dense first layers, then softmax routing beside shared experts, whose weights are the
 * chosen probabilities as they are.
 */
export const deepseekV2: Architecture = {
  name: 'DeepseekV2ForCausalLM',
  modelType: 'deepseek_v2',
  read(json, source) {
    const fields = new Fields(json, source);
    const model = readLatentFields(fields, { base: 10000, maxPositions: 2048, eps: 1e-6 }, true);
    fields.refuse(fields.boolean('mlp_bias', false), '"mlp_bias"');
    const moe = readMixture(fields, model, { firstMoe: 0, experts: 64, shared: 2, hidden: 1407, scaling: 1 });
    if (moe === undefined) return model;
    const scores = fields.string('scoring_func', 'softmax');
    fields.refuse(scores !== 'softmax', `"scoring_func": "${scores}"`);
    // The original code divides by the sum and then leaves out the scaling; transformers does neither.
    fields.refuse(fields.boolean('norm_topk_prob', false), '"norm_topk_prob"');
    const method = fields.string('topk_method', 'greedy');
    const grouped = method === 'group_limited_greedy';
    fields.refuse(!grouped && method !== 'greedy', `"topk_method": "${method}"`);
    const groups = grouped
      ? { count: fields.number('n_group'), kept: fields.number('topk_group') }
      : undefined;
    return {
      ...model,
      moe: {
        ...moe,
        compat: 'original',
        router: { name: 'shared-v2', ...(groups && { groups }), ...readBalance(fields, 0.001) },
      },
    };
  },
  write(config) {
    const { moe } = config;
    const fits =
      config.rotary.interleaved === true &&
      config.dModel % config.heads === 0 &&
      (moe === undefined || (moe.router.name === 'shared-v2' && leavesProbabilities(moe)));
    const [latent, mixture] = [writeLatentFields(config), writeMixture(config)];
    if (!fits || !latent || !mixture) return undefined;
    const groups = moe && groupsOf(moe);
    return {
      ...latent,
      ...mixture,
      mlp_bias: false,
      norm_topk_prob: false,
      scoring_func: 'softmax',
      topk_method: groups ? 'group_limited_greedy' : 'greedy',
      n_group: groups?.count ?? 1,
      topk_group: groups?.kept ?? 1,
    };
  },
  fileTensors,
  ignorable,
};

/**
 * DeepSeek-V3 and R1 (arXiv 2412.19437): as V2, but experts are chosen by sigmoids that biases correct, from the best groups, and weights are the
 * sigmoids alone, divided by their sum.
 */
export const deepseekV3: Architecture = {
  name: 'DeepseekV3ForCausalLM',
  modelType: 'deepseek_v3',
  read(json, source) {
    const fields = new Fields(json, source);
    const interleaved = fields.boolean('rope_interleave', true);
    const model = readLatentFields(fields, { base: 10000, maxPositions: 4096, eps: 1e-6 }, interleaved);
    const defaults = { firstMoe: 3, experts: 256, shared: 1, topK: 8, hidden: 2048, scaling: 2.5 };
    const moe = readMixture(fields, model, defaults);
    if (moe === undefined) return model;
    for (const [name, known] of [
      ['scoring_func', 'sigmoid'],
      ['topk_method', 'noaux_tc'],
    ] as const) {
      const given = fields.string(name, known);
      fields.refuse(given !== known, `"${name}": "${given}"`);
    }
    const groups = { count: fields.number('n_group', 8), kept: fields.number('topk_group', 4) };
    return {
      ...model,
      moe: {
        ...moe,
        router: {
          name: 'shared-v3',
          ...(groups.count > 1 && { groups }),
          ...(fields.boolean('norm_topk_prob', true) ? {} : { normalise: false }),
          ...readBalance(fields),
        },
      },
    };
  },
  write(config) {
    const { moe } = config;
    const groups = moe && groupsOf(moe);
    const fits =
      moe === undefined ||
      (moe.router.name === 'shared-v3' &&
        moe.compat !== 'libmoe' &&
        // A group is told by its two best experts.
        moe.experts / (groups?.count ?? 1) >= 2);
    const [latent, mixture] = [writeLatentFields(config), writeMixture(config)];
    if (!fits || !latent || !mixture) return undefined;
    const scaling = (moe?.router.scaling as number | undefined) ?? (moe?.compat === 'original' ? 2.5 : 1);
    return {
      ...latent,
      ...mixture,
      ...(moe && { routed_scaling_factor: moe.routedScaling * scaling }),
      rope_interleave: config.rotary.interleaved ?? false,
      norm_topk_prob: moe?.router.normalise !== false,
      scoring_func: 'sigmoid',
      topk_method: 'noaux_tc',
      n_group: groups?.count ?? 1,
      topk_group: groups?.kept ?? 1,
      num_nextn_predict_layers: 0,
    };
  },
  fileTensors,
  ignorable,
};
