import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, expect, it } from 'vitest';
import {
  conversationsOf,
  conversationTemplate,
  type ImageSource,
  VisionLanguageLoader,
} from '../../../ts/data/index.ts';
import { train, visionLanguageBatches } from '../../../ts/training/index.ts';
import { optimizer } from '../../../ts/training/optimizer.ts';
import { schedule } from '../../../ts/training/schedule.ts';
import { tinyConfig } from '../../models/tiny.ts';
import { imageToken, tinyVlm } from '../../models/vision-language/tiny-vlm.ts';
import { phiTokenizer } from './golden-tokenizer.ts';
import { someRecords } from './made-up.ts';

const folder = mkdtempSync(path.join(tmpdir(), 'libmoe-vlm-training-'));
afterAll(() => rmSync(folder, { recursive: true }));
const tokenizer = phiTokenizer({ bos: false });
const images: ImageSource = {
  side: 8,
  black: [0, 0, 0],
  load: async (paths) =>
    paths.map((each) => {
      const name = Number.parseInt(path.basename(each), 10);
      return { pixels: Float32Array.from({ length: 192 }, (_, i) => Math.sin(name + i)), tiles: 1 };
    }),
};

it('trains on conversations with images, and goes on after a stop to the same bits', async () => {
  const run = async (out: string, stops: readonly number[]): Promise<number[]> => {
    const losses: number[] = [];
    for (const steps of stops) {
      using model = tinyVlm({ language: { ...tinyConfig, vocabularySize: tokenizer.vocabularySize } });
      const loader = new VisionLanguageLoader(conversationsOf(someRecords(14)), {
        tokenizer,
        template: conversationTemplate('phi3'),
        images,
        context: 90,
        tokensPerImage: 4,
        imageTokenId: imageToken,
        batching: { samples: 4 },
        order: 'modality',
        seed: 3,
      });
      const adam = optimizer(model.namedParameters(), { name: 'adamw' });
      const options = {
        out: path.join(folder, out),
        resume: true,
        microBatches: 2,
        batches: visionLanguageBatches,
      };
      const rate = schedule({ name: 'constant', learningRate: 0.01 }, 7);
      for await (const { loss } of train(model, {
        data: loader,
        optimizer: adam,
        schedule: rate,
        steps,
        ...options,
      }))
        losses.push(loss);
      adam.dispose();
    }
    return losses;
  };
  const whole = await run('whole', [7]);
  expect(whole.length).toBe(7);
  expect(whole[6]!).toBeLessThan(whole[0]!);
  expect(await run('stopped', [3, 7])).toEqual(whole);
});
