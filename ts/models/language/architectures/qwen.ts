import type { JsonObject } from '../../../storage/json.ts';
import { type LanguageModelConfig, windowsOf } from '../config.ts';
import type { Architecture } from './architecture.ts';
import { Fields } from './fields.ts';
import {
  denseLlamaForm,
  isRotaryBuffer,
  type LlamaDefaults,
  llamaTensors,
  readLlamaFields,
  writeDenseLlamaFields,
} from './llama.ts';
import {
  noAttentionOutputBias,
  oneAttentionBias,
  oneWindowSize,
  queryKeyNorm,
  windowSizes,
} from './needs.ts';

const sliding = 'sliding_attention';
const full = 'full_attention';

/**
 * The windows of Qwen's layers: none unless `use_sliding_window`; then those that `layer_types` names, or all from `max_window_layers` on.
 */
export function readLayerWindows(fields: Fields, layers: number): (number | null)[] | undefined {
  const size = fields.optionalNumber('sliding_window', 4096);
  const window = fields.boolean('use_sliding_window', false) ? (size ?? null) : null;
  const types = fields.get('layer_types');
  const from = fields.number('max_window_layers', 28);
  const slides =
    types === undefined
      ? Array.from({ length: layers }, (_, layer) => window !== null && layer >= from)
      : readLayerTypes(fields, layers);
  if (!slides.includes(true)) return undefined;
  if (window === null)
    return fields.wrong(
      `"layer_types" names ${sliding}, which needs "use_sliding_window" and "sliding_window"`,
    );
  return slides.map((slide) => (slide ? window : null));
}

/** Which layers slide, as `layer_types` names them. */
export function readLayerTypes(fields: Fields, layers: number): boolean[] {
  const types = fields.get('layer_types');
  if (
    !Array.isArray(types) ||
    types.length !== layers ||
    types.some((type) => type !== sliding && type !== full)
  ) {
    return fields.wrong(
      `"layer_types" must be a list of ${layers} times "${full}" or "${sliding}", got ${JSON.stringify(types)}`,
    );
  }
  return types.map((type) => type === sliding);
}

/** The fields of {@link readLayerWindows}, which have one size of windows. */
export function writeLayerWindows(config: LanguageModelConfig): JsonObject {
  const windows = windowsOf(config);
  const [size] = windowSizes(config);
  const first = windows.findIndex((window) => window !== undefined);
  return {
    use_sliding_window: size !== undefined,
    sliding_window: size ?? null,
    max_window_layers: first < 0 ? config.layers : first,
    layer_types: writeLayerTypes(config),
  };
}

/** Which layers slide, as {@link readLayerTypes} reads it. */
export const writeLayerTypes = (config: LanguageModelConfig): string[] =>
  windowsOf(config).map((window) => (window === undefined ? full : sliding));

const defaults: LlamaDefaults = { base: 10000, maxPositions: 32_768, eps: 1e-6, keyValueHeads: 32 };

/** Qwen2 and Qwen2.5 (arXiv 2407.10671, 2412.15115): Llama's form with biases of queries, keys and values. */
export const qwen2: Architecture = {
  name: 'Qwen2ForCausalLM',
  modelType: 'qwen2',
  read(json, source) {
    const fields = new Fields(json, source);
    const rest = readLlamaFields(fields, defaults);
    return {
      ...rest,
      attentionBias: true,
      attentionOutputBias: false,
      window: readLayerWindows(fields, rest.layers),
    };
  },
  needs: (config) => [
    ...denseLlamaForm(config),
    [config.attentionBias, 'queries, keys and values without biases'],
    noAttentionOutputBias(config),
    queryKeyNorm(config, undefined),
    oneWindowSize(config),
  ],
  write: (config) => ({ ...writeDenseLlamaFields(config), ...writeLayerWindows(config) }),
  fileTensors: llamaTensors,
  ignorable: isRotaryBuffer,
};

/** Qwen3 (arXiv 2505.09388): Llama's form with norms of each head's queries and keys. */
export const qwen3: Architecture = {
  name: 'Qwen3ForCausalLM',
  modelType: 'qwen3',
  read(json, source) {
    const fields = new Fields(json, source);
    const rest = readLlamaFields(fields, { ...defaults, headDim: 128 });
    return {
      ...rest,
      attentionBias: fields.boolean('attention_bias', false),
      qkNorm: 'head',
      window: readLayerWindows(fields, rest.layers),
    };
  },
  needs: (config) => [
    ...denseLlamaForm(config),
    oneAttentionBias(config),
    queryKeyNorm(config, 'head'),
    oneWindowSize(config),
  ],
  write: (config) => ({
    ...writeDenseLlamaFields(config),
    ...writeLayerWindows(config),
    attention_bias: config.attentionBias,
  }),
  fileTensors: llamaTensors,
  ignorable: isRotaryBuffer,
};
