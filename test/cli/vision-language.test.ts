import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import sharp from 'sharp';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { loadTokenizer, writeTokenizer } from '../../ts/data/index.ts';
import { LanguageModel, saveModel } from '../../ts/models/language/index.ts';
import {
  loadVisionLanguageModel,
  newVisionLanguageModel,
  saveVisionLanguageModel,
} from '../../ts/models/vision-language/index.ts';
import { readSafetensors } from '../../ts/storage/index.ts';
import { smallTokenizer } from '../evaluation/small-tokenizer.ts';
import { libmoe } from './libmoe.ts';

const folder = mkdtempSync(path.join(tmpdir(), 'libmoe-vision-'));
afterAll(() => rmSync(folder, { recursive: true }));
const model = path.join(folder, 'model');
const plain = path.join(folder, 'plain');
const picture = path.join(folder, 'picture.png');
const image = 300; // outside the vocabulary

beforeAll(async () => {
  const extra = async (to: string): Promise<void> => void writeTokenizer(to, await smallTokenizer());
  const language = { vocabularySize: 290, dModel: 8, layers: 2, heads: 2, feedForward: { hidden: 8 } };
  using made = newVisionLanguageModel(
    {
      vision: { kind: 'siglip', imageSize: 16, patchSize: 8, dModel: 8, layers: 2, heads: 2, hidden: 12 },
      language: { ...language, init: { std: 0.3 } },
      imageTokenId: image,
    },
    { seed: 1 },
  );
  await saveVisionLanguageModel(made, model, { extra });
  using text = new LanguageModel(language, { seed: 1 });
  await saveModel(text, plain, { extra });
  const pixels = Uint8Array.from({ length: 20 * 30 * 3 }, (_, i) => (i * 7) % 256);
  await sharp(pixels, { raw: { width: 20, height: 30, channels: 3 } })
    .png()
    .toFile(picture);
});

it('generate shows the model images, each where its mark stands', async () => {
  const args = ['generate', '--model', model, '--max-tokens', '3', '--temperature', '0'];
  const two = ['--image', picture, '--image', picture];
  const { code, stdout, stderr } = await libmoe([
    ...args,
    ...two,
    '--prompt',
    '<image>the <image>cat',
    '--json',
  ]);
  expect(stderr).toBe('');
  expect(code).toBe(0);
  const { ids, promptTokens, text } = JSON.parse(stdout);
  const rows = Array<number>(4).fill(image);
  const tokenizer = loadTokenizer(model);
  expect(ids.slice(0, 4)).toEqual(rows);
  expect(ids.slice(0, promptTokens).filter((id: number) => id === image)).toHaveLength(8);
  expect(text.startsWith('the cat')).toBe(true);
  expect(tokenizer.decode(ids.filter((id: number) => id !== image))).toBe(text);
  // Without a mark the image comes first, and words are streamed.
  const words = await libmoe([...args, '--image', picture, '--prompt', 'the cat']);
  expect(words.code).toBe(0);
  expect(words.stdout.trimStart().startsWith('the cat')).toBe(true);
  // A text alone needs no image.
  expect((await libmoe([...args, '--prompt', 'the cat', '--json'])).code).toBe(0);
}, 60_000);

it('logits writes what the model sees, from one image token or one per row', async () => {
  const write = (name: string, value: unknown): string => {
    const file = path.join(folder, name);
    writeFileSync(file, JSON.stringify(value));
    return file;
  };
  const rows = Array<number>(4).fill(image);
  const results = [];
  for (const [name, ids] of [
    [
      'one',
      [
        [5, 6],
        [7, image, 8],
      ],
    ],
    [
      'rows',
      [
        [5, 6],
        [7, ...rows, 8],
      ],
    ],
  ] as const) {
    const out = path.join(folder, `${name}.safetensors`);
    const run = await libmoe([
      ...['logits', '--model', model, '--tokens', write(`${name}.json`, ids), '--out', out],
      ...['--image', picture, '--hidden', '--json'],
    ]);
    expect(run.stderr).toBe('');
    expect(JSON.parse(run.stdout).tokens).toBe(8);
    const tensors = readSafetensors(out);
    expect([...tensors.keys()].sort()).toEqual(['hidden.0', 'hidden.1', 'image.features', 'logits']);
    expect(tensors.get('image.features')!.shape).toEqual([4, 8]);
    results.push(tensors.get('logits')!.toArray());
    for (const t of tensors.values()) t.dispose();
  }
  expect(results[0]).toHaveLength(8 * 290);
  expect(results[0]).toEqual(results[1]);
}, 60_000);

it('upcycle makes mixtures of tower and projector, and measures both models', async () => {
  const out = path.join(folder, 'moe');
  const sizes = ['--experts', '4', '--top-k', '2'];
  const run = (...more: string[]) => libmoe(['upcycle', '--from', model, '--out', out, ...sizes, ...more]);
  const { code, stdout } = await run('--router', 'shared-v2', '--json');
  expect(code).toBe(0);
  const report = JSON.parse(stdout);
  expect(report.unlikeDense).toEqual([]);
  expect(report.parts).toEqual(['vision', 'projector']);
  expect(report.stepZero.upcycled).toBeCloseTo(report.stepZero.dense, 4);
  expect(report.family).toBe('LibMoeForConditionalGeneration');
  using made = await loadVisionLanguageModel(out);
  expect(made.vision.config.moe).toMatchObject({ experts: 4, sharedMix: 'half' });
  expect(existsSync(path.join(out, 'tokenizer.json'))).toBe(true);
  rmSync(out, { recursive: true });
  const words = await run('--parts', 'projector', '--router', 'moe++');
  expect(words.stdout).toMatch(
    /only libmoe loads it: .*LlavaForConditionalGeneration, knows no model with a projector "moe"/,
  );
  expect(words.code).toBe(0);
}, 60_000);

it('says what is wrong with images', async () => {
  const refused = async (args: string[], message: RegExp): Promise<void> => {
    const { code, stderr } = await libmoe(args);
    expect(code).toBe(2);
    expect(stderr).toMatch(message);
  };
  const generate = (from: string, ...more: string[]) => [
    'generate',
    '--model',
    from,
    '--prompt',
    'a',
    ...more,
  ];
  await refused(generate(plain, '--image', picture), /ERR_LIBMOE_ARGUMENT.*sees no images/);
  await refused(
    generate(model, '--image', path.join(folder, 'none.png')),
    /ERR_LIBMOE_IMAGE_MISSING.*none\.png/,
  );
  await refused(generate(model, '--image', picture, '--image-mode', 'round'), /square, pad, anyres/);
  await refused(
    ['generate', '--model', model, '--prompt', '<image><image>', '--image', picture],
    /ERR_LIBMOE_DATA.*2 placeholders.*1 images/,
  );
  const sizes = ['--experts', '4', '--top-k', '2', '--out', path.join(folder, 'x')];
  await refused(
    ['upcycle', '--from', plain, ...sizes, '--parts', 'vision'],
    /--parts is for vision-language/,
  );
  await refused(
    ['upcycle', '--from', model, ...sizes, '--parts', 'eyes'],
    /--parts expects vision, projector/,
  );
}, 60_000);
