import {
  type FeedForwardConfig,
  type LanguageModelConfig,
  moeLayersOf,
  type ParameterReport,
  valueDimOf,
  withDiversity,
} from '../models/language/index.ts';
import type { RouterOnProbe } from './plan-router.ts';

/** Bytes on one rank at the moment of a training step when there are most. */
export interface PlannedMemory {
  /** Parameters and buffers in the dtype of the run. */
  weights: number;
  /** f32 copies that the optimizer keeps of bf16 parameters. */
  masterWeights: number;
  /** f32, of all parameters. */
  gradients: number;
  optimizerState: number;
  /** What the tape keeps of one micro-batch for backward, and what backward works in. */
  activations: number;
  /** The chunk of logits that exists at a time, and the gradients that are made with it. */
  logits: number;
  /** Batches and tables. */
  data: number;
  /** On several ranks: gradients that are laid end to end to be sent, while they lie in their own places still. */
  buckets: number;
  /** The process itself, or a device's context. */
  runtime: number;
  /** The most there is at a time: less than the sum, as gradients grow while activations go. */
  total: number;
}

/** What memory depends on besides the model. */
export interface MemorySettings {
  precision: 'f32' | 'bf16';
  /** State tensors of the optimizer per parameter: AdamW 2. */
  optimizerSlots: number;
  sequenceLength: number;
  /** On all ranks. */
  batchSequences: number;
  /** Ranks that share the batch, each with the whole model. */
  ranks: number;
  bucketBytes: number;
  microBatches: number;
  activationCheckpointing: boolean;
  runtime: number;
}

const f32 = 4;

/** What backward finds of one token in one dense feed-forward layer. */
const feedForwardKept = ({ hidden, gated, activation }: FeedForwardConfig): number =>
  hidden * (gated ? 4 : activation === 'identity' ? 1 : 2);

/** Bytes that the tape keeps of one token in one layer's attention, its normalised input included. */
function attentionKept(config: LanguageModelConfig, element: number): number {
  const { dModel, heads, keyValueHeads, headDim, qkNorm, attention } = config;
  const valueDim = valueDimOf(config);
  const queryAndOutput = heads * (headDim + valueDim);
  const keyAndValue = keyValueHeads * (headDim + valueDim);
  const normed = qkNorm ? (heads + keyValueHeads) * headDim : 0;
  // Latents before and after their norms.
  const latents = 2 * ((attention?.queryRank ?? 0) + (attention?.keyValueRank ?? 0));
  const statistics = attention === undefined ? 0 : attention.queryRank === undefined ? f32 : 2 * f32;
  return element * (dModel + normed + latents + queryAndOutput + keyAndValue) + statistics + heads * f32;
}

/** What the tape keeps of one token for the diversity loss, beside the experts' second pass: a copy per choice, answers, directions, angles. */
function diversityKept(dModel: number, topK: number, element: number): number {
  const answers = element + (element === f32 ? 0 : f32);
  return topK * dModel * (element + answers + f32) + 3 * topK * topK * f32;
}

/** Bytes that the tape keeps of one token in each block, without the residual stream that enters it. */
function blocksKept(
  config: LanguageModelConfig,
  element: number,
  router: RouterOnProbe | undefined,
): number[] {
  const { dModel, norm, moe } = config;
  const statistics = norm === 'layernorm' ? 2 * f32 : f32;
  const attention = attentionKept(config, element) + statistics;
  const between = element * 2 * dModel + statistics;
  const dense = element * feedForwardKept(config.feedForward);
  const moeLayers = moeLayersOf(config);
  let mixture = 0;
  if (moe && router) {
    const { bytesPerToken, choicesPerToken } = router;
    const { hidden, gated } = moe.expert;
    const shared = moe.shared ? feedForwardKept({ ...moe.expert, ...moe.shared }) : 0;
    const rows = choicesPerToken * ((gated ? 2 : 1) * hidden * element + 3 * f32);
    const again = withDiversity(moe) ? rows + diversityKept(dModel, moe.topK, element) : 0;
    mixture = bytesPerToken + rows + element * shared + again;
  }
  return Array.from(
    { length: config.layers },
    (_, layer) => attention + between + (moeLayers.includes(layer) ? mixture : dense),
  );
}

/** Numbers per token that backward of each block holds beside what was kept. */
function working(config: LanguageModelConfig): number[] {
  const { dModel, heads, keyValueHeads, headDim, feedForward, layers } = config;
  const attention = (heads + keyValueHeads) * (headDim + valueDimOf(config));
  const moeLayers = moeLayersOf(config);
  return Array.from({ length: layers }, (_, layer) => {
    const hidden = moeLayers.includes(layer) ? 0 : 2 * feedForward.hidden;
    return 2 * dModel + Math.max(attention, hidden);
  });
}

/** As native/cpu/loss.cpp cuts it. */
function logitsChunk(tokens: number, vocabularySize: number): number {
  const rows = Math.floor(2 ** 23 / vocabularySize / 16) * 16;
  return Math.min(tokens, Math.min(1024, Math.max(64, rows))) * vocabularySize * f32;
}

/**
 * Memory of a training step, reckoned but for the routers.
 * @param router what the model's routers leave, in the precision of the settings
 */
export function plannedMemory(
  config: LanguageModelConfig,
  report: ParameterReport,
  router: RouterOnProbe | undefined,
  settings: MemorySettings,
): PlannedMemory {
  const { precision, sequenceLength, microBatches, ranks, runtime } = settings;
  const batchSequences = settings.batchSequences / ranks;
  const { dModel, vocabularySize } = config;
  const element = precision === 'bf16' ? 2 : f32;
  const tokens = Math.ceil(batchSequences / microBatches) * sequenceLength;
  const buffers = moeLayersOf(config).length * (router?.buffers ?? 0);
  const weights = report.total * element + buffers * f32;
  const masterWeights = precision === 'bf16' ? report.total * f32 : 0;
  const gradients = report.total * f32;
  const optimizerState = report.total * f32 * settings.optimizerSlots;
  const data = batchSequences * sequenceLength * 4 * f32 + config.maxPositions * config.rotary.dims * f32;

  const stream = element * dModel;
  const blocks = blocksKept(config, element, router);
  const largest = Math.max(...blocks);
  const all = blocks.reduce((a, b) => a + b, 0);
  // The stream into each block and into the last norm, and what comes out of it.
  const streams = (config.layers + 2) * stream;
  const again = settings.activationCheckpointing;
  const kept = tokens * (streams + (again ? config.layers * f32 * (config.moe?.topK ?? 0) : all));
  const held = working(config).map((numbers, layer) => element * numbers + (again ? blocks[layer]! : 0));
  const inBackward = tokens * Math.max(...held);
  const activations = kept + inBackward;

  const ofOutput = vocabularySize * dModel * f32;
  const ofBlock = ((report.total - report.embeddings) / config.layers) * f32;
  // A gradient larger than a bucket travels by itself; the largest are those of the output and of a layer's experts.
  const { moe } = config;
  const ofExperts = moe ? moe.experts * moe.expert.hidden * dModel * (moe.expert.gated ? 2 : 1) * f32 : 0;
  const buckets = ranks > 1 ? Math.min(gradients, Math.max(settings.bucketBytes, ofOutput, ofExperts)) : 0;
  const chunk = logitsChunk(tokens, vocabularySize);
  const logits = chunk + ofOutput + tokens * stream;
  // At the end of the last forward pass, at the beginning of backward, after a block of it, and at its end.
  const before = microBatches > 1 ? gradients : 0;
  const most = Math.max(
    before + kept + logits,
    Math.max(before, ofOutput) + kept + logits - chunk + tokens * stream,
    Math.max(before, ofOutput + ofBlock) + activations,
    gradients + inBackward + tokens * (again ? stream : largest + stream),
  );
  return {
    weights,
    masterWeights,
    gradients,
    optimizerState,
    activations,
    logits,
    data,
    buckets,
    runtime,
    total: weights + masterWeights + optimizerState + data + buckets + runtime + most,
  };
}
