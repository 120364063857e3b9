import type { Architecture } from './architecture.ts';
import {
  expertsEverywhere,
  expertTensors,
  normalised,
  noSharedExpert,
  softmaxExperts,
} from './expert-fields.ts';
import { Fields } from './fields.ts';
import {
  activationOf,
  hiddenActOf,
  isRotaryBuffer,
  knownActivation,
  readLlamaFields,
  writeLlamaFields,
} from './llama.ts';
import { commonWindow, llamaForm, needsMixture, noAttentionBias, oneWindow, queryKeyNorm } from './needs.ts';

/** Mixtral (Jiang et al. 2024, arXiv 2401.04088): Llama's form, in every layer a softmax router with renormalised top-k and SwiGLU experts. */
export const mixtral: Architecture = {
  name: 'MixtralForCausalLM',
  modelType: 'mixtral',
  read(json, source) {
    const fields = new Fields(json, source);
    const defaults = { base: 1e6, maxPositions: 131_072, eps: 1e-5, keyValueHeads: 8 };
    return {
      ...readLlamaFields(fields, defaults),
      window: fields.optionalNumber('sliding_window'),
      moe: {
        layers: 'all',
        experts: fields.count('num_local_experts', 8),
        topK: fields.count('num_experts_per_tok', 2),
        router: { name: 'smoe' },
        expert: {
          hidden: fields.count('intermediate_size'),
          activation: activationOf(fields),
          gated: true,
          bias: false,
        },
      },
    };
  },
  needs: (config) => [
    ...llamaForm(config),
    ...needsMixture(config, (moe) => [
      ...softmaxExperts(moe),
      normalised(moe),
      expertsEverywhere(config),
      noSharedExpert(moe),
      knownActivation(moe.expert.activation),
    ]),
    noAttentionBias(config),
    queryKeyNorm(config, undefined),
    oneWindow(config),
  ],
  write(config) {
    const moe = config.moe!;
    return {
      ...writeLlamaFields(config),
      intermediate_size: moe.expert.hidden,
      hidden_act: hiddenActOf(moe.expert.activation),
      num_local_experts: moe.experts,
      num_experts_per_tok: moe.topK,
      sliding_window: commonWindow(config)!,
    };
  },
  fileTensors: (name, shape) =>
    expertTensors(name, shape, { block: 'block_sparse_moe', gate: 'w1', up: 'w3', down: 'w2' }),
  ignorable: isRotaryBuffer,
};
