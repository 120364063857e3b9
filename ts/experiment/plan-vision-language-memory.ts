import { moeLayersOf, type ParameterReport } from '../models/language/index.ts';
import {
  depthOf,
  type TowerParameterReport,
  type VisionTowerConfig,
  visionMoeLayersOf,
} from '../models/vision/index.ts';
import {
  linearLayersOf,
  type ProjectorParameterReport,
  projectorMoeOf,
  projectorWidth,
  type VisionLanguageConfig,
} from '../models/vision-language/index.ts';
import type { UpcycledPart } from '../upcycling/index.ts';
import { type BlockSizes, blocksKept, f32, forwardOnly, logitsChunk, working } from './plan-blocks.ts';
import type { MemorySettings, PlannedMemory } from './plan-memory.ts';
import type { RouterOnProbe } from './plan-router.ts';
import type { Learned } from './plan-trained.ts';

/** A vision-language model as a plan knows it. */
export interface PlannedParts {
  config: VisionLanguageConfig;
  vision: TowerParameterReport;
  projector: ProjectorParameterReport;
  language: ParameterReport;
  /** Parameters that are trained. */
  trained: Record<UpcycledPart, number>;
  /** The same with what lies beside them. */
  learned: Record<UpcycledPart, Learned>;
  /** Width of a row of the tower. */
  featureWidth: number;
}

/** What memory depends on besides the model; a sequence is a conversation as long as the context. */
export interface VisionLanguageMemorySettings extends MemorySettings {
  imagesPerSequence: number;
}

/** Blocks of a tower in the form of those of a language model. */
function towerBlocks(config: VisionTowerConfig): BlockSizes {
  const { dModel, heads, hidden, activation, moe } = config;
  return {
    dModel,
    heads,
    keyValueHeads: heads,
    headDim: dModel / heads,
    norm: 'layernorm',
    layers: depthOf(config),
    feedForward: { hidden, activation, gated: false, bias: true },
    moe: moe && { ...moe, layers: visionMoeLayersOf(config) },
  };
}

/** Bytes of one part in one micro-batch. */
interface PartMemory {
  /** What the tape keeps until the part's backward pass is over. */
  kept: number;
  /** Beside it, while it is computed. */
  inForward: number;
  /** Beside it, at the most in backward. */
  inBackward: number;
}

/** Of a tower, from its pixels to its last layer. */
export function towerMemory(
  {
    config: tower,
    report,
    learned,
  }: { config: VisionTowerConfig; report: TowerParameterReport; learned: Learned },
  images: number,
  { element, again, router }: { element: number; again: boolean; router: RouterOnProbe | undefined },
): PartMemory {
  const { dModel, patchSize, resolution, scales } = tower;
  const sizes = towerBlocks(tower);
  const pieces = scales.reduce((sum, scale) => sum + scale ** 2, 0);
  const rows = images * report.tokensPerImage;
  const largest = (rows * Math.max(...scales) ** 2) / pieces;
  const blocks = blocksKept(sizes, element, router);
  const topK = again ? moeLayersOf(sizes).length * f32 * (tower.moe?.topK ?? 0) : 0;
  const ofBlocks = again ? topK : blocks.reduce((a, b) => a + b, 0) + learned.besideKept * element;
  const patches = 3 * patchSize ** 2 * element;
  const learns = learned.trained > 0;
  const kept = learns ? rows * (patches + element * dModel * (sizes.layers + 1) + ofBlocks) : 0;
  const held = working(sizes, learned.besideUp).map(
    (numbers, layer) => element * numbers + (again ? blocks[layer]! : 0),
  );
  // Norms, queries, keys, values, the answer and both sums of the largest block, and what its feed-forward layer works in.
  const more = forwardOnly(sizes).map((numbers) => element * (4 * dModel + numbers));
  const between = Math.max(...more.map((bytes, layer) => bytes + blocks[layer]!), 0);
  const pixels = images * 3 * resolution ** 2 * f32;
  const enlarged = scales.reduce((sum, scale) => sum + (scale > 1 ? 2 * scale ** 2 : 0), 0) * pixels;
  return {
    kept,
    inForward: enlarged + largest * (learns && !again ? Math.max(...more, 0) : between),
    inBackward: learns ? largest * (Math.max(...held, 0) + element * dModel) : 0,
  };
}

function projectorMemory(
  { config, projector, featureWidth, trained }: PlannedParts,
  images: number,
  { element, again, router }: { element: number; again: boolean; router: RouterOnProbe | undefined },
): PartMemory {
  const { dModel } = config.language;
  const rows = images * projector.tokensPerImage;
  const features = rows * projectorWidth({ featureWidth }, config.projector) * element;
  const moe = projectorMoeOf(config.projector, dModel);
  const hidden = dModel * element;
  // What is activated is computed again in backward.
  const layers = moe ? Number(Boolean(moe.shared)) : Math.max(0, linearLayersOf(config.projector) - 1);
  const ofRouter =
    moe && router ? router.bytesPerToken + router.choicesPerToken * (dModel * element + 3 * f32) : 0;
  const inner = ofRouter + layers * 2 * hidden;
  const walked = trained.projector > 0 || trained.vision > 0;
  const kept = walked ? features + rows * (again ? f32 * (moe?.topK ?? 0) : inner - layers * hidden) : 0;
  const answers = rows * dModel * element;
  const gradients = 2 * answers + (trained.vision > 0 ? features : 0);
  return {
    kept,
    inForward: (walked ? 0 : features) + rows * inner + answers,
    inBackward: walked ? gradients + rows * (again ? inner : 0) : 0,
  };
}

/** The largest gradient of a mixture's experts, which are one tensor. */
const expertGradient = (
  moe: { experts: number; expert: { hidden: number; gated: boolean } } | undefined,
  width: number,
): number => (moe ? moe.experts * moe.expert.hidden * width * (moe.expert.gated ? 2 : 1) * f32 : 0);

/**
 * Memory of a training step of a vision-language model. Parts that are not trained have weights only; what the tape keeps of them depends on whether
 * anything before them is trained.
 * @param routers what the routers of the parts leave, in the precision of the settings
 */
export function plannedVisionLanguageMemory(
  model: PlannedParts,
  routers: Partial<Record<UpcycledPart, RouterOnProbe>>,
  settings: VisionLanguageMemorySettings,
): PlannedMemory {
  const { config, trained } = model;
  const { precision, sequenceLength, microBatches, ranks, runtime } = settings;
  const { language } = config;
  const { dModel, vocabularySize } = language;
  const element = precision === 'bf16' ? 2 : f32;
  const again = settings.activationCheckpointing;
  const sequences = settings.batchSequences / ranks;
  const tokens = Math.ceil(sequences / microBatches) * sequenceLength;
  const images = Math.ceil(Math.ceil(sequences / microBatches) * settings.imagesPerSequence);

  const { vision: beVision, projector: beProjector, language: beLanguage } = model.learned;
  const beside = beVision.beside + beProjector.beside + beLanguage.beside;
  const total = model.vision.total + model.projector.total + model.language.total + beside;
  const learned = trained.vision + trained.projector + trained.language;
  const buffers =
    visionMoeLayersOf(config.vision).length * (routers.vision?.buffers ?? 0) +
    (routers.projector?.buffers ?? 0) +
    moeLayersOf(language).length * (routers.language?.buffers ?? 0);
  const weights = total * element + buffers * f32;
  const masterWeights = precision === 'bf16' ? learned * f32 : 0;
  const gradients = learned * f32;
  const optimizerState = learned * f32 * settings.optimizerSlots;
  const pixels = images * 3 * config.vision.resolution ** 2 * f32;
  const data = sequences * sequenceLength * 4 * f32 + sequenceLength * language.rotary.dims * f32 + pixels;

  const tower = towerMemory({ config: config.vision, report: model.vision, learned: beVision }, images, {
    element,
    again,
    router: routers.vision,
  });
  const between = projectorMemory(model, images, { element, again, router: routers.projector });
  const ofImages = tower.kept + between.kept;

  const stream = element * dModel;
  const walked = learned > 0;
  const blocks = blocksKept(language, element, routers.language);
  const largest = Math.max(...blocks);
  const all = again
    ? moeLayersOf(language).length * f32 * (language.moe?.topK ?? 0)
    : blocks.reduce((a, b) => a + b, 0) + beLanguage.besideKept * element;
  const kept = walked ? tokens * ((language.layers + 2) * stream + all) : 0;
  const held = working(language, beLanguage.besideUp).map(
    (numbers, layer) => element * numbers + (again ? blocks[layer]! : 0),
  );
  const learns = trained.language > 0;
  // The gradients that come into a block and leave it; where weights learn, those of a whole block are counted before they all are there.
  const passing = learns ? 0 : 2 * stream;
  const inBackward = tokens * (Math.max(...held) + passing);

  const ofOutput = beLanguage.output ? vocabularySize * dModel * f32 : 0;
  const ofLanguage = trained.language * f32;
  const ofBlock =
    (Math.min(trained.language, model.language.total - model.language.embeddings) / language.layers) * f32;
  const largestGradient = Math.max(
    ofOutput,
    learns ? expertGradient(language.moe, dModel) : 0,
    trained.vision > 0 ? expertGradient(config.vision.moe, config.vision.dModel) : 0,
    trained.projector > 0
      ? expertGradient(projectorMoeOf(config.projector, dModel), projectorWidth(model, config.projector))
      : 0,
  );
  const buckets = ranks > 1 ? Math.min(gradients, Math.max(settings.bucketBytes, largestGradient)) : 0;
  const chunk = logitsChunk(tokens, vocabularySize);
  const logits = chunk + ofOutput + tokens * stream;
  const before = microBatches > 1 ? gradients : 0;
  const most = Math.max(
    // Tower and projector forward, the end of the forward pass, the beginning of backward, after a block of it,
    before + tower.kept + tower.inForward,
    before + ofImages + between.inForward,
    before + ofImages + kept + logits,
    Math.max(before, ofOutput) + ofImages + kept + logits - chunk + tokens * stream,
    Math.max(before, ofOutput + ofBlock) + ofImages + kept + inBackward,
    // at the end of the language model, in the projector, at both ends of the tower.
    Math.max(before, ofLanguage) + ofImages + inBackward + tokens * (again ? stream : largest + stream),
    Math.max(before, ofLanguage + trained.projector * f32) + ofImages + between.inBackward,
    Math.max(before, ofLanguage + trained.projector * f32) + tower.kept + tower.inBackward,
    gradients + tower.inBackward,
  );
  return {
    weights,
    masterWeights,
    gradients,
    optimizerState,
    activations: Math.max(
      tower.kept + tower.inForward,
      ofImages + kept + inBackward,
      tower.kept + tower.inBackward,
    ),
    logits,
    data,
    buckets,
    runtime,
    total: weights + masterWeights + optimizerState + data + buckets + runtime + most,
  };
}
