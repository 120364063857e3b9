import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import sharp from 'sharp';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { conversationTemplate } from '../../ts/data/conversations/index.ts';
import { ImagePool } from '../../ts/data/images/index.ts';
import { decodeReference } from '../../ts/data/images/recipe.ts';
import { loadTokenizer, type Tokenizer, writeTokenizer } from '../../ts/data/index.ts';
import {
  type EvalModel,
  evaluate,
  type Generation,
  type Judge,
  type Results,
  visionLanguageAdapter,
} from '../../ts/evaluation/index.ts';
import { openEvaluatedModel } from '../../ts/experiment/index.ts';
import type { VisionTower } from '../../ts/models/vision/index.ts';
import {
  generateWithImages,
  newVisionLanguageModel,
  saveVisionLanguageModel,
  type VisionLanguageModel,
} from '../../ts/models/vision-language/index.ts';
import { keep, tensor } from '../../ts/tensor/index.ts';
import { colours, processor } from './small-images.ts';
import { smallTokenizer } from './small-tokenizer.ts';

const folder = mkdtempSync(path.join(tmpdir(), 'libmoe-answers-'));
const at = (name: string): string => path.join(folder, name);
const imageToken = 7; // a token of the vocabulary, which must never be generated
let model: VisionLanguageModel<VisionTower>;
let tokenizer: Tokenizer;
let pool: ImagePool;

beforeAll(async () => {
  model = newVisionLanguageModel(
    {
      vision: { kind: 'siglip', imageSize: 16, patchSize: 8, dModel: 8, layers: 2, heads: 2, hidden: 12 },
      language: {
        vocabularySize: 290,
        dModel: 16,
        layers: 2,
        heads: 2,
        feedForward: { hidden: 16 },
        moe: { experts: 4, topK: 2, layers: 'all', expert: { hidden: 8 } },
        maxPositions: 256,
        init: { std: 0.4 },
      },
      imageTokenId: imageToken,
    },
    { seed: 1 },
  );
  const trained = await smallTokenizer();
  await saveVisionLanguageModel(model, at('model'), {
    extra: async (to) => {
      writeTokenizer(to, trained);
      writeFileSync(path.join(to, 'preprocessor_config.json'), JSON.stringify(processor));
    },
  });
  tokenizer = loadTokenizer(at('model'));
  pool = new ImagePool({ processor, workers: 0 });
  for (const [i, background] of colours.entries())
    await sharp({ create: { width: 20, height: 16, channels: 3, background } })
      .png()
      .toFile(at(`${i}.png`));
  const rows = Array.from({ length: 11 }, (_, i) => ({
    images: i % 4 === 3 ? [] : i % 4 === 2 ? [`${i % 5}.png`, `${(i + 1) % 5}.png`] : [`${i % 5}.png`],
    question: ['the cat', 'dog ran to the mat', 'sat'][i % 3],
    answer: 'the',
  }));
  writeFileSync(at('rows.jsonl'), rows.map((row) => JSON.stringify(row)).join('\n'));
  writeFileSync(
    at('seen.yaml'),
    'dataset_path: json\ndataset_kwargs: { data_files: rows.jsonl }\noutput_type: generate_until\ndoc_to_visual: images\ndoc_to_text: question\ndoc_to_target: answer\ngeneration_kwargs: { until: [], max_new_tokens: 8 }\n',
  );
});
afterAll(async () => {
  model.dispose();
  await pool.close();
  rmSync(folder, { recursive: true });
});

const adapter = (batchSize?: number): EvalModel =>
  visionLanguageAdapter(model, {
    tokenizer,
    template: conversationTemplate('vicuna', { eos: '</s>' }),
    images: pool,
    preparation: processor,
    ...(batchSize && { batchSize }),
  });

async function run(of: EvalModel, out?: string): Promise<Results> {
  const steps = evaluate(of, { tasks: [at('seen.yaml')], bootstrapResamples: 100, ...(out && { out }) });
  for (;;) {
    const step = await steps.next();
    if (step.done) return step.value;
  }
}
const responses = (out: string): string[] =>
  readFileSync(path.join(out, 'samples_seen.jsonl'), 'utf8')
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line).resps[0][0] as string);

describe('answers about images', () => {
  it('are what the model says of the image alone', async () => {
    const image = await pool.load([at('2.png')]);
    const [tile] = image;
    if (tile === undefined || 'error' in tile) throw new Error('no image');
    const asked = adapter();
    const { context } = asked.encodeTurn!('<image>\nthe cat', '');
    const generation: Generation = { until: [], maxTokens: 8, temperature: 0, seed: 0, repeat: 0 };
    let said = '';
    await asked.generateUntil!(
      [{ kind: 'generate_until', context, generation, images: [{ file: at('2.png'), sha256: 'x' }] }],
      (_, { text }) => {
        said = text;
      },
    );
    using pixels = keep(tensor(Float32Array.from(tile.pixels), [1, 3, 16, 16]));
    const place = context.indexOf(imageToken);
    const ids = context.flatMap((id) => (id === imageToken ? Array<number>(4).fill(imageToken) : [id]));
    const tokens: number[] = [];
    const prompt = { ids, pixels, starts: Int32Array.of(place) };
    const { eosId } = tokenizer;
    const stop = eosId === undefined ? [] : [eosId];
    for await (const { token } of generateWithImages(model, prompt, { maxTokens: 8, stop }))
      tokens.push(token);
    expect(tokens).not.toContain(imageToken);
    expect(said).toBe(tokenizer.decode(tokens));
  });

  it('about an image that is drawn into are those about the drawing', async () => {
    const recipe = {
      make: 'box',
      files: [at('3.png')],
      box: [0, 0, 19, 15],
      colour: '#000000',
      width: 10,
    } as const;
    const { width, height, rgb } = await decodeReference(recipe);
    await sharp(rgb, { raw: { width, height, channels: 3 } })
      .png()
      .toFile(at('drawn.png'));
    const asked = adapter();
    const request = { kind: 'loglikelihood', ...asked.encodeTurn!('<image>\nthe cat', 'sat') } as const;
    const sums: number[] = [];
    await asked.loglikelihood(
      [
        { ...request, images: [{ file: at('3.png'), recipe, sha256: 'made' }] },
        { ...request, images: [{ file: at('drawn.png'), sha256: 'file' }] },
        { ...request, images: [{ file: at('3.png'), sha256: 'plain' }] },
      ],
      (i, { sum }) => {
        sums[i] = sum;
      },
    );
    expect(sums[0]).toBe(sums[1]);
    expect(sums[0]).not.toBe(sums[2]);
  });

  it('do not depend on batch size; each image is its own', async () => {
    const reference = at('one');
    await run(adapter(1), reference);
    const texts = responses(reference);
    expect(texts).toHaveLength(11);
    expect(new Set(texts).size).toBeGreaterThan(3);
    for (const batchSize of [2, 8, undefined]) {
      const out = at(`batch-${batchSize}`);
      await run(adapter(batchSize), out);
      expect(responses(out)).toEqual(texts);
    }
  });

  it('are shown to a judge with their images', async () => {
    const seen: (readonly string[])[] = [];
    const judge: Judge = {
      model: 'judge',
      ask: async ({ images }) => {
        seen.push(images ?? ['none']);
        return 'Final Score: 40';
      },
    };
    writeFileSync(
      at('judged.yaml'),
      'include: seen.yaml\nscore: { use: llm_judge, prompt: Rate, verdict: score, range: [0, 100], pattern: "Score: (\\\\d+)", images: true }\n',
    );
    const steps = evaluate(adapter(), {
      tasks: [at('judged.yaml')],
      bootstrapResamples: 100,
      judge,
      limit: 4,
    });
    let step = await steps.next();
    while (!step.done) step = await steps.next();
    expect(step.value.results.judged).toMatchObject({ 'score,none': 40, 'normalised,none': 0.4 });
    expect(seen).toEqual([[at('0.png')], [at('1.png')], [at('2.png'), at('3.png')], []]);
  });

  it('are kept under the hash of the image, and come from a checkpoint as from a model', async () => {
    const out = at('again');
    const opened = await openEvaluatedModel(at('model'), { name: 'vlm', template: 'vicuna' });
    try {
      const first = await run(opened.model, out);
      expect(first.libmoe.requests.from_journal).toBe(0);
      expect(responses(out)).toEqual(responses(at('one')));
      const second = await run(opened.model, out);
      expect(second.libmoe.requests.from_journal).toBe(second.libmoe.requests.total);
      // Another picture under the same name is asked about anew.
      await sharp({ create: { width: 20, height: 16, channels: 3, background: '#ffffff' } })
        .png()
        .toFile(at('0.png'));
      const third = await run(opened.model, out);
      expect(third.libmoe.requests.from_journal).toBeLessThan(third.libmoe.requests.total);
    } finally {
      await opened.close();
    }
    await expect(openEvaluatedModel(at('model'), { name: 'vlm' })).rejects.toThrow('give --template');
  });
});
