import type { LanguageModelConfig } from '../models/language/index.ts';
import type { VisionTowerConfig } from '../models/vision/index.ts';
import type { VisionLanguageConfig } from '../models/vision-language/index.ts';
import type { UpcycledPart } from '../upcycling/index.ts';
import type { MemorySettings, PlannedMemory } from './plan-memory.ts';
import type { AnyRecipe } from './recipe.ts';

/** Sizes of one part of a vision-language model. */
export interface PlannedPart {
  parameters: number;
  activeParameters: number;
  /** Of the parameters; the others take no gradients and have no optimizer state. */
  trainedParameters: number;
  /** Operations of a training step in this part. */
  flopsPerStep: number;
}

/** The configuration that a recipe's training leaves in its checkpoints. */
export type PlannedModel =
  | { kind: 'language'; config: LanguageModelConfig }
  | { kind: 'vision-language'; config: VisionLanguageConfig }
  | { kind: 'image-text'; config: VisionTowerConfig };

/** What a recipe takes, wherever it runs. */
export interface Reckoning {
  name: string;
  device: string;
  precision: AnyRecipe['precision'];
  model: PlannedModel;
  parameters: number;
  activeParameters: number;
  trainedParameters: number;
  parts?: Record<UpcycledPart, PlannedPart>;
  tokensPerStep: number;
  flopsPerStep: number;
  /** Operations that a step has more with activation checkpointing. */
  flopsAgain: number;
  /** Null: nobody knows before the data are read. */
  steps: number | null;
  /** Their `runtime` is filled in by the device. */
  settings: MemorySettings;
  memoryOf(change: Partial<MemorySettings>): PlannedMemory;
  notes: string[];
}

/** What of a recipe its memory depends on. */
export function settingsOf(
  { precision, training, strategy }: AnyRecipe,
  batch: Pick<MemorySettings, 'sequenceLength' | 'batchSequences'>,
): MemorySettings {
  const { optimizer, microBatches, activationCheckpointing } = training;
  return {
    ...batch,
    precision,
    optimizerSlots: optimizer.name === 'adamw' ? 2 : optimizer.momentum > 0 ? 1 : 0,
    ranks: strategy.data,
    bucketBytes: strategy.bucketMegabytes * 2 ** 20,
    microBatches,
    activationCheckpointing,
    runtime: 0,
  };
}
