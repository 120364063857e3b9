import { existsSync, readFileSync, statSync } from 'node:fs';
import path from 'node:path';
import { parseDocument, stringify } from 'yaml';
import { z } from 'zod';
import { fail } from '../native/index.ts';
import { explainIssues } from '../storage/schema-errors.ts';
import {
  checkImageTextRecipe,
  type ImageTextRecipe,
  type ImageTextRecipeInput,
  imageTextRecipeSchema,
} from './image-text-recipe.ts';
import { checkLanguageRecipe, type Recipe, type RecipeInput, recipeSchema } from './language-recipe.ts';
import { checkBestMetric } from './metric-names.ts';
import { merged } from './overrides.ts';
import { importUserModule } from './user-modules.ts';
import {
  checkVisionLanguageRecipe,
  type VisionLanguageRecipe,
  type VisionLanguageRecipeInput,
  visionLanguageRecipeSchema,
} from './vision-language-recipe.ts';

/** Any kind of recipe, every default written out. */
export type AnyRecipe = Recipe | VisionLanguageRecipe | ImageTextRecipe;
/** Any kind of recipe as one writes it. */
export type AnyRecipeInput = RecipeInput | VisionLanguageRecipeInput | ImageTextRecipeInput;

/**
 * {@link loadRecipe} after importing the files that the recipe's `imports` names.
 * @throws what loadRecipe throws, ERR_LIBMOE_FILE for a file that cannot be imported, and ERR_LIBMOE_RECIPE for a best by a metric that no task gives
 */
export async function openRecipe(
  source: string | AnyRecipeInput,
  changes: Record<string, unknown> = {},
): Promise<AnyRecipe> {
  await importModulesOf(merged(typeof source === 'string' ? readRecipe(source) : source, changes));
  const recipe = loadAnyRecipe(source, changes);
  checkBestMetric(recipe);
  return recipe;
}

/** Imports what a recipe that nobody has checked yet names in `imports`. */
export async function importModulesOf({ imports }: Record<string, unknown>): Promise<void> {
  // Of another form it is refused later, with all else that is wrong.
  for (const file of z.array(z.string()).safeParse(imports).data ?? []) await importUserModule(file);
}

/** What each kind of recipe is checked by. */
const schemas = {
  language: recipeSchema,
  'vision-language': visionLanguageRecipeSchema,
  'image-text': imageTextRecipeSchema,
};

/**
 * Reads and checks a recipe: a YAML file or an object, with changes laid over it, every default written out. A file may be laid over another:
 * `extends: base.yaml`, relative to itself.
 * @throws ERR_LIBMOE_FILE when there is no such file, ERR_LIBMOE_RECIPE naming every wrong key, the nearest known key beside an unknown one
 */
export function loadAnyRecipe(
  source: string | AnyRecipeInput,
  changes: Record<string, unknown> = {},
): AnyRecipe {
  const where = typeof source === 'string' ? source : 'the recipe';
  const tree = merged(typeof source === 'string' ? readRecipe(source) : source, changes);
  const { kind = 'language' } = tree;
  const refuse = (message: string): never => fail('ERR_LIBMOE_RECIPE', `${where}: ${message}`);
  if (kind === 'pipeline')
    refuse('this is a pipeline of several recipes, not one: see "libmoe train --help"');
  if (kind !== 'language' && kind !== 'vision-language' && kind !== 'image-text')
    return refuse(`kind must be one of ${Object.keys(schemas).join(', ')}, got ${JSON.stringify(kind)}`);
  const schema = schemas[kind];
  const parsed = schema.safeParse(tree);
  if (!parsed.success) return refuse(explainIssues(schema, parsed.error.issues, tree));
  const recipe = parsed.data;
  if (recipe.kind === 'language') checkLanguageRecipe(recipe, refuse);
  else if (recipe.kind === 'vision-language') checkVisionLanguageRecipe(recipe, refuse);
  else checkImageTextRecipe(recipe, refuse);
  return recipe;
}

/** {@link loadAnyRecipe} for the recipe of a language model. @throws ERR_LIBMOE_RECIPE for another kind too */
export function loadRecipe(source: string | RecipeInput, changes: Record<string, unknown> = {}): Recipe {
  const recipe = loadAnyRecipe(source, changes);
  if (recipe.kind === 'language') return recipe;
  return fail(
    'ERR_LIBMOE_RECIPE',
    `${String(source)}: expected the recipe of a language model, got ${recipe.kind}`,
  );
}

/** A recipe file's tree, laid over the one that it extends. @throws as {@link readYaml} */
export function readRecipe(file: string, below: readonly string[] = []): Record<string, unknown> {
  const { extends: base, ...own } = readYaml(file);
  if (base === undefined) return own;
  if (typeof base !== 'string')
    return fail('ERR_LIBMOE_RECIPE', `${file}: "extends" expects the path of a recipe beside it`);
  const next = path.resolve(path.dirname(file), base);
  const chain = [...below, path.resolve(file)];
  if (chain.includes(next)) fail('ERR_LIBMOE_RECIPE', `${file}: extends ${base}, which extends it`);
  return merged(readRecipe(next, chain), own);
}

/** A YAML file of keys and values. @throws ERR_LIBMOE_FILE, ERR_LIBMOE_RECIPE */
export function readYaml(file: string, kind = 'recipe'): Record<string, unknown> {
  if (!existsSync(file)) fail('ERR_LIBMOE_FILE', `no such ${kind}: ${path.resolve(file)}`);
  if (!statSync(file).isFile()) fail('ERR_LIBMOE_FILE', `cannot read ${file}: it is a folder`);
  const document = parseDocument(readFileSync(file, 'utf8'));
  const first = document.errors[0];
  if (first) fail('ERR_LIBMOE_RECIPE', `${file} is not YAML: ${first.message.split('\n')[0]}`);
  const tree: unknown = document.toJS();
  if (tree === null || typeof tree !== 'object' || Array.isArray(tree))
    fail('ERR_LIBMOE_RECIPE', `${file}: expected keys and values at the top, such as "name: my-run"`);
  return tree as Record<string, unknown>;
}

/** The recipe as YAML, every default written out: what a run folder keeps. */
export const recipeText = (recipe: AnyRecipe): string =>
  stringify(recipe, { lineWidth: 0, aliasDuplicateObjects: false });
