import type { Architecture } from './architecture.ts';
import {
  expertsEverywhere,
  expertTensors,
  mlpExperts,
  normalises,
  noSharedExpert,
  softmaxExperts,
  softmaxRouter,
} from './expert-fields.ts';
import { Fields } from './fields.ts';
import { hiddenActOf, isRotaryBuffer, knownActivation, readLlamaFields, writeLlamaFields } from './llama.ts';
import {
  headsFillWidth,
  llamaForm,
  needsMixture,
  noWindow,
  oneAttentionBias,
  queryKeyNorm,
} from './needs.ts';

/**
 * OLMoE (Muennighoff et al. 2024, arXiv 2409.02060): Llama's form with norms of all queries and of all keys, and in every layer a softmax router
 * whose probabilities are weights as they are.
 */
export const olmoe: Architecture = {
  name: 'OlmoeForCausalLM',
  modelType: 'olmoe',
  read(json, source) {
    const fields = new Fields(json, source);
    fields.refuse(fields.get('clip_qkv') !== undefined, '"clip_qkv"');
    fields.refuse(fields.get('sliding_window') !== undefined, '"sliding_window" in an OLMoE model');
    const rest = readLlamaFields(fields, { base: 10_000, maxPositions: 4096, eps: 1e-5 });
    fields.refuse(rest.headDim! * rest.heads !== rest.dModel, '"head_dim" in an OLMoE model');
    const { hidden, activation } = rest.feedForward!;
    return {
      ...rest,
      attentionBias: fields.boolean('attention_bias', false),
      qkNorm: 'projection',
      moe: {
        layers: 'all',
        experts: fields.count('num_experts', 64),
        topK: fields.count('num_experts_per_tok', 8),
        router: softmaxRouter(fields.boolean('norm_topk_prob', false)),
        expert: { hidden, activation, gated: true },
      },
    };
  },
  needs: (config) => [
    ...llamaForm(config),
    ...needsMixture(config, (moe) => [
      ...softmaxExperts(moe),
      expertsEverywhere(config),
      noSharedExpert(moe),
      knownActivation(moe.expert.activation),
    ]),
    headsFillWidth(config),
    oneAttentionBias(config),
    queryKeyNorm(config, 'projection'),
    noWindow(config),
  ],
  write(config) {
    const moe = config.moe!;
    const { head_dim: _, ...fields } = writeLlamaFields(config); // not a field of this family
    return {
      ...fields,
      intermediate_size: moe.expert.hidden,
      hidden_act: hiddenActOf(moe.expert.activation),
      attention_bias: config.attentionBias,
      clip_qkv: null,
      num_experts: moe.experts,
      num_experts_per_tok: moe.topK,
      norm_topk_prob: normalises(moe),
    };
  },
  fileTensors: (name, shape) => expertTensors(name, shape, mlpExperts),
  ignorable: isRotaryBuffer,
};
