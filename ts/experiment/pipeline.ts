import path from 'node:path';
import { z } from 'zod';
import { fail } from '../native/index.ts';
import { explainIssues, nearestKey } from '../storage/schema-errors.ts';
import { merged } from './overrides.ts';
import { type AnyRecipe, type AnyRecipeInput, openRecipe, readRecipe, readYaml } from './recipe.ts';
import { folderName } from './recipe-parts.ts';
import { type RunOptions, type RunResult, runRecipe } from './run.ts';
import { madeFolder } from './standing.ts';

const tree = z.record(z.string(), z.unknown());

/** Stages of training, each of which starts from what the one before it left. */
export const pipelineSchema = z.strictObject({
  kind: z.literal('pipeline'),
  name: folderName,
  stages: z
    .array(
      z.strictObject({
        /** Names the stage's run folder in that of the pipeline. */
        name: folderName,
        /** A recipe file, relative to the pipeline's own. */
        recipe: z.string(),
        /** Laid over the recipe. */
        set: tree.default({}),
      }),
    )
    .min(1)
    .refine(
      (all) => new Set(all.map(({ name }) => name)).size === all.length,
      'stages need names of their own',
    ),
});
/** A pipeline with every default written out. */
export type Pipeline = z.output<typeof pipelineSchema>;

/** Where and how {@link runPipeline} works. */
export interface PipelineOptions extends Omit<RunOptions, 'onStep'> {
  /** Lay the `smoke` block of every recipe over it: the same at toy size. */
  smoke?: boolean;
}

/** What {@link runPipeline} did. */
export interface PipelineResult {
  name: string;
  out: string;
  /** Of the stages that were carried out, in order. */
  stages: (RunResult & { stage: string })[];
  /** All stages done; false when it was stopped before. */
  completed: boolean;
}

/** Whether a file describes a pipeline, not a recipe. @throws ERR_LIBMOE_FILE, ERR_LIBMOE_RECIPE */
export const isPipeline = (file: string): boolean => readYaml(file).kind === 'pipeline';

/** Reads and checks a pipeline. @throws ERR_LIBMOE_FILE, ERR_LIBMOE_RECIPE */
export function loadPipeline(file: string): Pipeline {
  const given = readYaml(file, 'pipeline');
  const parsed = pipelineSchema.safeParse(given);
  if (parsed.success) return parsed.data;
  return fail('ERR_LIBMOE_RECIPE', `${file}: ${explainIssues(pipelineSchema, parsed.error.issues, given)}`);
}

/** Refuses changes of no stage. @throws ERR_LIBMOE_RECIPE */
export function checkChanges(stages: Pipeline['stages'], changes: Record<string, unknown>): void {
  const names = stages.map(({ name }) => name);
  for (const key of Object.keys(changes)) {
    if (names.includes(key) && tree.safeParse(changes[key]).success) continue;
    fail(
      'ERR_LIBMOE_RECIPE',
      `a pipeline takes changes by stage, such as --set ${names.at(-1)}.training.steps=100: "${key}" is none of ${names.join(', ')}` +
        (nearestKey(key, names) ? `; did you mean "${nearestKey(key, names)}"?` : ''),
    );
  }
}

/** What a stage begins with when the one before it has left a checkpoint: a tower that has learned from captions becomes a model's tower. */
export const beginningWith = (before: AnyRecipe['kind'], checkpoint: string): Record<string, unknown> =>
  before === 'image-text' ? { model: { vision: { checkpoint } } } : { start: { checkpoint } };

/**
 * The recipe of a stage, not checked yet.
 * @param options `changes` of the pipeline; `toy`: with the recipe's `smoke` block over it; `before`: laid over it for what the stage before it left
 */
export function stageRecipe(
  pipeline: { file: string; name: string },
  { name, recipe: own, set }: Pipeline['stages'][number],
  {
    changes,
    toy,
    before,
  }: { changes: Record<string, unknown>; toy: boolean; before: Record<string, unknown> | undefined },
): AnyRecipeInput {
  const { smoke, ...recipe } = merged(readRecipe(path.resolve(path.dirname(pipeline.file), own)), set);
  const sized = toy ? merged(recipe, (smoke as Record<string, unknown> | undefined) ?? {}) : recipe;
  const started = before === undefined ? sized : merged(sized, before);
  const whole = merged(started, (changes[name] as Record<string, unknown> | undefined) ?? {});
  return { ...whole, name: `${pipeline.name}-${name}` } as AnyRecipeInput;
}

/**
 * Carries out the stages of a pipeline one after the other, each in a folder of its own in `out`. A stage after the first starts from the last
 * checkpoint of the one before it, whatever `start.checkpoint` (`model.vision.checkpoint` after a tower's stage) its recipe names. Stopped and called again with `resume` it goes on where it was:
 * a stage that is done takes no step again.
 * @param changes by the name of the stage, laid over its recipe: `{ instruct: { training: { steps: 20 } } }`
 * @throws ERR_LIBMOE_RECIPE, and what runRecipe throws
 */
export async function runPipeline(
  file: string,
  changes: Record<string, unknown> = {},
  options: PipelineOptions = {},
): Promise<PipelineResult> {
  const { name, stages } = loadPipeline(file);
  const { smoke: toy = false, out: given, log = () => {}, ...rest } = options;
  checkChanges(stages, changes);
  const kinds: AnyRecipe['kind'][] = [];
  const recipeOf = (i: number, checkpoint: string | undefined): AnyRecipeInput => {
    const before = checkpoint === undefined ? undefined : beginningWith(kinds[i - 1]!, checkpoint);
    return stageRecipe({ file, name }, stages[i]!, { changes, toy, before });
  };
  // What is wrong with the last stage is to be known before the first one begins.
  for (const i of stages.keys())
    kinds.push((await openRecipe(recipeOf(i, i === 0 ? undefined : 'before'))).kind);
  const out = madeFolder(given ?? path.join('runs', name));
  const done: PipelineResult['stages'] = [];
  for (const [i, stage] of stages.entries()) {
    const whole = recipeOf(i, done.at(-1)?.checkpoint);
    log(`── stage ${i + 1} of ${stages.length}: ${stage.name}`);
    const result = await runRecipe(
      whole,
      {},
      {
        ...rest,
        log,
        out: path.join(out, stage.name),
      },
    );
    done.push({ ...result, stage: stage.name });
    if (!result.training.completed) return { name, out, stages: done, completed: false };
  }
  return { name, out, stages: done, completed: true };
}
