import { mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { describe, expect, it } from 'vitest';
import { stringify } from 'yaml';
import {
  type AnyRecipeInput,
  loadAnyRecipe,
  loadRecipe,
  merged,
  parseOverrides,
  type RecipeInput,
  recipeText,
} from '../../ts/experiment/index.ts';
import { packageRoot } from '../../ts/native/index.ts';

const recipes = path.join(packageRoot, 'recipes');
// What begins with "_" is there to be extended; sweeps and pipelines are not recipes.
const files = readdirSync(recipes, { recursive: true, encoding: 'utf8' }).filter(
  (name) =>
    name.endsWith('.yaml') &&
    !path.basename(name).startsWith('_') &&
    !name.startsWith('sweeps') &&
    path.basename(name) !== 'pipeline.yaml',
);

const base: RecipeInput = {
  name: 'x',
  tokenizer: 'tokenizer.json',
  data: { train: { files: 'a.txt' }, sequenceLength: 16, batchSequences: 4 },
  model: { dModel: 16, layers: 1, heads: 2, feedForward: { hidden: 16 } },
  training: { steps: 3 },
};

describe('recipes', () => {
  it.each(files)('%s is valid, has a smoke block, and survives a round trip', (name) => {
    const recipe = loadAnyRecipe(path.join(recipes, name));
    expect(recipe.smoke).toBeDefined();
    loadAnyRecipe(path.join(recipes, name), recipe.smoke);
    expect(recipeText(loadAnyRecipe(recipe as AnyRecipeInput))).toBe(recipeText(recipe));
  });

  it('lay themselves over the recipe that they extend', () => {
    const folder = mkdtempSync(path.join(tmpdir(), 'libmoe-extends-'));
    try {
      const write = (name: string, text: string): string => {
        writeFileSync(path.join(folder, name), text);
        return path.join(folder, name);
      };
      write('_base.yaml', stringify(base));
      mkdirSync(path.join(folder, 'inner'));
      write('inner/middle.yaml', 'extends: ../_base.yaml\nname: y\ntraining: { microBatches: 2 }\n');
      const top = write('top.yaml', 'extends: inner/middle.yaml\ntraining: { steps: 7 }\n');
      const recipe = loadRecipe(top, { data: { sequenceLength: 8 } });
      expect(recipe).toMatchObject({ name: 'y', training: { steps: 7, microBatches: 2 } });
      expect(recipe.data).toMatchObject({ sequenceLength: 8, batchSequences: 4 });
      expect(recipe.model).toMatchObject({ dModel: 16 });
      write('_base.yaml', 'extends: top.yaml\n');
      expect(() => loadRecipe(top)).toThrow(/ERR_LIBMOE_RECIPE.*extends top.yaml, which extends it/);
      expect(() => loadRecipe(write('top.yaml', 'extends: 3'))).toThrow(/"extends" expects the path/);
      expect(() => loadRecipe(write('top.yaml', 'extends: none.yaml'))).toThrow(/ERR_LIBMOE_FILE.*none.yaml/);
    } finally {
      rmSync(folder, { recursive: true });
    }
  });

  it('names unknown keys with the nearest known one', () => {
    expect(() => loadRecipe({ ...base, sede: 1 } as RecipeInput)).toThrow(
      /ERR_LIBMOE_RECIPE: the recipe: unknown key "sede".*"seed"/,
    );
    expect(() => loadRecipe(base, { training: { step: 4 } })).toThrow(/"training\.step".*"steps"/);
  });

  it('refuses contradictions', () => {
    expect(() => loadRecipe({ ...base, start: { checkpoint: 'a' } })).toThrow(/either "model".*got both/);
    expect(() => loadRecipe({ ...base, model: undefined })).toThrow(/got neither/);
    expect(() => loadRecipe({ ...base, tokenizer: undefined })).toThrow(/needs "tokenizer"/);
    expect(() => loadRecipe(base, { training: { microBatches: 3 } })).toThrow(/not a multiple/);
    expect(() => loadRecipe(base, { name: '../x' })).toThrow(/it names a folder/);
  });
});

describe('the model of a recipe', () => {
  const expert = { hidden: 16 };
  const refused: [string, Record<string, unknown>, RegExp][] = [
    [
      'more choices than experts',
      { moe: { experts: 8, topK: 9, expert } },
      /topK 9 is more than the 8 experts/,
    ],
    [
      'an unknown router option',
      { moe: { experts: 8, topK: 2, expert, router: { name: 'smoe', balanceCoeficient: 1 } } },
      /"balanceCoeficient".*"balanceCoefficient"/,
    ],
    ['an unknown router', { moe: { experts: 8, topK: 2, expert, router: { name: 'smo' } } }, /"smo".*"smoe"/],
    ['heads that do not fit', { heads: 3 }, /dModel 16 is not a multiple of heads 3/],
    ['sequences that are too long', { maxPositions: 8 }, /sequenceLength 16 is more than .*maxPositions 8/],
  ];
  it.each(refused)('is refused at once: %s', (_, model, message) => {
    expect(() => loadRecipe(base, { model })).toThrow(message);
    expect(() => loadRecipe(base, { model })).toThrow(/^ERR_LIBMOE_RECIPE: the recipe: /);
  });

  it('is refused at once when it is to be upcycled', () => {
    const { model: _, tokenizer: __, ...rest } = base;
    const load = (upcycle: object) =>
      loadRecipe({ ...rest, start: { checkpoint: 'a', upcycle } } as RecipeInput);
    expect(() => load({ experts: 8, topK: 9 })).toThrow(/^ERR_LIBMOE_RECIPE: .*topK 9/);
    expect(() => load({ experts: 8, topK: 2, router: { name: 'smoe', bia: true } })).toThrow(/"bia".*"bias"/);
    expect(() => load({ experts: 8, topK: 2, router: 'smo' })).toThrow(/"smo".*"smoe"/);
    load({ experts: 8, topK: 2 });
  });
});

describe('overrides', () => {
  it('are YAML values at dotted paths, laid over without changing the base', () => {
    const tree = parseOverrides(['a.b=1', 'a.c=[1, x]', 'd=text', 'a.b=2', 'e={f: null}']);
    expect(tree).toEqual({ a: { b: 2, c: [1, 'x'] }, d: 'text', e: { f: null } });
    const before = { a: { b: 0, z: 9 }, list: [1, 2] };
    expect(merged(before, { a: { b: 1 }, list: [3] })).toEqual({ a: { b: 1, z: 9 }, list: [3] });
    const source = { train: { files: 'a.parquet', column: 'text' } };
    expect(merged(source, { train: { dataset: 'sotu' } })).toEqual({ train: { dataset: 'sotu' } });
    expect(merged(source, { train: { column: 'content' } }).train).toEqual({
      files: 'a.parquet',
      column: 'content',
    });
    expect(merged({ train: { dataset: 'sotu', split: 'train' } }, source)).toEqual(source);
    expect(before).toEqual({ a: { b: 0, z: 9 }, list: [1, 2] });
  });

  it('refuse what is not path=value', () => {
    for (const text of ['a', '=1', 'a..b=1', 'a b=1', 'a=['])
      expect(() => parseOverrides([text]), text).toThrow(/ERR_LIBMOE_RECIPE/);
  });
});
