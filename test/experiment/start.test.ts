import path from 'node:path';
import { describe, expect, it } from 'vitest';
import { tokenizerFromJson } from '../../ts/data/tokenizer.ts';
import { loadRecipe, type RecipeInput } from '../../ts/experiment/index.ts';
import { makeModel } from '../../ts/experiment/model.ts';
import { LanguageModel, saveModel } from '../../ts/models/language/index.ts';
import { smallTokenizer } from '../evaluation/small-tokenizer.ts';
import { tinyModel, tinyMoe } from '../models/tiny.ts';
import { temporaryFolder } from '../storage/temporary.ts';

const checkpoint = path.join(temporaryFolder(), 'trained');
const recipe = (start: object): RecipeInput => ({
  name: 'part',
  seed: 5,
  data: { train: { files: 'none.txt' }, sequenceLength: 8, batchSequences: 2 },
  start: { checkpoint, ...start },
  training: { steps: 1 },
});

describe('start.only of a recipe', () => {
  it('takes these tensors from the checkpoint and the others from a new model of the seed', async () => {
    using trained = tinyModel(tinyMoe, { seed: 1 });
    await saveModel(trained, checkpoint);
    const { json, config } = await smallTokenizer();
    const lines: string[] = [];
    const tokenizer = tokenizerFromJson(json, config);
    const loaded = loadRecipe(recipe({ only: ['*.router.weight'] }));
    using model = await makeModel(loaded, tokenizer, undefined, (line) => lines.push(line));
    using fresh = new LanguageModel(trained.config, { seed: 5 });
    const [was, new_] = [trained.stateDict(), fresh.stateDict()];
    for (const [name, t] of model.stateDict())
      expect(t.toArray(), name).toEqual((name.endsWith('.router.weight') ? was : new_).get(name)!.toArray());
    expect(lines.join()).toMatch(/taken from .*: \*\.router\.weight; \d+ tensors drawn anew/);
  });

  it('is refused beside upcycle', () => {
    const both = { only: ['*'], upcycle: { experts: 4, topK: 2 } };
    expect(() => loadRecipe(recipe(both))).toThrow(/ERR_LIBMOE_RECIPE.*start\.upcycle\.only/);
  });
});
