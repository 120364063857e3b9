import { tokenCost } from '../../moe/index.ts';
import {
  chunksOf,
  type FeedForwardConfig,
  type LanguageModelConfig,
  type LanguageModelOptions,
  moeLayersOf,
  oneRouter,
  resolveLanguageModelConfig,
  routerPlace,
  valueDimOf,
  windowsOf,
} from './config.ts';

/** Sizes of a model, computed from its configuration without making it. */
export interface ParameterReport {
  total: number;
  /**
   * Parameters that one token uses: all but the experts it is not sent to (whole ones, as many as the router is expected to send it to in
   * evaluation). Embedding and output projection included.
   */
  active: number;
  /** Of the total: embedding, learned positions and, when untied, output projection. */
  embeddings: number;
  /** Of the total: routed experts, in all layers. */
  routedExperts: number;
  /**
   * Floating-point operations of one training step per token: 3 · forward, where forward = 2 · (active weights of matrix products, i.e. without
   * the embedding look-up, norms and biases; experts as many as expected in training, the chosen ones twice with a diversity loss) + 2 · heads · (headDim + valueDim) · keys, with `keys` the mean
   * number of keys a token sees, summed over layers.
   */
  flopsPerToken: number;
}

/** Of one feed-forward layer or expert. */
export function feedForwardSize(
  width: number,
  { hidden, gated, bias }: FeedForwardConfig,
): { weights: number; biases: number } {
  const rows = gated ? 2 * hidden : hidden;
  return { weights: width * (rows + hidden), biases: bias ? rows + width : 0 };
}

/** Mean number of keys that a token of a sequence of `length` tokens sees in a layer that cuts sequences into pieces of `chunk`. */
function meanKeys(length: number, window = length, chunk = length): number {
  const rest = length % chunk;
  if (chunk < length) {
    const whole = (length - rest) * meanKeys(chunk, window);
    return (whole + (rest > 0 ? rest * meanKeys(rest, window) : 0)) / length;
  }
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
  const { dModel, layers, heads, headDim, vocabularySize } = config;
  const normSize = config.norm === 'layernorm' ? 2 * dModel : dModel;
  const attention = attentionSize(config);
  const dense = feedForwardSize(dModel, config.feedForward);
  const moeLayers = moeLayersOf(config).length;
  const denseLayers = layers - moeLayers;
  const moe = moeSize(config);
  const routers = moeLayersOf(config).map((layer) => routerOf(config, layer));
  const routerParameters = sumOf(routers, ({ parameters }) => parameters);

  const projection = vocabularySize * dModel;
  const positions = config.positions === 'learned' ? config.maxPositions * dModel : 0;
  const embeddings =
    positions +
    (config.tieEmbeddings ? projection : 2 * projection + (config.outputBias ? vocabularySize : 0));
  const everywhere =
    embeddings +
    normSize +
    layers * (2 * normSize + attention.weights + attention.others) +
    denseLayers * (dense.weights + dense.biases) +
    moeLayers * (moe.others + moe.otherBiases) +
    routerParameters;
  const perExpert = moe.expert.weights + moe.expert.biases;
  const routedExperts = moeLayers * moe.experts * perExpert;
  const products =
    projection +
    layers * attention.weights +
    denseLayers * dense.weights +
    moeLayers * moe.others +
    sumOf(routers, ({ trainingExperts, flops }) => trainingExperts * moe.expert.weights + flops / 2) +
    // The diversity loss sends every choice through its expert once more.
    (withDiversity(config.moe) ? moeLayers * config.moe!.topK * moe.expert.weights : 0);
  const chunks = chunksOf(config);
  const keys = windowsOf(config).reduce<number>(
    (sum, window, layer) => sum + meanKeys(context ?? config.maxPositions, window, chunks[layer]),
    0,
  );
  return {
    total: everywhere + routedExperts,
    active: Math.round(everywhere + sumOf(routers, ({ experts }) => experts) * perExpert),
    embeddings,
    routedExperts,
    flopsPerToken: 3 * (2 * products + 2 * heads * (headDim + valueDimOf(config)) * keys),
  };
}

/** Whether MoE layers compute the diversity loss, for which the chosen experts run twice. */
export const withDiversity = (moe: LanguageModelConfig['moe']): boolean =>
  moe !== undefined && moe.topK > 1 && (moe.diversityCoefficient ?? 0) !== 0;

/** Of one layer: matrices, and biases with the norms of queries, keys and latents. */
function attentionSize(config: LanguageModelConfig): { weights: number; others: number } {
  const { attention, dModel, heads, keyValueHeads, headDim, qkNorm } = config;
  const outputBias = config.attentionOutputBias ? dModel : 0;
  const queryWidth = heads * headDim;
  if (attention === undefined) {
    const keyWidth = keyValueHeads * headDim;
    const bias = config.attentionBias ? queryWidth + 2 * keyWidth : 0;
    const norms = { head: 2 * headDim, projection: queryWidth + keyWidth, turned: 0, none: 0 }[
      qkNorm ?? 'none'
    ];
    const sinks = config.attentionSinks ? heads : 0;
    return {
      weights: dModel * (2 * queryWidth + 2 * keyWidth),
      others: bias + outputBias + norms + sinks,
    };
  }
  const { queryRank, keyValueRank, contentDim, rotaryDim, valueDim } = attention;
  const query = queryRank === undefined ? dModel * queryWidth : queryRank * (dModel + queryWidth);
  const down = dModel * (keyValueRank + rotaryDim);
  const up = keyValueRank * heads * (contentDim + valueDim);
  const latents = (queryRank ?? 0) + keyValueRank;
  return {
    weights: query + down + up + dModel * heads * valueDim,
    others: latents + (config.attentionBias ? latents + rotaryDim : 0) + outputBias,
  };
}

/** What the size of MoE layers depends on. */
export type MoeSizes = Pick<LanguageModelConfig, 'dModel' | 'layers' | 'moe'>;

/** Of one MoE layer without its router: each expert, how many there are, and the matrices and biases that every token sees. */
export function moeSize(config: Pick<MoeSizes, 'dModel' | 'moe'>): {
  expert: { weights: number; biases: number };
  experts: number;
  others: number;
  otherBiases: number;
} {
  const { moe, dModel } = config;
  if (moe === undefined) return { expert: { weights: 0, biases: 0 }, experts: 0, others: 0, otherBiases: 0 };
  const shared = moe.shared
    ? feedForwardSize(dModel, { ...moe.expert, ...moe.shared })
    : { weights: 0, biases: 0 };
  return {
    expert: feedForwardSize(dModel, moe.expert),
    experts: moe.experts,
    others: shared.weights + (moe.shared?.sigmoidGate ? dModel : 0),
    otherBiases: shared.biases,
  };
}

/** The sum of a value of each. */
export const sumOf = <T>(items: readonly T[], value: (item: T) => number): number =>
  items.reduce((sum, item) => sum + value(item), 0);

/** The router of a layer, made and counted, as some have more parameters in later layers, and what it costs a token. */
export function routerOf(config: MoeSizes, layer: number) {
  const { dModel, layers } = config;
  const moe = config.moe!;
  using router = oneRouter(moe, dModel, layers, layer);
  const parameters = router.parameterCount();
  const { name, ...options } = moe.router;
  const { experts, trainingExperts, routerFlops } = tokenCost(
    name,
    options,
    routerPlace(moe, dModel, layers, layer),
  );
  // What exceeds an expert's capacity is dropped.
  const most = (moe.capacityFactor ?? Number.POSITIVE_INFINITY) * moe.topK;
  return {
    parameters,
    experts: Math.min(most, experts),
    trainingExperts: Math.min(most, trainingExperts ?? experts),
    flops: routerFlops ?? 2 * parameters,
  };
}

/** All parameters of a configuration. @throws ERR_LIBMOE_CONFIG */
export function countParameters(options: LanguageModelOptions): number {
  return parameterReport(options).total;
}
