export { resolveCheckpoint } from './checkpoint-path.ts';
export { type DemoOptions, type DemoResult, type DemoRun, runDemo } from './demo.ts';
export { headlines } from './evaluation.ts';
export { merged, parseOverrides } from './overrides.ts';
export { copyTokenizer, type Prepared, type PrepareOptions, prepareData } from './prepare.ts';
export { loadRecipe, openRecipe, type Recipe, type RecipeInput, recipeSchema, recipeText } from './recipe.ts';
export { type RunOptions, type RunResult, runRecipe } from './run.ts';
export { importUserModule } from './user-modules.ts';
