import type { JsonObject } from '../../../storage/json.ts';
import {
  type LanguageModelConfig,
  type LanguageModelOptions,
  type MoeConfig,
  moeLayersOf,
} from '../config.ts';
import type { Architecture, FileTensor } from './architecture.ts';
import {
  dropless,
  expertTensors,
  gatedExperts,
  mlpExperts,
  moeLayersText,
  noExpertBias,
  noRouterBias,
  noSigmoidGate,
  oneActivation,
  routedBy,
  sharedSum,
  weighsOutputs,
  withSharedExpert,
} from './expert-fields.ts';
import { Fields } from './fields.ts';
import { latentForm, latentTensors, readLatentFields, writeLatentFields } from './latent-fields.ts';
import { isRotaryBuffer } from './llama.ts';
import { type FamilyNeed, turnsNeighbours } from './needs.ts';

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
  if (!Number.isInteger(first) || first < 0)
    fields.wrong(`"first_k_dense_replace" must be 0 or a positive integer, got ${first}`);
  if (first >= model.layers) return undefined;
  const hidden = fields.count('moe_intermediate_size', defaults.hidden);
  const shared = fields.optionalNumber('n_shared_experts', defaults.shared) ?? 0;
  fields.refuse(shared < 1, 'a mixture without shared experts');
  for (const name of ['n_routed_experts', 'num_experts_per_tok', 'moe_intermediate_size'])
    fields.refuse(fields.has(name) && fields.get(name) === undefined, `"${name}": null`);
  return {
    layers: first === 0 ? 'all' : Array.from({ length: model.layers - first }, (_, i) => first + i),
    experts: fields.count('n_routed_experts', defaults.experts),
    topK: fields.count('num_experts_per_tok', defaults.topK),
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

/** The mixture of {@link readMixture} and {@link readBalance}, of which there may be none. */
function mixtureForm(
  config: LanguageModelConfig,
  router: (moe: MoeConfig) => readonly FamilyNeed[],
): FamilyNeed[] {
  const { moe, layers } = config;
  if (moe === undefined) return [];
  const { expert, shared } = moe;
  const chosen = moeLayersOf(config);
  return [
    ...router(moe),
    noRouterBias(moe),
    [chosen[0] === layers - chosen.length, `dense layers above ones with experts (${moeLayersText(config)})`],
    gatedExperts(moe),
    noExpertBias(moe),
    oneActivation(config),
    withSharedExpert(moe),
    [
      shared === undefined || shared.hidden % expert.hidden === 0,
      'a shared expert whose width is no multiple of the others’',
    ],
    noSigmoidGate(moe),
    sharedSum(moe),
    weighsOutputs(moe),
    dropless(moe),
  ];
}

/** The fields of such a mixture, groups apart. */
function writeMixture(config: LanguageModelConfig): JsonObject {
  const { moe, layers } = config;
  if (moe === undefined) return { first_k_dense_replace: layers };
  const { router } = moe;
  return {
    first_k_dense_replace: layers - moeLayersOf(config).length,
    n_routed_experts: moe.experts,
    n_shared_experts: moe.shared!.hidden / moe.expert.hidden,
    num_experts_per_tok: moe.topK,
    moe_intermediate_size: moe.expert.hidden,
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
    const groups = grouped ? { count: fields.count('n_group'), kept: fields.count('topk_group') } : undefined;
    return {
      ...model,
      moe: {
        ...moe,
        compat: 'original',
        router: { name: 'shared-v2', ...(groups && { groups }), ...readBalance(fields, 0.001) },
      },
    };
  },
  needs: (config) => [
    ...latentForm(config),
    turnsNeighbours(config),
    [config.dModel % config.heads === 0, 'a dModel that is no multiple of heads'],
    ...mixtureForm(config, (moe) => [
      routedBy(moe, 'shared-v2'),
      [leavesProbabilities(moe), 'weights that are divided by their sum'],
    ]),
  ],
  write(config) {
    const groups = config.moe && groupsOf(config.moe);
    return {
      ...writeLatentFields(config),
      ...writeMixture(config),
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
    const count = fields.optionalNumber('n_group', 8) ?? 1;
    const kept = fields.optionalNumber('topk_group', 4);
    if (count > 1 && kept === undefined)
      fields.wrong(`"topk_group" is null beside "n_group": ${count}: write how many groups are kept`);
    return {
      ...model,
      moe: {
        ...moe,
        router: {
          name: 'shared-v3',
          ...(count > 1 && { groups: { count, kept } }),
          ...(fields.boolean('norm_topk_prob', true) ? {} : { normalise: false }),
          ...readBalance(fields),
        },
      },
    };
  },
  needs: (config) => [
    ...latentForm(config),
    ...mixtureForm(config, (moe) => [
      routedBy(moe, 'shared-v3'),
      [moe.compat !== 'libmoe', 'compat "libmoe"'],
      // A group is told by its two best experts.
      [moe.experts / (groupsOf(moe)?.count ?? 1) >= 2, 'groups of one expert'],
    ]),
  ],
  write(config) {
    const { moe } = config;
    const groups = moe && groupsOf(moe);
    const scaling = (moe?.router.scaling as number | undefined) ?? (moe?.compat === 'original' ? 2.5 : 1);
    return {
      ...writeLatentFields(config),
      ...writeMixture(config),
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
