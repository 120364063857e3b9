import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { beforeAll, describe, expect, it, vi } from 'vitest';
import { type AnyRecipeInput, merged, runRecipe } from '../../ts/experiment/index.ts';
import { loadModel } from '../../ts/models/language/index.ts';
import { loadVisionTower } from '../../ts/models/vision/index.ts';
import { loadVisionLanguageModel } from '../../ts/models/vision-language/index.ts';
import { readJournal } from '../../ts/storage/index.ts';
import { openSafetensors } from '../../ts/storage/safetensors.ts';
import { noGrad, scope, type Tensor } from '../../ts/tensor/index.ts';
import { leaveToCollector } from '../collected.ts';
import { temporaryFolder } from '../storage/temporary.ts';
import { madeUpImages } from './made-up-images.ts';
import { tinyCorpus, tinyRecipe } from './tiny.ts';
import { tinyData, tinyParts } from './tiny-vision-language.ts';

leaveToCollector();
vi.setConfig({ testTimeout: 300_000 });
const temporary = temporaryFolder();
const place = (...parts: string[]): string => join(temporary, ...parts);
const bytes = (folder: string, file: string): Buffer => readFileSync(join(folder, file));

/** Runs a recipe whole, and stopped after a step and resumed: the folders of both. */
async function bothWays(name: string, recipe: AnyRecipeInput, step: number): Promise<string[]> {
  const whole = await runRecipe(recipe, {}, { out: place(name, 'whole') });
  const stopping = new AbortController();
  const out = place(name, 'stopped');
  const onStep = (report: { step: number }): void => {
    if (report.step === step) stopping.abort();
  };
  const stopped = await runRecipe(recipe, {}, { out, signal: stopping.signal, onStep });
  expect(stopped.training).toMatchObject({ step, completed: false });
  const resumed = await runRecipe(recipe, {}, { out, resume: true });
  for (const file of ['model.safetensors', 'lora.safetensors'])
    expect(bytes(resumed.checkpoint!, file).equals(bytes(whole.checkpoint!, file)), file).toBe(true);
  return [whole.checkpoint!, resumed.checkpoint!];
}

describe('a vision-language recipe with training.lora', () => {
  let base: AnyRecipeInput;
  let start = '';
  const batch = {
    ids: Int32Array.from([1, 5, 9, 20, 33, 40, 7]),
    targets: Int32Array.from([5, 9, 20, 33, 40, 7, 1]),
    sequenceOffsets: Int32Array.from([0, 7]),
  };
  const lossOf = async (folder: string): Promise<number> => {
    using model = await loadVisionLanguageModel(folder);
    return noGrad(() => scope(() => model.loss(batch).item()));
  };

  beforeAll(async () => {
    const { conversations } = await madeUpImages(temporary);
    const common = {
      kind: 'vision-language',
      name: 'colours',
      data: tinyData(temporary, conversations),
      training: { steps: 6, schedule: { name: 'constant', learningRate: 5e-3 } },
    };
    const first = await runRecipe(merged(common, tinyParts) as AnyRecipeInput, {}, { out: place('dense') });
    start = first.checkpoint!;
    base = merged(common, {
      start: { checkpoint: start },
      training: {
        trained: ['projector.*'],
        lora: { rank: 4, alpha: 8, targets: ['language.*.attention.*', 'language.*.up'] },
        optimizer: { name: 'adamw', groups: [{ match: '*beside*', learningRateScale: 2 }] },
      },
    }) as AnyRecipeInput;
  });

  it('learns beside the matrices alone, resumes to the same bits, and leaves a merged checkpoint that anything loads', async () => {
    const [folder = ''] = await bothWays('merged', base, 3);
    const losses = readJournal(place('merged', 'whole', 'metrics.jsonl')).map(({ loss }) => Number(loss));
    expect(losses.at(-1)!).toBeLessThan(losses[0]!);

    const [before, after, adapters] = [
      openSafetensors(start),
      openSafetensors(folder),
      openSafetensors(folder, { base: 'lora' }),
    ];
    expect(after.names()).toEqual(before.names());
    const same = (a: Tensor, b: Tensor): boolean => a.toArray().join() === b.toArray().join();
    const changed = after.names().filter((name) => {
      using was = before.read(name);
      using is = after.read(name);
      return !same(was, is);
    });
    // Four matrices of attention, gate and up, in two layers; two layers of the projector with their biases.
    expect(changed.filter((name) => name.includes('language_model'))).toHaveLength(2 * (4 + 2));
    expect(changed.filter((name) => name.includes('projector'))).toHaveLength(4);
    expect(changed).toHaveLength(12 + 4);
    {
      using kept = adapters.read('language.blocks.1.attention.query.base');
      using was = before.read('language_model.model.layers.1.self_attn.q_proj.weight');
      expect(same(kept, was)).toBe(true);
    }
    // Neither gradients nor state of what stays as it is.
    const state = openSafetensors(folder, { base: 'optimizer-00000' }).names();
    expect(state).toHaveLength(2 * (4 + 2 * 2 * 5));
    expect(state.every((name) => /projector\.|beside/.test(name))).toBe(true);
  });

  it('keeps adapters apart if asked, and puts them in when the folder is loaded', async () => {
    const [merge = ''] = await bothWays('merged-again', base, 2);
    const apart = merged(base, { training: { lora: { merge: false } } }) as AnyRecipeInput;
    const [folder = ''] = await bothWays('apart', apart, 4);
    const names = openSafetensors(folder, { base: 'lora' }).names();
    expect(names.some((name) => name.endsWith('.base'))).toBe(false);
    const [one, other] = [openSafetensors(start), openSafetensors(folder)];
    const query = 'language_model.model.layers.0.self_attn.q_proj.weight';
    using was = one.read(query);
    using is = other.read(query);
    expect(is.toArray()).toEqual(was.toArray());
    const [learnt, plain] = [await lossOf(folder), await lossOf(start)];
    expect(Math.abs(learnt - plain)).toBeGreaterThan(1e-3);
    expect(learnt).toBe(await lossOf(merge));
  });

  it('gives a tower its adapters that lie apart, also where it is taken alone', async () => {
    const lora = { merge: false, targets: ['vision.*.attention.*', 'language.*.up'] };
    const recipe = merged(base, { training: { lora } }) as AnyRecipeInput;
    const { checkpoint: folder = '' } = await runRecipe(recipe, {}, { out: place('tower-apart') });
    using whole = await loadVisionLanguageModel(folder);
    using before = await loadVisionTower(start);
    using tower = await loadVisionTower(folder);
    // Without its last layer, whose adapters have no place then.
    using part = await loadVisionTower(folder, { changes: { selectLayer: -2 } });
    expect(part.blocks.length).toBe(tower.blocks.length - 1);
    const [expected, was] = [whole.vision.stateDict(), before.stateDict()];
    for (const read of [tower, part])
      for (const [name, value] of read.stateDict())
        expect(value.toArray(), name).toEqual(expected.get(name)!.toArray());
    const query = 'blocks.0.attention.query.weight';
    expect(expected.get(query)!.toArray()).not.toEqual(was.get(query)!.toArray());
  });

  it('refuses targets that there are not', async () => {
    const wrong = merged(base, { training: { lora: { targets: ['language.*.atention.*'] } } });
    await expect(runRecipe(wrong as AnyRecipeInput, {}, { out: place('wrong') })).rejects.toThrow(
      /"language\.\*\.atention\.\*" matches no/,
    );
  });
});

describe('a language recipe with training.lora', () => {
  it('learns beside the matrices alone and resumes to the same bits', async () => {
    const recipe = tinyRecipe(tinyCorpus(temporary)) as Record<string, unknown>;
    const first = await runRecipe(
      merged(recipe, { training: { steps: 4 } }) as AnyRecipeInput,
      {},
      { out: place('language') },
    );
    const { model: _, tokenizer: __, ...rest } = recipe;
    const lora = merged(rest, {
      start: { checkpoint: first.checkpoint },
      training: { steps: 4, lora: { rank: 2, alpha: 4, targets: ['*.attention.*'] } },
    }) as AnyRecipeInput;
    const [folder = ''] = await bothWays('language-lora', lora, 2);
    using model = await loadModel(folder);
    using before = await loadModel(first.checkpoint!);
    const was = before.namedParameters();
    const changed = [...model.namedParameters()].flatMap(([name, t]) =>
      t.toArray().join() === was.get(name)!.toArray().join() ? [] : [name],
    );
    expect(changed.length).toBeGreaterThan(0);
    expect(changed.every((name) => /\.attention\.(query|key|value|output)\.weight$/.test(name))).toBe(true);
  });
});
