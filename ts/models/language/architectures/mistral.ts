import type { Architecture } from './architecture.ts';
import { Fields } from './fields.ts';
import {
  denseLlamaForm,
  isRotaryBuffer,
  llamaTensors,
  readLlamaFields,
  writeDenseLlamaFields,
} from './llama.ts';
import { commonWindow, noAttentionBias, oneWindow, queryKeyNorm } from './needs.ts';

/** Mistral (Jiang et al. 2023, arXiv 2310.06825): Llama's form without biases, every layer with the same sliding window. */
export const mistral: Architecture = {
  name: 'MistralForCausalLM',
  modelType: 'mistral',
  read(json, source) {
    const fields = new Fields(json, source);
    fields.refuse(fields.get('layer_types') !== undefined, '"layer_types" in a Mistral model');
    const defaults = { base: 10000, maxPositions: 131_072, eps: 1e-6, keyValueHeads: 8 };
    return {
      ...readLlamaFields(fields, defaults),
      window: fields.optionalNumber('sliding_window', 4096),
    };
  },
  needs: (config) => [
    ...denseLlamaForm(config),
    noAttentionBias(config),
    queryKeyNorm(config, undefined),
    oneWindow(config),
  ],
  write: (config) => ({ ...writeDenseLlamaFields(config), sliding_window: commonWindow(config)! }),
  fileTensors: llamaTensors,
  ignorable: isRotaryBuffer,
};
