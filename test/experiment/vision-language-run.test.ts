import { existsSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { beforeAll, describe, expect, it, vi } from 'vitest';
import { stringify } from 'yaml';
import {
  type AnyRecipeInput,
  headlines,
  loadAnyRecipe,
  merged,
  plannedRuns,
  planPipeline,
  runPipeline,
  runRecipe,
  runSweep,
  type SweepInput,
} from '../../ts/experiment/index.ts';
import { LanguageModel, saveModel } from '../../ts/models/language/index.ts';
import { loadVisionTower, newVisionTower, saveVisionTower } from '../../ts/models/vision/index.ts';
import { loadVisionLanguageModel } from '../../ts/models/vision-language/index.ts';
import { readJournal } from '../../ts/storage/index.ts';
import { openSafetensors, type Safetensors } from '../../ts/storage/safetensors.ts';
import { leaveToCollector } from '../collected.ts';
import { temporaryFolder } from '../storage/temporary.ts';
import { madeUpImages } from './made-up-images.ts';
import { tinyData, tinyParts } from './tiny-vision-language.ts';

leaveToCollector();
// Whole trainings, on a machine that may be busy.
vi.setConfig({ testTimeout: 300_000 });
const temporary = temporaryFolder();
const place = (...parts: string[]): string => join(temporary, ...parts);
let conversations = '';
let captions = '';
let task = '';

beforeAll(async () => {
  ({ conversations, captions, task } = await madeUpImages(temporary));
});

/** What all stages have in common. */
const base = (): Record<string, unknown> => ({
  kind: 'vision-language',
  name: 'colours',
  seed: 3,
  data: tinyData(temporary, conversations),
  training: {
    steps: 12,
    optimizer: { name: 'adamw', weightDecay: 0 },
    schedule: { name: 'cosine', learningRate: 5e-3, warmupRatio: 0.1 },
  },
  evaluation: { tasks: [task], scorer: 'fixed' },
});

const recipe = (changes: Record<string, unknown> = {}): AnyRecipeInput =>
  merged(merged(base(), tinyParts), changes) as AnyRecipeInput;

const weights = (folder: string): Buffer => readFileSync(join(folder, 'model.safetensors'));

describe('training of a vision-language model', () => {
  it('learns what is to be seen, stops and goes on with the same bits, and starts again from its checkpoint', async () => {
    const whole = await runRecipe(recipe({ training: { steps: 90 } }), {}, { out: place('whole') });
    expect(headlines(whole.evaluation!)).toEqual({ colours: 1 });
    const losses = readJournal(place('whole', 'metrics.jsonl')).map(({ crossEntropy }) =>
      Number(crossEntropy),
    );
    expect(losses.at(-1)!).toBeLessThan(losses[0]! / 3);
    for (const file of ['config.json', 'preprocessor_config.json', 'tokenizer.json'])
      expect(existsSync(join(whole.checkpoint!, file))).toBe(true);

    const stopping = new AbortController();
    const options = { out: place('stopped'), signal: stopping.signal };
    const changes = recipe({ training: { steps: 90, checkpointEvery: 0.25 } });
    const stopped = await runRecipe(
      changes,
      {},
      {
        ...options,
        onStep: ({ step }) => {
          if (step === 7) stopping.abort();
        },
      },
    );
    expect(stopped.training).toMatchObject({ step: 7, completed: false });
    const resumed = await runRecipe(changes, {}, { out: place('stopped'), resume: true });
    expect(resumed.training.step).toBe(90);
    expect(weights(resumed.checkpoint!).equals(weights(whole.checkpoint!))).toBe(true);

    // The recipe that the run folder keeps repeats the run.
    const again = await runRecipe(place('whole', 'recipe.yaml'), {}, { out: place('again') });
    expect(weights(again.checkpoint!).equals(weights(whole.checkpoint!))).toBe(true);
  });

  it('is evaluated on the way, with the same bits, and keeps the best', async () => {
    const short = { training: { steps: 6 } };
    const plain = await runRecipe(recipe(short), {}, { out: place('unwatched'), status: null });
    const watched = merged(short, {
      training: { evaluateAt: [0.5] },
      evaluation: { during: { limit: 4 }, best: { metric: 'colours/acc' } },
    });
    const run = await runRecipe(recipe(watched), {}, { out: place('watched'), status: null });
    expect(weights(run.checkpoint!).equals(weights(plain.checkpoint!))).toBe(true);
    const lines = readJournal(place('watched', 'evaluations.jsonl'));
    expect(lines.map(({ step }) => step)).toEqual([3, 6]);
    expect(lines[0]).toMatchObject({ metric: 'colours/acc', higherIsBetter: true, best: true });
    expect(existsSync(run.best!.checkpoint!)).toBe(true);
    const wrong = merged(watched, { evaluation: { best: { metric: 'colours/akk' } } });
    await expect(runRecipe(recipe(wrong), {}, { out: place('akk') })).rejects.toThrow(
      /did you mean "colours\/acc"/,
    );
  });

  it('trains only what is named, and takes the rest as it is', async () => {
    const first = await runRecipe(recipe({ training: { steps: 1 } }), {}, { out: place('first') });
    const start = merged(base(), {
      start: { checkpoint: first.checkpoint },
      training: { steps: 2, trained: ['projector.*'] },
    }) as AnyRecipeInput;
    const second = await runRecipe(start, {}, { out: place('second') });
    const [a, b] = [first, second].map(({ checkpoint }) => openSafetensors(checkpoint!));
    const values = (files: Safetensors, name: string): string => {
      using read = files.read(name);
      return read.toArray().join();
    };
    const changed = a!.names().filter((name) => values(a!, name) !== values(b!, name));
    expect(changed.length).toBe(4);
    expect(changed.every((name) => /projector/.test(name))).toBe(true);
    // Frozen parameters have no state.
    const state = openSafetensors(second.checkpoint!, { base: 'optimizer-00000' });
    expect(state.names().length).toBe(8);
    expect(state.names().every((name) => name.includes('projector.'))).toBe(true);
  });

  it('takes a tower that learned from captions', async () => {
    const tower = {
      kind: 'image-text',
      name: 'captions',
      seed: 5,
      tokenizer: { train: { vocabularySize: 282, byteFallback: true } },
      data: {
        train: { conversations: captions, images: temporary },
        context: 32,
        batchSamples: 8,
        workers: 0,
      },
      model: {
        vision: {
          kind: 'siglip',
          imageSize: 16,
          patchSize: 8,
          dModel: 32,
          layers: 2,
          heads: 2,
          hidden: 48,
          pool: 'mean',
        },
        width: 16,
      },
      training: { steps: 40, schedule: { name: 'constant', learningRate: 3e-3 } },
    } as AnyRecipeInput;
    const whole = await runRecipe(tower, {}, { out: place('tower') });
    const losses = readJournal(place('tower', 'metrics.jsonl')).map(({ crossEntropy }) =>
      Number(crossEntropy),
    );
    expect(losses.at(-1)!).toBeLessThan(losses[0]! / 2);

    const stopping = new AbortController();
    const onStep = ({ step }: { step: number }) => {
      if (step === 9) stopping.abort();
    };
    await runRecipe(tower, {}, { out: place('tower-stopped'), signal: stopping.signal, onStep });
    const resumed = await runRecipe(tower, {}, { out: place('tower-stopped'), resume: true });
    expect(weights(resumed.checkpoint!).equals(weights(whole.checkpoint!))).toBe(true);

    const seeing = { vision: { checkpoint: place('tower'), selectLayer: -2, scales: [1, 2] } };
    const model = { ...tinyParts.model, ...seeing };
    const joined = merged(merged(base(), { ...tinyParts, model }), {
      training: { steps: 2 },
    }) as AnyRecipeInput;
    const { checkpoint } = await runRecipe(joined, {}, { out: place('joined') });
    using vlm = await loadVisionLanguageModel(checkpoint!);
    expect(vlm.vision.config).toMatchObject({ selectLayer: -2, scales: [1, 2] });
    expect(vlm.vision.featureWidth).toBe(64);
    expect(() => loadAnyRecipe(tower, { model: { vision: { pool: undefined } } })).toThrow(/needs pool/);
  });

  it('goes through the stages of a pipeline, stopped and resumed too', async () => {
    const stage = (name: string, changes: Record<string, unknown>): { name: string; recipe: string } => {
      writeFileSync(place(`${name}.yaml`), stringify(merged(base(), changes)));
      return { name, recipe: `${name}.yaml` };
    };
    const file = place('stages.yaml');
    const stages = [
      stage('pretrain', { ...tinyParts, training: { steps: 6, trained: ['projector.*'] } }),
      stage('prefinetune', { start: { checkpoint: 'nowhere' }, training: { steps: 6 } }),
      stage('instruct', {
        start: { checkpoint: 'nowhere', upcycle: { experts: 3, topK: 2, router: 'smoe' } },
        training: { steps: 6 },
      }),
    ];
    writeFileSync(file, stringify({ kind: 'pipeline', name: 'stages', stages }));
    const whole = await runPipeline(file, {}, { out: place('stages') });
    expect(whole.completed).toBe(true);
    const counts = readJournal(place('stages', 'instruct', 'metrics.jsonl')).at(-1)!.moe as object;
    expect(Object.keys(counts)).toEqual(['vision.0', 'vision.1', 'projector']);

    const stopping = new AbortController();
    const status = { write: () => true, isTTY: false };
    const stopped = await runPipeline(
      file,
      {},
      {
        out: place('stages-stopped'),
        signal: stopping.signal,
        log: (line) => {
          if (line.includes('stage 2')) setTimeout(() => stopping.abort(), 30);
        },
        status: status as never,
      },
    ).catch(() => ({ completed: false, stages: [] }));
    expect(stopped.completed).toBe(false);
    const resumed = await runPipeline(file, {}, { out: place('stages-stopped'), resume: true });
    const ends = [whole, resumed].map(({ stages: all }) => weights(all.at(-1)!.checkpoint!));
    expect(ends[0]!.equals(ends[1]!)).toBe(true);

    await expect(runPipeline(file, { instrukt: { seed: 1 } })).rejects.toThrow(/"instruct"/);
  });

  it('begins a pipeline with a tower that learns from captions', async () => {
    const { model, tokenizer } = tinyParts;
    const tower = {
      kind: 'image-text',
      name: 'tower',
      seed: 5,
      tokenizer: { train: { vocabularySize: 282, byteFallback: true } },
      data: {
        train: { conversations: captions, images: temporary },
        context: 32,
        batchSamples: 8,
        workers: 0,
      },
      model: { vision: { ...model.vision, pool: 'mean' }, width: 16, initialBias: -2 },
      training: { steps: 3 },
    };
    const questions = merged(base(), {
      tokenizer,
      model: { ...model, vision: { checkpoint: 'nowhere' } },
      training: { steps: 2, trained: ['projector.*'] },
      evaluation: { tasks: [] },
    });
    writeFileSync(place('tower.yaml'), stringify(tower));
    writeFileSync(place('questions.yaml'), stringify(questions));
    const stages = ['tower', 'questions'].map((name) => ({ name, recipe: `${name}.yaml` }));
    const file = place('from-captions.yaml');
    writeFileSync(file, stringify({ kind: 'pipeline', name: 'from-captions', stages }));
    const plan = await planPipeline(file, {});
    const { stages: done, completed } = await runPipeline(file, {}, { out: place('from-captions') });
    expect(completed).toBe(true);
    expect(plan.stages.map(({ parameters }) => parameters)[1]).toBe(done[1]!.parameters);
    // The tower was not trained in the second stage: it is the one that the first left.
    using before = await loadVisionTower(done[0]!.checkpoint!);
    using after = await loadVisionLanguageModel(done[1]!.checkpoint!);
    const own = before.stateDict();
    for (const [name, value] of after.vision.stateDict())
      expect(value.toArray()).toEqual(own.get(name)!.toArray());
  });

  it('refuses what no schema sees', () => {
    const bad = (changes: Record<string, unknown>) => () => loadAnyRecipe(recipe(changes));
    expect(bad({ start: { checkpoint: 'a' } })).toThrow(/either "model".*got both/);
    expect(bad({ tokenizer: undefined })).toThrow(/needs "tokenizer"/);
    expect(bad({ data: { batchTokens: 64 } })).toThrow(/batchSamples.*batchTokens/);
    expect(bad({ training: { epochs: 1 } })).toThrow(/steps or training.epochs/);
    expect(bad({ training: { microBatches: 3 } })).toThrow(/not a multiple of 3/);
    expect(bad({ data: { tempalte: 'phi3' } })).toThrow(/"data.tempalte".*"template"/);
  });
});

describe('a sweep over vision-language models', () => {
  it('compares routers with the dense model by accuracy, from one checkpoint', async () => {
    const dense = await runRecipe(recipe({ training: { steps: 40 } }), {}, { out: place('sweep-dense') });
    const upcycle = { experts: 2, topK: 1 };
    const source: SweepInput = {
      name: 'few',
      checkpoints: 'none',
      base: merged(base(), { start: { checkpoint: dense.checkpoint }, training: { steps: 4 } }),
      axes: { start: { variants: { dense: {}, smoe: { start: { upcycle } } } }, seed: [1, 2] },
      compare: { columns: ['accuracy', 'trainingLoss'] },
    };
    const { results, table } = await runSweep(source, { out: place('sweep'), status: null });
    expect(results.runs.map(({ status, error }) => error ?? status)).toEqual(Array(4).fill('done'));
    expect(results).toMatchObject({ metric: 'accuracy', task: 'colours', baseline: 'dense' });
    const smoe = results.variants.find(({ variant }) => variant === 'smoe')!;
    const measured = results.runs
      .filter(({ variant }) => variant === 'smoe')
      .map((run) => run.metrics!.accuracy!);
    expect(smoe.metrics.accuracy!.value).toBeCloseTo((measured[0]! + measured[1]!) / 2, 12);
    expect(smoe.documents).toMatchObject({ metric: 'acc', higherIsBetter: true });
    expect(table).toMatch(/\| accuracy \|.*accuracy, difference to dense/);
    expect(table).toMatch(/accuracy on the questions "colours", differences in percentage points/);
    const parameters = (variant: string) =>
      results.variants.find((row) => row.variant === variant)!.metrics.parameters!.value;
    expect(parameters('smoe')).toBeGreaterThan(parameters('dense'));
    // Finished runs are known as such by any kind of recipe.
    const again = await runSweep(source, { out: place('sweep'), status: null });
    expect(again.results.runs).toEqual(results.runs);
  });

  it('notices a tower or a language model that was replaced under the same name', async () => {
    const first = await runRecipe(recipe({ training: { steps: 1 } }), {}, { out: place('joined-from') });
    const { vision, language } = await loadVisionLanguageModel(first.checkpoint!);
    const tokenizer = join(first.checkpoint!, 'tokenizer.json');
    const towers = { a: vision, b: newVisionTower(vision.config, { seed: 8, dtype: 'f32' }) };
    const languages = { a: language, b: new LanguageModel(language.config, { seed: 8 }) };
    const put = async (tower: 'a' | 'b', model: 'a' | 'b'): Promise<void> => {
      for (const name of ['part-tower', 'part-language'])
        rmSync(place(name), { recursive: true, force: true });
      await saveVisionTower(towers[tower], place('part-tower'));
      await saveModel(languages[model], place('part-language'));
    };
    await put('a', 'a');
    const source: SweepInput = {
      name: 'parts',
      checkpoints: 'none',
      base: merged(base(), {
        tokenizer,
        model: {
          language: { checkpoint: place('part-language') },
          vision: { checkpoint: place('part-tower') },
        },
        training: { steps: 1 },
        evaluation: { tasks: [] },
      }),
      axes: { seed: [1] },
    };
    const out = place('parts');
    const status = async (): Promise<unknown> => (await plannedRuns(source, { out }))[0]!.status;
    const { results } = await runSweep(source, { out, status: null });
    expect(results.runs.map(({ error, status: end }) => error ?? end)).toEqual(['done']);
    expect(await status()).toBe('done');
    await put('b', 'a');
    expect(await status()).toBe('waiting');
    await put('a', 'b');
    expect(await status()).toBe('waiting');
    await put('a', 'a');
    expect(await status()).toBe('done');
    // A finished run needs its parts no more; the other is looked at all the same.
    rmSync(place('part-language'), { recursive: true });
    expect(await status()).toBe('done');
    rmSync(place('part-tower'), { recursive: true });
    await saveVisionTower(towers.b, place('part-tower'));
    expect(await status()).toBe('waiting');
    rmSync(place('part-tower'), { recursive: true });
    expect(await status()).toBe('done');
    for (const part of [vision, language, towers.b, languages.b]) part.dispose();
  });
});
