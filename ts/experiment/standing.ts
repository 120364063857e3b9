import { existsSync, mkdirSync } from 'node:fs';
import path from 'node:path';
import { codeOf, fail } from '../native/index.ts';
import { reasonOf } from '../storage/json.ts';
import { type CheckpointFolder, newestIntact } from '../training/index.ts';
import { usedBy } from '../training/run-folder.ts';
import { type AnyRecipe, loadAnyRecipe } from './recipe.ts';
import { resolvedAnyRecipe } from './resolve.ts';

/** A run that a folder holds already, with the same recipe as the one at hand. */
export interface StandingRun {
  /** As it was written when the run began. */
  recipe: AnyRecipe;
  /** The newest intact one. Without any the run begins anew. */
  checkpoint: CheckpointFolder | undefined;
}

/**
 * What may differ when a run goes on: where and how it is computed, how long, what is written and measured beside it. An entry stands for
 * everything below it. All other keys make up the run.
 */
const free = [
  'name',
  'device',
  'imports',
  'data.heldOut',
  'data.cache',
  'data.workers',
  'training.steps',
  'training.epochs',
  'training.activationCheckpointing',
  'training.checkpointEvery',
  'training.keepCheckpoints',
  'training.evaluateEvery',
  'training.evaluateAt',
  'training.evaluateFirst',
  'strategy',
  'evaluation',
  'logging',
  'smoke',
];

/**
 * Looks at a run folder before anything is prepared or written. Undefined when it holds no run yet.
 * @param resume whether the run there is to go on
 * @throws ERR_LIBMOE_STATE when it holds a run and `resume` is false, the run of another recipe, or a recipe.yaml that no run wrote;
 * ERR_LIBMOE_CHECKPOINT when every checkpoint is damaged
 */
export function standingRun(out: string, recipe: AnyRecipe, resume: boolean): StandingRun | undefined {
  const file = path.join(out, 'recipe.yaml');
  const used = usedBy(out);
  if (used === undefined) {
    if (existsSync(file) && !existsSync(path.join(out, 'environment.json')))
      fail(
        'ERR_LIBMOE_STATE',
        `${file} was not written by a run and would be overwritten: choose another --out`,
      );
    return undefined;
  }
  if (!resume)
    fail(
      'ERR_LIBMOE_STATE',
      `${out} holds a run already (${used}): go on with --resume, or choose another folder with --out`,
    );
  const stored = storedRecipe(file);
  const changed = differences(stored, recipe);
  if (changed.length > 0) {
    const more = changed.length > 6 ? `; and ${changed.length - 6} more` : '';
    fail(
      'ERR_LIBMOE_STATE',
      `${out} holds the run of another recipe: ${changed.slice(0, 6).join('; ')}${more}. Go on with its own recipe (${file}), or choose another folder with --out`,
    );
  }
  return { recipe: stored, checkpoint: newestIntact(path.join(out, 'checkpoints'), () => {}) };
}

/** The recipe to go on with: the run's own wherever it makes up the run. */
export function continued(recipe: AnyRecipe, { recipe: stored, checkpoint }: StandingRun): AnyRecipe {
  if (!checkpoint) return recipe;
  // Both are of one kind, or they would be two runs.
  const { model, start } = stored as { model?: unknown; start?: unknown };
  return { ...recipe, model, start } as AnyRecipe;
}

function storedRecipe(file: string): AnyRecipe {
  try {
    return loadAnyRecipe(file);
  } catch (error) {
    if (codeOf(error) === undefined) throw error;
    fail(
      'ERR_LIBMOE_STATE',
      `the run cannot go on: its own recipe cannot be read, so nobody knows whether this one is the same (${(error as Error).message})`,
      error,
    );
  }
}

/**
 * The keys in which two recipes make two runs, as `key was this, is that`.
 * @param mayDiffer keys that do not count, with everything below them
 */
export function differences(was: AnyRecipe, is: AnyRecipe, mayDiffer: readonly string[] = free): string[] {
  const vocabularySize = vocabularyIn(was) ?? vocabularyIn(is) ?? 1;
  const before = leaves(resolvedAnyRecipe(was, vocabularySize));
  const after = leaves(resolvedAnyRecipe(is, vocabularySize));
  for (const key of ['start.checkpoint', 'model.language.checkpoint', 'model.vision.checkpoint']) {
    const [began, asked] = [before, after].map((all) => all.get(key));
    if (
      began &&
      asked &&
      isOrHolds(JSON.parse(givenIn(is, key) ?? asked) as string, JSON.parse(began) as string)
    )
      after.set(key, began);
  }
  const keys = [...new Set([...before.keys(), ...after.keys()])].filter(
    (key) => before.get(key) !== after.get(key) && !mayDiffer.some((own) => `${key}.`.startsWith(`${own}.`)),
  );
  return keys.map((key) => `${key} was ${before.get(key) ?? 'not set'}, is ${after.get(key) ?? 'not set'}`);
}

/** What a recipe says at a path before anything is resolved, as JSON. */
const givenIn = (recipe: AnyRecipe, key: string): string | undefined => leaves(recipe).get(key);

function vocabularyIn(recipe: AnyRecipe): number | undefined {
  if (recipe.kind === 'language') return recipe.model?.vocabularySize;
  const language = recipe.kind === 'vision-language' ? recipe.model?.language : undefined;
  return language && 'vocabularySize' in language ? language.vocabularySize : undefined;
}

/** A run folder's newest checkpoint moves on, and so does its best; the run that began with an earlier one is still the same. */
function isOrHolds(given: string, checkpoint: string): boolean {
  const [asked, inside] = [path.resolve(given), path.resolve(checkpoint)];
  const [above, name] = [path.dirname(asked), path.basename(asked)];
  const folder = path.basename(above) === 'checkpoints' && !name.startsWith('step-') ? above : asked;
  return inside === folder || inside.startsWith(folder + path.sep);
}

/** Every value of a tree as JSON, by its dotted path; lists are values. */
function leaves(
  tree: object,
  prefix = '',
  out = new Map<string, string | undefined>(),
): Map<string, string | undefined> {
  for (const [key, value] of Object.entries(tree)) {
    if (value === undefined) continue;
    if (typeof value === 'object' && value !== null && !Array.isArray(value))
      leaves(value as object, `${prefix}${key}.`, out);
    else out.set(prefix + key, JSON.stringify(value));
  }
  return out;
}

/** Makes the folder that several runs go into, before anything is done for it. @throws ERR_LIBMOE_ARGUMENT for '', ERR_LIBMOE_FILE */
export function madeFolder(out: string): string {
  if (out === '') fail('ERR_LIBMOE_ARGUMENT', 'expected a folder for the runs, got an empty path');
  const folder = path.resolve(out);
  try {
    mkdirSync(folder, { recursive: true });
  } catch (cause) {
    fail('ERR_LIBMOE_FILE', `cannot make the folder ${folder} (${reasonOf(cause)})`, cause);
  }
  return folder;
}

/**
 * Where a run goes that was given no folder: `runs/<name>`. A run folder's own recipe.yaml goes on in that folder; repeated, it takes the first
 * free one of `<folder>-2`, `<folder>-3`, …
 */
export function defaultFolder(source: unknown, recipe: AnyRecipe, resume: boolean): string {
  const folder = typeof source === 'string' ? path.dirname(path.resolve(source)) : '';
  const own =
    typeof source === 'string' &&
    path.basename(source) === 'recipe.yaml' &&
    existsSync(path.join(folder, 'environment.json'));
  if (!own) return path.resolve('runs', recipe.name);
  if (resume) return folder;
  let number = 2;
  while (existsSync(`${folder}-${number}`)) number += 1;
  return `${folder}-${number}`;
}
