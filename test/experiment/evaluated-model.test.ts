import { cpSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { beforeAll, describe, expect, it, vi } from 'vitest';
import { readImages } from '../../ts/cli/images.ts';
import { ImagePool } from '../../ts/data/images/index.ts';
import { evaluate } from '../../ts/evaluation/index.ts';
import {
  type AnyRecipeInput,
  type EvaluatedModelOptions,
  merged,
  openEvaluatedModel,
  runRecipe,
} from '../../ts/experiment/index.ts';
import { loadVisionLanguageModel } from '../../ts/models/vision-language/index.ts';
import { readJsonObject, writeFileAtomically } from '../../ts/storage/index.ts';
import { leaveToCollector } from '../collected.ts';
import { temporaryFolder } from '../storage/temporary.ts';
import { madeUpImages } from './made-up-images.ts';

leaveToCollector();
vi.setConfig({ testTimeout: 300_000, hookTimeout: 300_000 });
const temporary = temporaryFolder();
const place = (...parts: string[]): string => join(temporary, ...parts);

/** What the model answered, document by document, with its scores. */
const answers = (out: string): unknown[] =>
  readFileSync(join(out, 'samples_colours.jsonl'), 'utf8')
    .trim()
    .split('\n')
    .map((line) => (JSON.parse(line) as { resps: unknown }).resps);

describe('a checkpoint of a vision-language run', () => {
  let base: AnyRecipeInput;
  let task = '';
  let checkpoint = '';
  let files: string[] = [];

  async function asked(
    out: string,
    options: Partial<EvaluatedModelOptions> = {},
    of = checkpoint,
  ): Promise<unknown[]> {
    const { model, close } = await openEvaluatedModel(of, { name: 'run', ...options });
    const run = evaluate(model, { tasks: [task], out: place(out), scorer: 'fixed' });
    try {
      while (!(await run.next()).done);
    } finally {
      await close();
    }
    return answers(place(out));
  }

  beforeAll(async () => {
    // Wider than high: on a canvas they have bars that they have not when squashed.
    const made = await madeUpImages(temporary);
    task = made.task;
    files = ['red', 'green'].map((name) => place('images', `${name}.png`));
    const marks = ['<image>', '<|user|>', '<|assistant|>', '<|end|>'];
    base = {
      kind: 'vision-language',
      name: 'colours',
      seed: 3,
      tokenizer: { train: { vocabularySize: 290, byteFallback: true, userDefinedSymbols: marks } },
      data: {
        train: { conversations: made.conversations, images: temporary },
        ...{ template: 'phi35', system: '', context: 64, batchSamples: 8, workers: 0, imageMode: 'pad' },
      },
      model: {
        language: { dModel: 16, layers: 1, heads: 2, feedForward: { hidden: 32 }, maxPositions: 256 },
        vision: { kind: 'siglip', imageSize: 16, patchSize: 8, dModel: 16, layers: 2, heads: 2, hidden: 24 },
      },
      training: { steps: 12, schedule: { name: 'constant', learningRate: 5e-3 } },
      evaluation: { tasks: [task], scorer: 'fixed' },
    } as AnyRecipeInput;
    checkpoint = (await runRecipe(base, {}, { out: place('run') })).checkpoint!;
  });

  it('is asked as the run asked it, by default', async () => {
    const final = answers(place('run', 'eval', 'final'));
    expect(final).toHaveLength(4);
    expect(await asked('default')).toEqual(final);
    // Options say otherwise: each of the three makes a difference.
    expect(await asked('square', { imageMode: 'square' })).not.toEqual(final);
    expect(await asked('vicuna', { template: 'vicuna' })).not.toEqual(final);
    expect(await asked('same', { template: 'phi35', imageMode: 'pad' })).toEqual(final);
    const file = join(checkpoint, 'preprocessor_config.json');
    const { libmoe, ...rest } = readJsonObject(file);
    expect(libmoe).toEqual({ version: 1, imageMode: 'pad', template: 'phi35', system: '' });
    expect(rest).toMatchObject({ image_processor_type: 'SiglipImageProcessor' });
  });

  it('is shown images as in the training by the commands that take some', async () => {
    using model = await loadVisionLanguageModel(checkpoint);
    const file = join(checkpoint, 'preprocessor_config.json');
    const pixelsOf = async (mode: 'pad' | 'square'): Promise<number[]> => {
      const pool = new ImagePool({ processor: file, mode, workers: 0 });
      const loaded = await pool.load(files);
      await pool.close();
      return loaded.flatMap((image) => ('error' in image ? [] : Array.from(image.pixels)));
    };
    const shown = async (mode?: string): Promise<number[]> => {
      const { pixels } = await readImages(model, files, mode);
      using read = pixels;
      return read.toArray().flat(3) as number[];
    };
    const padded = await pixelsOf('pad');
    expect(padded).toHaveLength(2 * 3 * 16 * 16);
    expect(await shown()).toEqual(padded);
    expect(await shown('square')).toEqual(await pixelsOf('square'));
    expect(await pixelsOf('square')).not.toEqual(padded);
  });

  it('hands its form on to no training that begins with it', async () => {
    const { model: _, tokenizer: __, ...rest } = base as Record<string, unknown>;
    const next = merged(rest, {
      start: { checkpoint },
      data: { imageMode: 'square', system: undefined },
      training: { steps: 1 },
    }) as AnyRecipeInput;
    const second = await runRecipe(next, {}, { out: place('second') });
    const written = readJsonObject(join(second.checkpoint!, 'preprocessor_config.json'));
    expect(written.libmoe).toEqual({ version: 1, imageMode: 'square', template: 'phi35' });
    expect(await asked('second-asked', {}, second.checkpoint!)).toEqual(
      answers(place('second', 'eval', 'final')),
    );
  });

  it('that learned from tiles is asked when somebody says how else, and a damaged form is named', async () => {
    const changed = place('changed');
    cpSync(checkpoint, changed, { recursive: true });
    rmSync(join(changed, 'checksums.json'));
    const file = join(changed, 'preprocessor_config.json');
    const whole = readJsonObject(file);
    const written = (libmoe: object): void =>
      writeFileAtomically(file, JSON.stringify({ ...whole, libmoe: { version: 1, ...libmoe } }));
    written({ imageMode: 'anyres', template: 'phi35' });
    await expect(asked('tiles', {}, changed)).rejects.toThrow(/ARGUMENT.*anyres.*--image-mode/);
    written({ imageMode: 'round' });
    await expect(asked('round', {}, changed)).rejects.toThrow(/CONFIG.*preprocessor_config.json.*imageMode/);
  });
});
