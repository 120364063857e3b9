import { beginningWith, checkChanges, loadPipeline, stageRecipe } from './pipeline.ts';
import { type Plan, type PlanOptions, planned, reckon } from './plan.ts';
import type { PlannedModel } from './plan-reckoning.ts';
import { openRecipe } from './recipe.ts';

/** What the stages of a pipeline take. */
export interface PipelinePlan {
  name: string;
  /** In order; each starts from the model that the one before it leaves. */
  stages: (Plan & { stage: string })[];
  /** Whether all of them fit. */
  fits: boolean;
}

/** Stands in a recipe for the checkpoint that the stage before it will leave. */
const notYet = '(the stage before)';

/**
 * {@link planRecipe} for every stage of a pipeline, of which none need have run: what a stage starts from is reckoned from the one before it.
 * @param changes by the name of the stage, laid over its recipe
 * @throws ERR_LIBMOE_FILE, ERR_LIBMOE_RECIPE, ERR_LIBMOE_ARGUMENT
 */
export async function planPipeline(
  file: string,
  changes: Record<string, unknown> = {},
  options: PlanOptions & { smoke?: boolean } = {},
): Promise<PipelinePlan> {
  const { smoke: toy = false, ...machine } = options;
  const { name, stages } = loadPipeline(file);
  checkChanges(stages, changes);
  const plans: PipelinePlan['stages'] = [];
  let model: PlannedModel | undefined;
  let before: Record<string, unknown> | undefined;
  for (const stage of stages) {
    const recipe = await openRecipe(stageRecipe({ file, name }, stage, { changes, toy, before }));
    const start = recipe.kind === 'image-text' ? undefined : recipe.start;
    const reckoning = reckon(recipe, start?.checkpoint === notYet ? model : undefined);
    plans.push({ ...planned(reckoning, machine), stage: stage.name });
    model = reckoning.model;
    before = beginningWith(recipe.kind, notYet);
    if (recipe.kind === 'image-text') {
      // A tower that is to come is reckoned as a new one of its sizes, without what only captions need.
      const { pool: _, ...vision } = recipe.model.vision;
      before = { model: { vision } };
    }
  }
  return { name, stages: plans, fits: plans.every(({ fits }) => fits) };
}
