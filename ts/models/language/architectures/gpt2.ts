import { fail } from '../../../native/index.ts';
import type { Architecture, FileTensor } from './architecture.ts';
import { Fields } from './fields.ts';
import { activationOf, hiddenActOf, knownActivation } from './llama.ts';
import {
  headsFillWidth,
  noChunk,
  noMixture,
  noOutputBias,
  noSinks,
  noWindow,
  queryKeyNorm,
} from './needs.ts';
import { fusedRows } from './phi3.ts';

const whole: Record<string, string> = {
  'embedding.weight': 'transformer.wte.weight',
  'positionEmbedding.weight': 'transformer.wpe.weight',
  'finalNorm.weight': 'transformer.ln_f.weight',
  'finalNorm.bias': 'transformer.ln_f.bias',
  'output.weight': 'lm_head.weight',
};
const vectors: Record<string, string> = {
  'attentionNorm.weight': 'ln_1.weight',
  'attentionNorm.bias': 'ln_1.bias',
  'feedForwardNorm.weight': 'ln_2.weight',
  'feedForwardNorm.bias': 'ln_2.bias',
  'attention.output.bias': 'attn.c_proj.bias',
  'feedForward.upBias': 'mlp.c_fc.bias',
  'feedForward.downBias': 'mlp.c_proj.bias',
};
const matrices: Record<string, string> = {
  'attention.output.weight': 'attn.c_proj.weight',
  'feedForward.up': 'mlp.c_fc.weight',
  'feedForward.down': 'mlp.c_proj.weight',
};

/**
 * GPT-2 (Radford et al. 2019) and DistilGPT2: LayerNorm, learned positions, biases everywhere but in the output, which is the embedding. Its
 * matrices are kept as [inputs, outputs].
 */
export const gpt2: Architecture = {
  name: 'GPT2LMHeadModel',
  modelType: 'gpt2',
  basePrefix: 'transformer.',
  read(json, source) {
    const fields = new Fields(json, source);
    fields.refuse(!fields.boolean('scale_attn_weights', true), '"scale_attn_weights": false');
    for (const name of ['scale_attn_by_inverse_layer_idx', 'add_cross_attention'])
      fields.refuse(fields.boolean(name, false), `"${name}"`);
    const dModel = fields.count('n_embd', 768);
    return {
      vocabularySize: fields.count('vocab_size', 50_257),
      dModel,
      layers: fields.layers('n_layer', 12),
      heads: fields.count('n_head', 12),
      norm: 'layernorm',
      eps: fields.number('layer_norm_epsilon', 1e-5),
      positions: 'learned',
      feedForward: {
        hidden: fields.count('n_inner', 4 * dModel),
        activation: activationOf(fields, 'activation_function', 'gelu_new'),
        gated: false,
        bias: true,
      },
      attentionBias: true,
      tieEmbeddings: fields.boolean('tie_word_embeddings', true),
      maxPositions: fields.count('n_positions', 1024),
      init: { std: fields.number('initializer_range', 0.02) },
    };
  },
  needs: (config) => [
    [config.norm === 'layernorm', 'RMSNorm'],
    [config.positions === 'learned', 'rotary positions'],
    noMixture(config),
    [config.keyValueHeads === config.heads, 'fewer heads of keys and values than of queries'],
    headsFillWidth(config),
    [config.attentionBias && config.attentionOutputBias, 'attention without biases'],
    noOutputBias(config),
    queryKeyNorm(config, undefined),
    noSinks(config),
    noWindow(config),
    noChunk(config),
    [!config.feedForward.gated, 'dense layers with gate'],
    [config.feedForward.bias, 'dense layers without biases'],
    knownActivation(config.feedForward.activation),
  ],
  write: (config) => ({
    vocab_size: config.vocabularySize,
    n_positions: config.maxPositions,
    n_embd: config.dModel,
    n_layer: config.layers,
    n_head: config.heads,
    n_inner: config.feedForward.hidden,
    activation_function: hiddenActOf(config.feedForward.activation),
    layer_norm_epsilon: config.eps,
    tie_word_embeddings: config.tieEmbeddings,
    initializer_range: config.init === 'libmoe' ? 0.02 : config.init.std,
  }),
  fileTensors(name, shape, config): FileTensor[] {
    const top = whole[name];
    if (top !== undefined) return [{ name: top, shape }];
    const [, layer, rest = ''] = /^blocks\.(\d+)\.(.+)$/.exec(name) ?? [];
    const prefix = `transformer.h.${layer}.`;
    const [, part, field] = /^attention\.(query|key|value)\.(weight|bias)$/.exec(rest) ?? [];
    if (part !== undefined) {
      const { fused, rows } = fusedRows(config, part as 'query' | 'key' | 'value');
      const file = `${prefix}attn.c_attn.${field}`;
      if (field === 'bias') return [{ name: file, shape: [fused], rows }];
      return [{ name: file, shape: [shape[1]!, fused], transposed: true, rows }];
    }
    const vector = vectors[rest];
    if (vector !== undefined) return [{ name: prefix + vector, shape }];
    const matrix = matrices[rest];
    if (matrix !== undefined)
      return [{ name: prefix + matrix, shape: [shape[1]!, shape[0]!], transposed: true }];
    return fail('ERR_LIBMOE_CHECKPOINT', `the GPT-2 form has no place for the parameter "${name}"`);
  },
  // Causal masks that older files hold.
  ignorable: (name) => /(^|\.)h\.\d+\.attn\.(masked_)?bias$/.test(name),
};
