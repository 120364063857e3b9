import { z } from 'zod';
import { fail } from '../../native/index.ts';
import { explainIssues } from '../../storage/schema-errors.ts';
import {
  type LanguageModelConfig,
  languageModelConfigSchema,
  resolveLanguageModelConfig,
} from '../language/config.ts';
import { LanguageModel, type NewModelOptions } from '../language/model.ts';
import {
  resolveVisionTowerConfig,
  VisionTower,
  type VisionTowerConfig,
  visionTowerConfigSchema,
} from '../vision/index.ts';
import { VisionLanguageModel } from './model.ts';
import { Projector } from './projector.ts';
import { type ProjectorConfig, projectorSchema, resolveProjectorConfig } from './projector-config.ts';

/** Everything that defines a vision-language model; unknown keys are errors. */
export const visionLanguageConfigSchema = z.strictObject({
  vision: visionTowerConfigSchema,
  projector: projectorSchema.prefault({}),
  language: languageModelConfigSchema,
  /** The token whose places the rows of images take; it may lie outside the vocabulary. */
  imageTokenId: z.number().int().nonnegative(),
  /** See {@link VisionLanguageModel.compat}. */
  compat: z.enum(['fixed', 'libmoe']).default('fixed'),
});

/** What a user writes: defaults may be left out. */
export type VisionLanguageOptions = z.input<typeof visionLanguageConfigSchema>;

/** A complete configuration: every default written out. */
export interface VisionLanguageConfig {
  vision: VisionTowerConfig;
  projector: ProjectorConfig;
  language: LanguageModelConfig;
  imageTokenId: number;
  compat: 'fixed' | 'libmoe';
}

/**
 * Checks a configuration and writes out its defaults.
 * @throws ERR_LIBMOE_CONFIG naming every wrong or unknown key, the nearest known key beside it
 */
export function resolveVisionLanguageConfig(options: unknown): VisionLanguageConfig {
  const parsed = visionLanguageConfigSchema.safeParse(options);
  if (!parsed.success)
    return fail(
      'ERR_LIBMOE_CONFIG',
      `vision-language model: ${explainIssues(visionLanguageConfigSchema, parsed.error.issues, options)}`,
    );
  const { vision, projector, language, imageTokenId, compat } = parsed.data;
  return {
    vision: resolveVisionTowerConfig(vision),
    projector: resolveProjectorConfig(projector),
    language: resolveLanguageModelConfig(language),
    imageTokenId,
    compat,
  };
}

/**
 * A new vision-language model with initial values: those of tower and language model as if each were made alone, those of the projector as
 * PyTorch's Linear.
 * @throws ERR_LIBMOE_CONFIG
 */
export function newVisionLanguageModel(
  options: VisionLanguageOptions,
  made: NewModelOptions = {},
): VisionLanguageModel<VisionTower> {
  const { vision, projector, language, imageTokenId, compat } = resolveVisionLanguageConfig(options);
  const { seed = 0, dtype, device } = made;
  const tower = new VisionTower(vision, made);
  const { featureWidth, tokensPerImage } = tower;
  const place = { featureWidth, tokensPerImage, dModel: language.dModel };
  const values = seed === 'later' ? seed : { seed, name: 'projector' };
  const layer = { values, ...(dtype && { dtype }), ...(device && { device }) };
  const parts = [tower] as { dispose(): void }[];
  try {
    const between = new Projector(place, projector, layer);
    parts.push(between);
    const llm = new LanguageModel(language, made);
    parts.push(llm);
    return new VisionLanguageModel(
      { vision: tower, projector: between, language: llm },
      { imageTokenId, compat },
    );
  } catch (error) {
    for (const part of parts) part.dispose();
    throw error;
  }
}

/** The complete configuration of a model. */
export const configOf = (model: VisionLanguageModel<VisionTower>): VisionLanguageConfig => ({
  vision: model.vision.config,
  projector: model.projector.config,
  language: model.language.config,
  imageTokenId: model.imageTokenId,
  compat: model.compat,
});
