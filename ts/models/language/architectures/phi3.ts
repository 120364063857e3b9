import type { JsonObject } from '../../../storage/json.ts';
import type { LanguageModelConfig } from '../config.ts';
import type { Architecture, FileTensor } from './architecture.ts';
import { Fields } from './fields.ts';
import {
  denseLlamaForm,
  isRotaryBuffer,
  llamaTensors,
  readLlamaFields,
  writeDenseLlamaFields,
} from './llama.ts';
import { commonWindow, headsFillWidth, noAttentionBias, oneWindow, queryKeyNorm } from './needs.ts';

/**
 * Phi-3 and Phi-4-mini (arXiv 2404.14219): Llama's form without biases, with queries, keys and values in one matrix, gate and up in another, and
 * longrope scaling. Early files call that scaling "su" or "yarn".
 */
export const phi3: Architecture = {
  name: 'Phi3ForCausalLM',
  modelType: 'phi3',
  read(json, source) {
    const fields = new Fields(json, source);
    fields.refuse(fields.boolean('attention_bias', false), 'a bias of attention in a Phi-3 model');
    return {
      ...readLlamaFields(fields, {
        base: 10000,
        maxPositions: 4096,
        originalPositions: 4096,
        eps: 1e-5,
        partial: true,
        kinds: { su: 'longrope', yarn: 'longrope' },
      }),
      window: fields.optionalNumber('sliding_window'),
    };
  },
  needs(config) {
    const { scaling } = config.rotary;
    return [
      ...denseLlamaForm(config, { partialRotary: true }),
      headsFillWidth(config),
      noAttentionBias(config),
      queryKeyNorm(config, undefined),
      [scaling === undefined || scaling.kind === 'longrope', `rotary scaling "${scaling?.kind}"`],
      oneWindow(config),
    ];
  },
  write(config) {
    const { scaling } = config.rotary;
    const { head_dim: _, ...rest } = writeDenseLlamaFields(config); // not a field of this family
    return {
      ...rest,
      original_max_position_embeddings:
        scaling?.kind === 'longrope' ? scaling.originalPositions : config.maxPositions,
      sliding_window: commonWindow(config)!,
      ...(scaling && { rope_scaling: oldScaling(rest.rope_scaling as JsonObject) }),
    };
  },
  fileTensors(name, shape, config): FileTensor[] {
    const [, layer, rest] = /^blocks\.(\d+)\.(.+)$/.exec(name) ?? [];
    const prefix = `model.layers.${layer}.`;
    const [, part] = /^attention\.(query|key|value)\.weight$/.exec(rest ?? '') ?? [];
    if (part !== undefined) {
      const { fused, rows } = fusedRows(config, part as 'query' | 'key' | 'value');
      return [{ name: `${prefix}self_attn.qkv_proj.weight`, shape: [fused, ...shape.slice(1)], rows }];
    }
    if (rest === 'feedForward.up') return [{ name: `${prefix}mlp.gate_up_proj.weight`, shape }];
    return llamaTensors(name, shape);
  },
  ignorable: isRotaryBuffer,
};

/** transformers 4 takes exactly these fields, and the original length from beside them. */
function oldScaling({ rope_type, original_max_position_embeddings: _, ...rest }: JsonObject): JsonObject {
  return { type: rope_type!, ...rest };
}

/** The rows of queries, keys and values in a tensor that holds them in this order, and how many it has. */
export function fusedRows(
  config: Pick<LanguageModelConfig, 'heads' | 'keyValueHeads' | 'headDim'>,
  part: 'query' | 'key' | 'value',
): { fused: number; rows: readonly [number, number] } {
  const queries = config.heads * config.headDim;
  const keys = config.keyValueHeads * config.headDim;
  const from = { query: 0, key: queries, value: queries + keys }[part];
  return { fused: queries + 2 * keys, rows: [from, from + (part === 'query' ? queries : keys)] };
}
