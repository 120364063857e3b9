import { type LanguageModelConfig, resolveLanguageModelConfig } from '../models/language/index.ts';
import { resolveVisionTowerConfig } from '../models/vision/index.ts';
import { resolveProjectorConfig } from '../models/vision-language/index.ts';
import { routerDefinition } from '../moe/index.ts';
import { resolveCheckpoint } from './checkpoint-path.ts';
import type { ImageTextRecipe } from './image-text-recipe.ts';
import { type Recipe, recipeSchema } from './language-recipe.ts';
import type { AnyRecipe } from './recipe.ts';
import { type VisionLanguageRecipe, visionLanguageRecipeSchema } from './vision-language-recipe.ts';

type Router = { name: string; [option: string]: unknown };

/** A router with the defaults of its options written out. */
function wholeRouter(given: string | Router): Router {
  const { name, ...options } = typeof given === 'string' ? { name: given } : given;
  return { name, ...(routerDefinition(name).options.parse(options) as Record<string, unknown>) };
}

function wholeModel(config: LanguageModelConfig): LanguageModelConfig {
  const { moe } = config;
  return moe ? { ...config, moe: { ...moe, router: wholeRouter(moe.router) } } : config;
}

/**
 * The recipe with what only a run can know: the size of the vocabulary, what the model and its routers default to, the very checkpoint that a
 * run folder stands for. Repeating it repeats the run, whatever becomes of defaults and of that folder.
 */
export function resolvedRecipe(recipe: Recipe, vocabularySize: number): Recipe {
  const { model, start } = recipe;
  if (model) {
    const config = resolveLanguageModelConfig({
      ...model,
      vocabularySize: model.vocabularySize ?? vocabularySize,
    });
    // Parsed once more: the keys then stand in the schema's order, so that equal recipes are equal texts.
    return recipeSchema.parse({ ...recipe, model: wholeModel(config) });
  }
  const { checkpoint, upcycle, only } = start!;
  return {
    ...recipe,
    start: {
      checkpoint: resolveCheckpoint(checkpoint),
      ...(upcycle && { upcycle: { ...upcycle, router: wholeRouter(upcycle.router) } }),
      ...(only && { only }),
    },
  };
}

/** {@link resolvedRecipe} for a vision-language model. */
export function resolvedVisionLanguageRecipe(
  given: VisionLanguageRecipe,
  vocabularySize: number,
): VisionLanguageRecipe {
  const { model, start, training, strategy } = given;
  const { order } = given.data;
  const groups =
    given.data.groups ??
    (order === 'length' || order === 'modality' ? training.microBatches * strategy.data : undefined);
  const recipe = { ...given, data: { ...given.data, ...(groups !== undefined && { groups }) } };
  if (start) {
    const { checkpoint, upcycle } = start;
    return {
      ...recipe,
      start: {
        checkpoint: resolveCheckpoint(checkpoint),
        ...(upcycle && { upcycle: { ...upcycle, router: wholeRouter(upcycle.router) } }),
      },
    };
  }
  const { language, vision, projector, compat } = model!;
  const resolved = {
    language:
      'checkpoint' in language
        ? { checkpoint: resolveCheckpoint(language.checkpoint) }
        : wholeModel(
            resolveLanguageModelConfig({
              ...language,
              vocabularySize: language.vocabularySize ?? vocabularySize,
            }),
          ),
    vision:
      'checkpoint' in vision
        ? { ...vision, checkpoint: resolveCheckpoint(vision.checkpoint) }
        : resolveVisionTowerConfig(vision),
    projector: resolveProjectorConfig(projector),
    compat,
  };
  return visionLanguageRecipeSchema.parse({ ...recipe, model: resolved });
}

/** {@link resolvedRecipe} for the pretraining of a tower. */
export const resolvedImageTextRecipe = (recipe: ImageTextRecipe): ImageTextRecipe => ({
  ...recipe,
  model: { ...recipe.model, vision: resolveVisionTowerConfig(recipe.model.vision) },
});

/** The recipe with what only a run can know, whatever its kind. */
export const resolvedAnyRecipe = (recipe: AnyRecipe, vocabularySize: number): AnyRecipe =>
  recipe.kind === 'language'
    ? resolvedRecipe(recipe, vocabularySize)
    : recipe.kind === 'vision-language'
      ? resolvedVisionLanguageRecipe(recipe, vocabularySize)
      : resolvedImageTextRecipe(recipe);
