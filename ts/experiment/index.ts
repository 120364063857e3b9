export { resolveCheckpoint } from './checkpoint-path.ts';
export { type DemoOptions, type DemoResult, type DemoRun, runDemo } from './demo.ts';
export { merged, parseOverrides } from './overrides.ts';
export { copyTokenizer, type Prepared, prepareData } from './prepare.ts';
export { loadRecipe, type Recipe, type RecipeInput, recipeSchema, recipeText } from './recipe.ts';
export { headlines, type RunOptions, type RunResult, runRecipe } from './run.ts';
