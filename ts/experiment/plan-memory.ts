import { type LanguageModelConfig, moeLayersOf, type ParameterReport } from '../models/language/index.ts';
import { blocksKept, f32, logitsChunk, working } from './plan-blocks.ts';
import type { RouterOnProbe } from './plan-router.ts';
import { type Learned, learnedWhole } from './plan-trained.ts';

/** Bytes on one rank at the moment of a training step when there are most. */
export interface PlannedMemory {
  /** Parameters and buffers in the dtype of the run. */
  weights: number;
  /** f32 copies that the optimizer keeps of bf16 parameters. */
  masterWeights: number;
  /** f32, of the parameters that are trained. */
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

/**
 * Memory of a training step, reckoned but for the routers.
 * @param router what the model's routers leave, in the precision of the settings
 * @param learned default: everything
 */
export function plannedMemory(
  config: LanguageModelConfig,
  report: ParameterReport,
  router: RouterOnProbe | undefined,
  settings: MemorySettings,
  learned: Learned = learnedWhole(report.total),
): PlannedMemory {
  const { precision, sequenceLength, microBatches, ranks, runtime } = settings;
  const batchSequences = settings.batchSequences / ranks;
  const { dModel, vocabularySize } = config;
  const element = precision === 'bf16' ? 2 : f32;
  const tokens = Math.ceil(batchSequences / microBatches) * sequenceLength;
  const buffers = moeLayersOf(config).length * (router?.buffers ?? 0);
  const { trained, beside, besideKept } = learned;
  const weights = (report.total + beside) * element + buffers * f32;
  const masterWeights = precision === 'bf16' ? trained * f32 : 0;
  const gradients = trained * f32;
  const optimizerState = gradients * settings.optimizerSlots;
  const data = batchSequences * sequenceLength * 4 * f32 + config.maxPositions * config.rotary.dims * f32;

  const stream = element * dModel;
  const blocks = blocksKept(config, element, router);
  const largest = Math.max(...blocks);
  const all = blocks.reduce((a, b) => a + b, 0) + besideKept * element;
  // The stream into each block and into the last norm, and what comes out of it.
  const streams = (config.layers + 2) * stream;
  const again = settings.activationCheckpointing;
  const kept = tokens * (streams + (again ? config.layers * f32 * (config.moe?.topK ?? 0) : all));
  const held = working(config, learned.besideUp).map(
    (numbers, layer) => element * numbers + (again ? blocks[layer]! : 0),
  );
  const inBackward = tokens * Math.max(...held);
  const activations = kept + inBackward;

  const ofOutput = learned.output ? vocabularySize * dModel * f32 : 0;
  const ofBlock = (Math.min(trained, report.total - report.embeddings) / config.layers) * f32;
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
