import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import sharp from 'sharp';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { conversationTemplate } from '../../ts/data/conversations/index.ts';
import { ImagePool } from '../../ts/data/images/index.ts';
import { loadTokenizer, writeTokenizer } from '../../ts/data/index.ts';
import { evaluate, type RequestImage, visionLanguageAdapter } from '../../ts/evaluation/index.ts';
import type { RoutedRequest } from '../../ts/evaluation/routing-tap.ts';
import type { VisionTower } from '../../ts/models/vision/index.ts';
import { newVisionLanguageModel, type VisionLanguageModel } from '../../ts/models/vision-language/index.ts';
import { ForwardContext } from '../../ts/moe/index.ts';
import { RecordReader } from '../../ts/storage/index.ts';
import { noGrad, scope, tensor } from '../../ts/tensor/index.ts';
import { colours, processor, side } from './small-images.ts';
import { smallTokenizer } from './small-tokenizer.ts';

const folder = mkdtempSync(path.join(tmpdir(), 'libmoe-routing-images-'));
const at = (name: string): string => path.join(folder, name);
const imageToken = 7;
const moe = { experts: 4, topK: 2 };
let model: VisionLanguageModel<VisionTower>;
let pool: ImagePool;
let tokenizer: ReturnType<typeof loadTokenizer>;

beforeAll(async () => {
  model = newVisionLanguageModel(
    {
      vision: {
        kind: 'clip',
        imageSize: side,
        patchSize: 8,
        dModel: 8,
        layers: 3,
        heads: 2,
        hidden: 12,
        scales: [1, 2],
        moe: { ...moe, layers: [1] },
      },
      projector: { type: 'moe', moe },
      language: {
        vocabularySize: 290,
        dModel: 16,
        layers: 2,
        heads: 2,
        feedForward: { hidden: 16 },
        moe: { ...moe, layers: [1], expert: { hidden: 8 } },
        maxPositions: 256,
        init: { std: 0.4 },
      },
      imageTokenId: imageToken,
    },
    { seed: 1 },
  );
  writeTokenizer(folder, await smallTokenizer());
  tokenizer = loadTokenizer(folder);
  pool = new ImagePool({ processor, workers: 0 });
  for (const [i, background] of colours.entries())
    await sharp({ create: { width: 20, height: 16, channels: 3, background } })
      .composite([
        {
          input: { create: { width: 3 + i, height: 7, channels: 3, background: '#fff' } },
          left: 2 * i,
          top: i,
        },
      ])
      .png()
      .toFile(at(`${i}.png`));
});
afterAll(async () => {
  model?.dispose();
  await pool?.close();
  rmSync(folder, { recursive: true });
});

const adapter = (batchSize?: number) =>
  visionLanguageAdapter(model, {
    tokenizer,
    template: conversationTemplate('vicuna', { eos: '</s>' }),
    images: pool,
    preparation: processor,
    ...(batchSize && { batchSize }),
  });

/** Which images each of the questions shows. */
const shown = [[0], [], [1, 2], [3], [4, 0, 1], [2]];
const imagesOf = (which: readonly number[]): RequestImage[] =>
  which.map((i) => ({ file: at(`${i}.png`), sha256: `${i}` }));
const question = (which: readonly number[], i: number): string =>
  `${'<image>'.repeat(which.length)}${['the cat', 'dog ran to the mat', 'sat'][i % 3]}`;

async function routed(batchSize?: number): Promise<Map<string, readonly RoutedRequest[]>> {
  const seen = new Map<string, readonly RoutedRequest[]>();
  const asked = adapter(batchSize);
  const generation = { until: [], maxTokens: 4, temperature: 0, seed: 0, repeat: 0 };
  const turns = shown.map((which, i) => ({
    context: asked.encodeTurn!(question(which, i), '').context,
    images: imagesOf(which),
  }));
  await asked.generateUntil!(
    turns.map((turn) => ({ kind: 'generate_until', ...turn, generation })),
    () => {},
    { routing: (request, layers) => void seen.set(`text ${request}`, layers) },
  );
  await asked.loglikelihood(
    turns.flatMap((turn) =>
      [
        [30, 40, 50],
        [60, 70],
      ].map((continuation) => ({ kind: 'loglikelihood' as const, ...turn, continuation })),
    ),
    () => {},
    { routing: (request, layers) => void seen.set(`score ${request}`, layers) },
  );
  return seen;
}

/** What tower and projector do with one image alone. */
async function alone(image: number): Promise<{ layer: string; call: number; experts: number[] }[]> {
  const [tile] = await pool.load([at(`${image}.png`)]);
  if (tile === undefined || 'error' in tile) throw new Error('no image');
  using context = new ForwardContext({ trace: true });
  noGrad(() =>
    scope(() => {
      model.imageFeatures(tensor(tile.pixels, [1, 3, side, side]), context);
    }),
  );
  return context.records.map(({ layer, call, trace }) => ({
    layer,
    call,
    experts: trace!.choices.toArray(),
  }));
}

const visionLayers = ['vision.1 0', 'vision.1 1', 'projector 0'];
const named = ({ layer, call }: { layer: string; call: number }): string => `${layer} ${call}`;

describe('routing of questions about images', () => {
  it('is of every layer, belongs to its request at any batch size, and is what tower and projector do with each image alone', async () => {
    const one = await routed(1);
    expect(one.size).toBe(18);
    for (const size of [2, 8, undefined]) expect(await routed(size)).toEqual(one);
    for (const [i, which] of shown.entries()) {
      const layers = one.get(`text ${i}`)!;
      expect(layers.map(named)).toEqual([...(which.length > 0 ? visionLayers : []), '1 0']);
      const language = layers.at(-1)!;
      expect([...language.kinds].filter((kind) => kind === 0)).toHaveLength(4 * which.length);
      const single = await Promise.all(which.map(alone));
      for (const [place, { layer, call, experts, images, positions, kinds }] of layers
        .slice(0, -1)
        .entries()) {
        const each = single.map((records) => records[place]!);
        for (const record of each) expect(named(record)).toBe(named({ layer, call }));
        expect([...experts]).toEqual(each.flatMap((record) => record.experts));
        const rows = each[0]!.experts.length / 2;
        // 4 patches and the class token in each of 1 and 4 tiles; the projector sees the joined grid.
        expect(rows).toBe([5, 20, 4][place]);
        expect([...kinds]).toEqual(Array(rows * which.length).fill(0));
        expect([...images!]).toEqual(which.flatMap((_, image) => Array(rows).fill(image)));
        expect([...positions]).toEqual(which.flatMap(() => Array.from({ length: rows }, (_, row) => row)));
      }
      // Images run once for all choices of a question: their rows are those of the first.
      expect(one.get(`score ${2 * i}`)!.map(named)).toEqual(layers.map(named));
      expect(one.get(`score ${2 * i + 1}`)!.map(named)).toEqual(['1 0']);
    }
    // The pictures differ enough for a mistake to show.
    const choices = shown.slice(2, 4).map((_, i) => one.get(`text ${i + 2}`)![1]!.experts.join());
    expect(choices[0]!.startsWith(choices[1]!)).toBe(false);
  });

  it('is written with what each block says of', async () => {
    const out = at('run');
    const task = {
      task: 'seen',
      documents: [{ images: ['0.png', '1.png'] }, { images: ['2.png'] }],
      image_folder: folder,
      output_type: 'generate_until' as const,
      doc_to_visual: 'images',
      doc_to_text: 'the cat',
      doc_to_target: 'the cat',
      generation_kwargs: { until: [], max_new_tokens: 2 },
    };
    const steps = evaluate(adapter(), { tasks: [task], out, routing: true, bootstrapResamples: 10 });
    while (!(await steps.next()).done);
    using reader = new RecordReader(path.join(out, 'routing.records'));
    const blocks = [...reader.blocks()].map(
      ({ attributes: { layer, call }, rows, columns }) =>
        `${layer}${call === undefined ? '' : `/${call}`} ${rows} ${columns.map(({ name }) => name).join()}`,
    );
    const vision = 'request,kind,position,image,experts,weights';
    const ofVision = blocks.filter((block) => block.endsWith(vision));
    // Rows of three images.
    expect(ofVision.toSorted()).toEqual([
      `projector 12 ${vision}`,
      `vision.1 15 ${vision}`,
      `vision.1/1 60 ${vision}`,
    ]);
    expect(blocks.filter((block) => !block.endsWith(vision))).toEqual([
      expect.stringMatching(/^1 \d+ request,kind,position,token,experts,weights$/),
    ]);
    const [block] = [...reader.blocks()];
    const requests = [...reader.column(block!, 'request')];
    const images = [...reader.column(block!, 'image')];
    // The longer prompt goes first.
    expect(requests).toEqual([...Array(10).fill(0), ...Array(5).fill(1)]);
    expect(images).toEqual([...Array(5).fill(0), ...Array(5).fill(1), ...Array(5).fill(0)]);
  });
});
