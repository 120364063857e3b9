import {
  type FeedForwardConfig,
  type LanguageModelConfig,
  type LanguageModelOptions,
  moeLayersOf,
  oneRouter,
  resolveLanguageModelConfig,
  windowsOf,
} from './config.ts';

/** Sizes of a model, computed from its configuration without making it. */
export interface ParameterReport {
  total: number;
  /** Parameters that one token uses: all but the experts it is not sent to. Embedding and output projection included. */
  active: number;
  /** Of the total: embedding, learned positions and, when untied, output projection. */
  embeddings: number;
  /** Of the total: routed experts, in all layers. */
  routedExperts: number;
  /**
   * Floating-point operations of one training step per token: 3 · forward, where forward = 2 · (active weights of matrix products, i.e. without
   * the embedding look-up, norms and biases) + 4 · heads · headDim · keys, with `keys` the mean number of keys a token sees, summed over layers.
   */
  flopsPerToken: number;
}

function feedForwardSize(
  width: number,
  { hidden, gated, bias }: FeedForwardConfig,
): { weights: number; biases: number } {
  const rows = gated ? 2 * hidden : hidden;
  return { weights: width * (rows + hidden), biases: bias ? rows + width : 0 };
}

/** Mean number of keys that a token of a sequence of `length` tokens sees. */
function meanKeys(length: number, window = length): number {
  const wide = Math.min(window, length);
  return wide - (wide * (wide - 1)) / (2 * length);
}

/**
 * Counts parameters and operations.
 * @param context length of the sequences for the attention's share; default: maxPositions
 * @throws ERR_LIBMOE_CONFIG
 */
export function parameterReport(options: LanguageModelOptions, context?: number): ParameterReport {
  const config = resolveLanguageModelConfig(options);
  const { dModel, layers, heads, keyValueHeads, headDim, vocabularySize } = config;
  const queryWidth = heads * headDim;
  const keyWidth = keyValueHeads * headDim;
  const normSize = config.norm === 'layernorm' ? 2 * dModel : dModel;
  const attentionWeights = dModel * (2 * queryWidth + 2 * keyWidth);
  const attentionBiases =
    (config.attentionBias ? queryWidth + 2 * keyWidth : 0) +
    (config.attentionOutputBias ? dModel : 0) +
    (config.attentionSinks ? heads : 0);
  const dense = feedForwardSize(dModel, config.feedForward);
  const moeLayers = moeLayersOf(config).length;
  const denseLayers = layers - moeLayers;
  const moe = moeSize(config);
  const routers = moeLayersOf(config).reduce((all, layer) => all + routerSize(config, layer), 0);

  const projection = vocabularySize * dModel;
  const positions = config.positions === 'learned' ? config.maxPositions * dModel : 0;
  const embeddings =
    positions +
    (config.tieEmbeddings ? projection : 2 * projection + (config.outputBias ? vocabularySize : 0));
  const everywhere =
    embeddings +
    normSize +
    layers * (2 * normSize + qkNormSize(config) + attentionWeights + attentionBiases) +
    denseLayers * (dense.weights + dense.biases) +
    moeLayers * (moe.others + moe.otherBiases) +
    routers;
  const perExpert = moe.expert.weights + moe.expert.biases;
  const routedExperts = moeLayers * moe.experts * perExpert;
  const products =
    projection +
    layers * attentionWeights +
    denseLayers * dense.weights +
    moeLayers * (moe.others + moe.topK * moe.expert.weights) +
    routers;
  const keys = windowsOf(config).reduce<number>(
    (sum, window) => sum + meanKeys(context ?? config.maxPositions, window),
    0,
  );
  return {
    total: everywhere + routedExperts,
    active: everywhere + moeLayers * moe.topK * perExpert,
    embeddings,
    routedExperts,
    flopsPerToken: 3 * (2 * products + 4 * queryWidth * keys),
  };
}

function qkNormSize({ qkNorm, heads, keyValueHeads, headDim }: LanguageModelConfig): number {
  if (qkNorm === undefined) return 0;
  return qkNorm === 'head' ? 2 * headDim : (heads + keyValueHeads) * headDim;
}

function moeSize(config: LanguageModelConfig): {
  expert: { weights: number; biases: number };
  experts: number;
  topK: number;
  others: number;
  otherBiases: number;
} {
  const { moe, dModel } = config;
  if (moe === undefined)
    return { expert: { weights: 0, biases: 0 }, experts: 0, topK: 0, others: 0, otherBiases: 0 };
  const shared = moe.shared
    ? feedForwardSize(dModel, { ...moe.expert, ...moe.shared })
    : { weights: 0, biases: 0 };
  return {
    expert: feedForwardSize(dModel, moe.expert),
    experts: moe.experts,
    topK: moe.topK,
    others: shared.weights,
    otherBiases: shared.biases,
  };
}

/** The parameters of a layer's router: made and counted, as some routers have more in later layers. */
function routerSize(config: LanguageModelConfig, layer: number): number {
  using router = oneRouter(config.moe!, config.dModel, config.layers, layer);
  return router.parameterCount();
}

/** All parameters of a configuration. @throws ERR_LIBMOE_CONFIG */
export function countParameters(options: LanguageModelOptions): number {
  return parameterReport(options).total;
}
