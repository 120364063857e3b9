export { resolveCheckpoint } from './checkpoint-path.ts';
export { type DemoResult, type DemoRun, runDemo } from './demo.ts';
export type { DemoOptions } from './demo-runs.ts';
export {
  type EvaluatedModel,
  type EvaluatedModelOptions,
  folderOf,
  openEvaluatedModel,
} from './evaluated-model.ts';
export { headlines } from './evaluation.ts';
export {
  type ImageTextRecipe,
  type ImageTextRecipeInput,
  imageTextRecipeSchema,
} from './image-text-recipe.ts';
export { type Recipe, type RecipeInput, recipeSchema } from './language-recipe.ts';
export { merged, parseOverrides } from './overrides.ts';
export {
  isPipeline,
  loadPipeline,
  type Pipeline,
  type PipelineOptions,
  type PipelineResult,
  pipelineSchema,
  runPipeline,
} from './pipeline.ts';
export { type Plan, type PlanOptions, planRecipe } from './plan.ts';
export type { PlannedMemory } from './plan-memory.ts';
export { type PipelinePlan, planPipeline } from './plan-pipeline.ts';
export type { PlannedPart } from './plan-reckoning.ts';
export type { Remedy } from './plan-remedies.ts';
export { type Prepared, type PrepareOptions, prepareData } from './prepare.ts';
export { copyTokenizer } from './prepare-tokenizer.ts';
export {
  type AnyRecipe,
  type AnyRecipeInput,
  loadAnyRecipe,
  loadRecipe,
  openRecipe,
  recipeText,
} from './recipe.ts';
export { type RunOptions, type RunResult, runRecipe } from './run.ts';
export type { BestEvaluation } from './run-evaluation.ts';
export { plannedRuns, runSweep, type SweepOptions, type SweepSummary } from './sweep.ts';
export {
  type LoadSweepOptions,
  loadSweep,
  openSweep,
  type Sweep,
  type SweepInput,
  type SweepRun,
  sweepSchema,
} from './sweep-file.ts';
export { type Measured, type SweepMetric, type SweepTask, sweepMetrics } from './sweep-measure.ts';
export type { SweepOutcome, SweepResults, SweepVariant } from './sweep-results.ts';
export { importUserModule } from './user-modules.ts';
export { runVisionDemo, type VisionDemoResult, type VisionDemoRun } from './vision-demo.ts';
export {
  type VisionLanguageRecipe,
  type VisionLanguageRecipeInput,
  visionLanguageRecipeSchema,
} from './vision-language-recipe.ts';
