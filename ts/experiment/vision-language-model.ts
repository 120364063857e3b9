import type { Tokenizer } from '../data/index.ts';
import { LanguageModel, loadModel } from '../models/language/index.ts';
import { loadVisionTower, newVisionTower, type VisionTower } from '../models/vision/index.ts';
import {
  loadVisionLanguageModel,
  newVisionLanguageModel,
  Projector,
  readVisionLanguageConfig,
  resolveProjectorConfig,
  VisionLanguageModel,
} from '../models/vision-language/index.ts';
import { MoeLayer } from '../moe/index.ts';
import { fail } from '../native/index.ts';
import type { Module } from '../nn/module.ts';
import { upcycleVisionLanguageWithReport } from '../upcycling/index.ts';
import { resolveCheckpoint } from './checkpoint-path.ts';
import type { VisionLanguageRecipe } from './vision-language-recipe.ts';

/** The kind of model that recipes make. */
export type VisionLanguage = VisionLanguageModel<VisionTower>;

/**
 * The model of a recipe: joined of parts, a checkpoint's, or an upcycled one. A run that goes on has everything in its own checkpoint: the model is
 * made to that form, and training reads the weights.
 * @param own the checkpoint to go on from
 */
export async function makeVisionLanguageModel(
  recipe: VisionLanguageRecipe,
  tokenizer: Tokenizer,
  own: string | undefined,
  log: (line: string) => void,
): Promise<VisionLanguage> {
  const dtype = recipe.precision;
  if (own !== undefined)
    return newVisionLanguageModel(readVisionLanguageConfig(own).config, { seed: 'later', dtype });
  if (recipe.model) return joined(recipe.model, recipe, tokenizer);
  const { checkpoint, upcycle } = recipe.start!;
  const loaded = await loadVisionLanguageModel(resolveCheckpoint(checkpoint), { dtype });
  if (!upcycle) return loaded;
  try {
    const { model, report } = upcycleVisionLanguageWithReport(loaded, upcycle);
    log(
      `upcycled: ${report.parameters.before.toLocaleString('en')} → ${report.parameters.after.toLocaleString('en')} parameters`,
    );
    for (const note of report.notes) log(note);
    for (const why of report.unlikeDense) log(`the model does not start as the dense one: ${why}`);
    return model;
  } finally {
    loaded.dispose();
  }
}

async function joined(
  { language, vision, projector, compat }: NonNullable<VisionLanguageRecipe['model']>,
  { precision: dtype, seed }: VisionLanguageRecipe,
  tokenizer: Tokenizer,
): Promise<VisionLanguage> {
  const parts: { dispose(): void }[] = [];
  const kept = <Part extends { dispose(): void }>(part: Part): Part => {
    parts.push(part);
    return part;
  };
  try {
    const llm = kept(
      'checkpoint' in language
        ? await loadModel(resolveCheckpoint(language.checkpoint), { dtype })
        : new LanguageModel(
            { ...language, vocabularySize: language.vocabularySize ?? tokenizer.vocabularySize },
            { seed, dtype },
          ),
    );
    const { vocabularySize, dModel } = llm.config;
    if (vocabularySize < tokenizer.vocabularySize)
      fail(
        'ERR_LIBMOE_RECIPE',
        `the language model has ${vocabularySize} ids, the tokenizer ${tokenizer.vocabularySize}: take another tokenizer, or leave model.language.vocabularySize out`,
      );
    const tower = kept(await towerOf(vision, { seed, dtype }));
    const { featureWidth, tokensPerImage } = tower;
    const between = kept(
      new Projector({ featureWidth, tokensPerImage, dModel }, resolveProjectorConfig(projector), {
        values: { seed, name: 'projector' },
        dtype,
      }),
    );
    // Without a token of its own an image stands beyond the vocabulary, where no text is.
    const imageTokenId = tokenizer.tokenToId('<image>') ?? vocabularySize;
    return new VisionLanguageModel(
      { vision: tower, projector: between, language: llm },
      { imageTokenId, compat },
    );
  } catch (error) {
    for (const part of parts) part.dispose();
    throw error;
  }
}

async function towerOf(
  vision: NonNullable<VisionLanguageRecipe['model']>['vision'],
  { seed, dtype }: { seed: number; dtype: 'f32' | 'bf16' },
): Promise<VisionTower> {
  if (!('checkpoint' in vision)) return newVisionTower(vision, { seed, dtype });
  const { checkpoint, ...changes } = vision;
  // One vector of an image is what contrastive training compares; here every patch counts.
  return loadVisionTower(resolveCheckpoint(checkpoint), { dtype, changes: { ...changes, pool: undefined } });
}

/** A model in words, and how many of its parameters a token or an image row passes: of every layer with experts, as many as it is sent to. */
export function describeMixtures(model: Module): {
  model: string;
  parameters: number;
  activeParameters: number;
} {
  let idle = 0;
  let mixture = '';
  for (const module of model.namedModules().values()) {
    if (!(module instanceof MoeLayer)) continue;
    const { experts, topK } = module;
    const each = experts.parameters().reduce((sum, { size }) => sum + size, 0) / experts.count;
    idle += each * Math.max(0, experts.count - topK);
    mixture ||= `${experts.count} experts, top ${topK}`;
  }
  const parameters = model.parameterCount();
  return { model: mixture || 'dense', parameters, activeParameters: Math.round(parameters - idle) };
}
