import type { Architecture } from './architecture.ts';
import { Fields } from './fields.ts';
import {
  commonWindow,
  hasDenseLlamaForm,
  isRotaryBuffer,
  llamaTensors,
  readLlamaFields,
  writeDenseLlamaFields,
} from './llama.ts';

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
      window: fields.has('sliding_window') ? fields.optionalNumber('sliding_window') : 4096,
    };
  },
  write(config) {
    const window = commonWindow(config);
    const fits =
      hasDenseLlamaForm(config) &&
      !config.attentionBias &&
      !config.attentionOutputBias &&
      config.qkNorm === undefined &&
      window !== undefined;
    const fields = writeDenseLlamaFields(config);
    return fits && fields ? { ...fields, sliding_window: window } : undefined;
  },
  fileTensors: llamaTensors,
  ignorable: isRotaryBuffer,
};
