import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { emojiQuestions } from '../../../ts/data/emoji-questions.ts';
import { RequestImages } from '../../../ts/evaluation/request-images.ts';
import { loadModel } from '../../../ts/models/language/index.ts';
import {
  configOf,
  lostInLlava,
  newVisionLanguageModel,
  rawForwardWithImages,
  readVisionLanguageConfig,
  saveVisionLanguageModel,
  type VisionLanguageOptions,
} from '../../../ts/models/vision-language/index.ts';
import { randn } from '../../../ts/tensor/random.ts';
import { temporaryFolder } from '../../storage/temporary.ts';

const folder = temporaryFolder();
const options = (changes: Partial<VisionLanguageOptions> = {}): VisionLanguageOptions => ({
  vision: { kind: 'siglip', imageSize: 16, patchSize: 8, dModel: 8, layers: 2, heads: 2, hidden: 16 },
  language: {
    ...{ vocabularySize: 50, dModel: 8, layers: 1, heads: 2, maxPositions: 32 },
    feedForward: { hidden: 16, activation: 'silu', gated: true },
  },
  imageTokenId: 49,
  ...changes,
});

describe('vision-language models at the edges of what others know', () => {
  it('with an image token outside the vocabulary are none of transformers', async () => {
    using inside = newVisionLanguageModel(options());
    expect(lostInLlava(configOf(inside))).toEqual([]);
    using outside = newVisionLanguageModel(options({ imageTokenId: 50 }));
    const place = join(folder, 'outside');
    await expect(saveVisionLanguageModel(outside, place, { family: 'public' })).rejects.toThrow(
      /ERR_LIBMOE_UNSUPPORTED: LlavaForConditionalGeneration knows no model with the image token 50 outside the 50 ids/,
    );
    await saveVisionLanguageModel(outside, place);
    const { config, json } = readVisionLanguageConfig(place);
    expect(json.architectures).toEqual(['LibMoeForConditionalGeneration']);
    expect(config.imageTokenId).toBe(50);
  });

  it('are named where a language model is asked for', async () => {
    for (const [name, imageTokenId] of [
      ['llava', 49],
      ['own', 50],
    ] as const) {
      using model = newVisionLanguageModel(options({ imageTokenId }));
      const place = join(folder, name);
      await saveVisionLanguageModel(model, place);
      await expect(loadModel(place)).rejects.toThrow(
        /ERR_LIBMOE_UNSUPPORTED: .*loadVisionLanguageModel.*libmoe generate --image/,
      );
    }
  });

  it('keep the routing of every scale', () => {
    const { vision, ...rest } = options();
    const moe = { experts: 3, topK: 2, router: { name: 'smoe' } };
    using model = newVisionLanguageModel({ ...rest, vision: { ...vision, scales: [1, 2], moe } });
    using pixels = randn([1, 3, 16, 16], { seed: 1 });
    const ids = [[49, 49, 49, 49, 3, 4]];
    const found = rawForwardWithImages(
      model,
      ids,
      { pixels, starts: Int32Array.from([0]) },
      { hidden: true },
    );
    // Four patches of the image, and of each of the four tiles of its enlargement.
    for (const layer of [0, 1]) {
      expect(found.get(`routing.vision.${layer}.experts`)!.shape).toEqual([4 + 16, 2]);
      expect(found.get(`routing.vision.${layer}.weights`)!.shape).toEqual([4 + 16, 2]);
    }
    for (const t of found.values()) t.dispose();
  });
});

it('an image that is a folder is named with its task', async () => {
  mkdirSync(join(folder, 'pictures', 'cat.png'), { recursive: true });
  writeFileSync(join(folder, 'pictures', 'dog.png'), 'not looked into here');
  const task = { task: 'colours', folder: join(folder, 'pictures') } as never;
  const images = new RequestImages();
  await expect(images.of(task, ['cat.png'])).rejects.toThrow(
    /ERR_LIBMOE_DATA: task colours: the image "cat.png" is .*cat\.png, which cannot be read \(it is a folder\)/,
  );
  expect(await images.of(task, ['dog.png'])).toHaveLength(1);
});

it('emoji questions say how many things they need', () => {
  const things = Array.from({ length: 8 }, (_, i) => ({
    name: `thing ${i}`,
    category: 'Objects',
    emoji: '',
  }));
  const ask = (count: number, kind: 'name' | 'category' | 'yesNo') => () =>
    emojiQuestions(things.slice(0, count) as never, 'noto', kind);
  expect(ask(7, 'name')).toThrow(
    /ERR_LIBMOE_ARGUMENT: .*"name" with 8 choices need things of at least 8 names, there are 7: take more/,
  );
  expect(ask(1, 'yesNo')).toThrow(/"yesNo" need things of at least 2 names, there are 1/);
});
