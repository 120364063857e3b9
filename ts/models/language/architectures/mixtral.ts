import type { Architecture } from './architecture.ts';
import { expertsEverywhere, expertTensors, hasSoftmaxExperts, normalises } from './expert-fields.ts';
import { Fields } from './fields.ts';
import {
  activationOf,
  commonWindow,
  hasLlamaForm,
  hiddenActOf,
  isRotaryBuffer,
  readLlamaFields,
  writeLlamaFields,
} from './llama.ts';

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
        experts: fields.number('num_local_experts', 8),
        topK: fields.number('num_experts_per_tok', 2),
        router: { name: 'smoe' },
        expert: {
          hidden: fields.number('intermediate_size'),
          activation: activationOf(fields),
          gated: true,
          bias: false,
        },
      },
    };
  },
  write(config) {
    const { moe } = config;
    const window = commonWindow(config);
    const fits =
      moe !== undefined &&
      hasLlamaForm(config) &&
      hasSoftmaxExperts(config) &&
      normalises(moe) &&
      expertsEverywhere(config) &&
      moe.shared === undefined &&
      !config.attentionBias &&
      !config.attentionOutputBias &&
      config.qkNorm === undefined &&
      window !== undefined;
    const hiddenAct = moe && hiddenActOf(moe.expert.activation);
    if (!fits || !hiddenAct) return undefined;
    return {
      ...writeLlamaFields(config),
      intermediate_size: moe.expert.hidden,
      hidden_act: hiddenAct,
      num_local_experts: moe.experts,
      num_experts_per_tok: moe.topK,
      sliding_window: window,
    };
  },
  fileTensors: (name, shape) =>
    expertTensors(name, shape, { block: 'block_sparse_moe', gate: 'w1', up: 'w3', down: 'w2' }),
  ignorable: isRotaryBuffer,
};
