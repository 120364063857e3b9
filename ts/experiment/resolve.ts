import { type LanguageModelConfig, resolveLanguageModelConfig } from '../models/language/index.ts';
import { routerDefinition } from '../moe/index.ts';
import { resolveCheckpoint } from './checkpoint-path.ts';
import { type Recipe, recipeSchema } from './language-recipe.ts';

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
