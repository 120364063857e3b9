import type { Architecture, FileTensor } from './architecture.ts';
import { Fields } from './fields.ts';
import {
  activationOf,
  commonWindow,
  hasLlamaForm,
  hiddenActOf,
  isRotaryBuffer,
  llamaTensors,
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
      !config.attentionBias &&
      !config.attentionOutputBias &&
      config.qkNorm === undefined &&
      window !== undefined &&
      moe.layers === 'all' &&
      moe.router.name === 'smoe' &&
      moe.router.bias !== true &&
      moe.expert.gated &&
      !moe.expert.bias &&
      moe.shared === undefined &&
      moe.routedScaling === 1 &&
      moe.capacityFactor === undefined;
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
  fileTensors(name, shape): FileTensor[] {
    const [, layer, rest] = /^blocks\.(\d+)\.moe\.(.+)$/.exec(name) ?? [];
    const prefix = `model.layers.${layer}.block_sparse_moe.`;
    const experts = (names: readonly string[], each: readonly number[]): FileTensor[] =>
      Array.from({ length: shape[0]! }, (_, expert) =>
        names.map((part) => ({ name: `${prefix}experts.${expert}.${part}.weight`, shape: each })),
      ).flat();
    switch (rest) {
      case 'router.weight':
        return [{ name: `${prefix}gate.weight`, shape }];
      case 'experts.up':
        return experts(['w1', 'w3'], [shape[1]! / 2, shape[2]!]);
      case 'experts.down':
        return experts(['w2'], shape.slice(1));
      default:
        return llamaTensors(name, shape);
    }
  },
  ignorable: isRotaryBuffer,
};
