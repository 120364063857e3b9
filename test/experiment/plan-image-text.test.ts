import path from 'node:path';
import { describe, expect, it } from 'vitest';
import type { ImageTextRecipe } from '../../ts/experiment/image-text-recipe.ts';
import { type AnyRecipeInput, loadAnyRecipe, merged, planRecipe } from '../../ts/experiment/index.ts';
import { ImageTextModel, newVisionTower } from '../../ts/models/vision/index.ts';
import { leaveToCollector } from '../collected.ts';
import { peakOfStep } from './measured-step.ts';

leaveToCollector();

const small = {
  kind: 'image-text',
  name: 'captions',
  tokenizer: { train: { vocabularySize: 512 } },
  data: { train: { conversations: 'none.json' }, context: 16, batchSamples: 24 },
  model: {
    vision: {
      ...{ kind: 'siglip', imageSize: 32, patchSize: 8, dModel: 64, layers: 4, heads: 4, hidden: 160 },
      pool: 'mean',
    },
    width: 48,
  },
  training: { steps: 1 },
};

/** Most bytes of tensors in a step, and parameters. */
async function measured(recipe: ImageTextRecipe) {
  const { model: wanted, precision: dtype } = recipe;
  const tower = newVisionTower(wanted.vision, { seed: 1, dtype });
  using model = new ImageTextModel(tower, { vocabularySize: 512, width: wanted.width }, { seed: 1, dtype });
  return { bytes: await peakOfStep(model, recipe), parameters: model.parameterCount() };
}

describe('a plan of an image-text recipe', () => {
  const moe = { experts: 4, topK: 2, router: { name: 'smoe' } };
  it.each<[string, object]>([
    ['mean of the patches', {}],
    ['recomputed', { training: { activationCheckpointing: true } }],
    ['bf16', { precision: 'bf16' }],
    ['attention head', { model: { vision: { pool: 'attention' } } }],
    ['clip', { model: { vision: { kind: 'clip', pool: 'class' } } }],
    ['experts', { model: { vision: { moe } } }],
    ['many captions', { data: { batchSamples: 96, context: 64 } }],
  ])('counts what a step takes: %s', async (_, changes) => {
    const recipe = loadAnyRecipe(merged(small, { ...changes }) as AnyRecipeInput) as ImageTextRecipe;
    const plan = planRecipe(recipe);
    const { bytes, parameters } = await measured(recipe);
    expect(plan.parameters).toBe(parameters);
    expect(plan.trainedParameters).toBe(parameters);
    const planned = plan.memory.total - plan.memory.runtime;
    expect(planned / bytes).toBeGreaterThan(0.95);
    expect(planned / bytes).toBeLessThan(1.1);
  });

  it('plans the tower of the vision demo', () => {
    const file = path.resolve(import.meta.dirname, '../../recipes/demo-vision/tower.yaml');
    const plan = planRecipe(file);
    expect(plan.fits).toBe(true);
    expect([plan.tokens, plan.time.seconds]).toEqual([null, null]);
    expect(plan.notes.join()).toMatch(/every caption is counted as long as data.context/);
  });
});
