import { readdirSync } from 'node:fs';
import path from 'node:path';
import { describe, expect, it, vi } from 'vitest';
import { stringify } from 'yaml';
import {
  loadAnyRecipe,
  loadPipeline,
  runPipeline,
  type VisionLanguageRecipe,
} from '../../ts/experiment/index.ts';
import { routerNames } from '../../ts/moe/index.ts';
import { writeFileAtomically } from '../../ts/storage/index.ts';
import { leaveToCollector } from '../collected.ts';
import { temporaryFolder } from '../storage/temporary.ts';

leaveToCollector();
// Whole trainings, on a machine that may be busy.
vi.setConfig({ testTimeout: 300_000 });
const folder = temporaryFolder();
const root = path.resolve(import.meta.dirname, '../../recipes/vision-language');
const families = ['phi35-siglip', 'phi3-clip', 'smollm-siglip'];
const recipeOf = (...place: string[]): VisionLanguageRecipe =>
  loadAnyRecipe(path.join(root, ...place)) as VisionLanguageRecipe;

describe('recipes of vision-language models', () => {
  it.each(families)('%s: every recipe can be read, as it is and at toy size', (family) => {
    for (const name of readdirSync(path.join(root, family))) {
      if (name.startsWith('_') || name === 'pipeline.yaml') continue;
      const recipe = recipeOf(family, name);
      expect(recipe.name).toBe(`${family}-${path.basename(name, '.yaml')}`);
      loadAnyRecipe(path.join(root, family, name), recipe.smoke);
    }
    for (const { recipe } of loadPipeline(path.join(root, family, 'pipeline.yaml')).stages)
      recipeOf(family, recipe);
  });

  it('have the settings of the original', () => {
    const [pretrain, prefinetune, instruct] = ['pretrain', 'prefinetune', 'instruct-smoe'].map((name) =>
      recipeOf('phi35-siglip', `${name}.yaml`),
    );
    const of = ({ data, training }: VisionLanguageRecipe) => [
      training.schedule.learningRate,
      data.batchSamples,
      training.microBatches,
      data.imageMode,
      data.order,
    ];
    expect(of(pretrain!)).toEqual([1e-3, 256, 1, 'square', 'shuffle']);
    expect(of(prefinetune!)).toEqual([2e-6, 24, 1, 'pad', 'modality']);
    expect(of(instruct!)).toEqual([4e-6, 32, 2, 'pad', 'modality']);
    for (const { training, data } of [pretrain!, prefinetune!, instruct!]) {
      expect(training.optimizer).toMatchObject({ beta1: 0.9, beta2: 0.999, eps: 1e-8, weightDecay: 0 });
      expect(training.schedule).toMatchObject({ name: 'cosine', warmupRatio: 0.03, minimumRatio: 0 });
      expect([training.clipNorm, training.epochs, data.context, data.template]).toEqual([
        1,
        1,
        2048,
        'phi35',
      ]);
    }
    expect(pretrain!.training.trained).toEqual(['projector.*']);
    expect(instruct!.start!.upcycle).toMatchObject({ experts: 6, topK: 3, initStd: 0.02, seed: 42 });
  });

  it('are there for every router that goes by what a token is like', () => {
    const found = readdirSync(path.join(root, 'phi35-siglip')).flatMap(
      (name) => /^instruct-(.+)\.yaml$/.exec(name)?.[1] ?? [],
    );
    // hash goes by token ids, which images have not; random and dense are controls for layers, not methods; dense here is the dense model.
    const routers = routerNames().filter((name) => !['hash', 'random', 'dense'].includes(name));
    expect(found.sort()).toEqual([...routers, 'dense'].sort());
  });

  it.each(families)('%s: the pipeline runs end to end at toy size', async (family) => {
    const file = path.join(root, family, 'pipeline.yaml');
    const { stages, completed } = await runPipeline(
      file,
      {
        pretrain: { data: { cache: path.join(folder, 'cache') } },
        prefinetune: { data: { cache: path.join(folder, 'cache') } },
        instruct: { data: { cache: path.join(folder, 'cache') } },
      },
      { out: path.join(folder, family), smoke: true, status: null },
    );
    expect(completed).toBe(true);
    expect(stages.map(({ stage }) => stage)).toEqual(['pretrain', 'prefinetune', 'instruct']);
    for (const { last } of stages) expect(Number.isFinite(last!.loss)).toBe(true);
    expect(Object.keys(stages[2]!.last!.routing)).toContain('projector');
  });

  it('of every router run at toy size from one dense model', async () => {
    const names = readdirSync(path.join(root, 'phi35-siglip')).filter((name) =>
      /^instruct-(?!smoe)/.test(name),
    );
    const cache = path.join(folder, 'cache');
    const checkpoint = path.join(folder, 'phi35-siglip', 'prefinetune');
    for (const name of names) {
      const file = path.join(folder, name);
      const stage = { name: 'instruct', recipe: path.join(root, 'phi35-siglip', name) };
      writeFileAtomically(file, stringify({ kind: 'pipeline', name: 'one', stages: [stage] }));
      const changes = { start: { checkpoint }, data: { cache }, training: { steps: 2, epochs: undefined } };
      const { stages } = await runPipeline(
        file,
        { instruct: changes },
        { out: path.join(folder, name.replace('.yaml', '')), smoke: true, status: null },
      );
      expect(Number.isFinite(stages[0]!.last!.loss), name).toBe(true);
    }
  }, 300_000);
});
