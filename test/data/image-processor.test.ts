import { createHash } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { type DecodedImage, type ImageProcessorOptions, imageProcessor } from '../../ts/data/index.ts';
import { codeOf } from '../../ts/native/index.ts';
import { madePixels } from '../ops/made-pixels.ts';

interface Golden {
  configs: Record<string, unknown>[];
  cases: {
    config: number;
    mode?: ImageProcessorOptions['mode'];
    size: [width: number, height: number];
    seed: number;
    shape: number[];
    sha256: string;
    some: number[];
  }[];
}
const golden: Golden = JSON.parse(
  readFileSync(new URL('../golden/image/processors.json', import.meta.url), 'utf8'),
);
const made = (width: number, height: number, seed: number): DecodedImage => ({
  width,
  height,
  rgb: madePixels(3 * width * height, seed),
});
const errorOf = (run: () => unknown): string => {
  try {
    run();
  } catch (error) {
    return `${codeOf(error)} ${(error as Error).message}`;
  }
  return '';
};

describe('imageProcessor', () => {
  it.each(golden.configs.map((config, i) => [i, config] as const))(
    'gives the numbers of transformers: %i %j',
    (number, config) => {
      const cases = golden.cases.filter((c) => c.config === number);
      expect(cases.length).toBe(8);
      for (const { mode, size, seed, shape, sha256, some } of cases) {
        const processor = imageProcessor(config, { ...(mode && { mode }) });
        const { pixels, tiles } = processor.process(made(...size, seed));
        expect([tiles, 3, processor.side, processor.side], `${size}`).toEqual(shape);
        some.forEach((value, j) => {
          const mine = pixels[(j * 1000003) % pixels.length]!;
          expect(Math.abs(mine - value), `${size}, number ${j}`).toBeLessThan(1e-6);
        });
        const bytes = new Uint8Array(pixels.buffer);
        expect(createHash('sha256').update(bytes).digest('hex').slice(0, 16), `${size}`).toBe(sha256);
      }
    },
  );

  it('takes the older spellings, and the file itself', () => {
    const folder = mkdtempSync(join(tmpdir(), 'libmoe-processor-'));
    const image = made(50, 31, 3);
    const now = {
      image_processor_type: 'CLIPImageProcessor',
      size: { shortest_edge: 24 },
      crop_size: { height: 24, width: 24 },
    };
    const old = {
      feature_extractor_type: 'CLIPFeatureExtractor',
      size: 24,
      crop_size: 24,
      resample: 3,
      other: 'field',
    };
    const file = join(folder, 'preprocessor_config.json');
    writeFileSync(file, JSON.stringify(old));
    const expected = imageProcessor(now).process(image);
    expect(imageProcessor(old).process(image)).toEqual(expected);
    expect(imageProcessor(file).process(image)).toEqual(expected);
    const slow = imageProcessor({ image_processor_type: 'SiglipImageProcessorFast', size: 24 });
    expect(slow.process(image).pixels.length).toBe(3 * 24 * 24);
    rmSync(folder, { recursive: true });
  });

  it('says what black becomes', () => {
    for (const mode of ['square', 'pad', 'anyres'] as const) {
      const processor = imageProcessor(
        { image_processor_type: 'SiglipImageProcessor', size: { height: 8, width: 8 } },
        { mode, gridPinpoints: [[8, 16]] },
      );
      const { pixels, tiles } = processor.process({ width: 8, height: 8, rgb: new Uint8Array(192) });
      expect(tiles).toBe(mode === 'anyres' ? 3 : 1);
      expect([...new Set(pixels)]).toEqual([-1]);
      expect(processor.black).toEqual([-1, -1, -1]);
    }
  });

  it('says what is wrong with a configuration', () => {
    const siglip = { image_processor_type: 'SiglipImageProcessor' };
    for (const [config, options, message] of [
      [
        { image_processor_type: 'Blip2ImageProcessor' },
        {},
        /CONFIG.*expected.*CLIP.*got Blip2ImageProcessor/,
      ],
      [{ ...siglip, size: { height: 24, width: 32 } }, {}, /CONFIG.*squares.*24 x 32/],
      [
        { image_processor_type: 'CLIPImageProcessor', do_center_crop: false },
        {},
        /CONFIG.*follows the image/,
      ],
      [{ ...siglip, resample: 5 }, {}, /CONFIG.*Hamming/],
      [{ ...siglip, image_mean: [1, 2] }, {}, /CONFIG.*image_mean/],
      [{ ...siglip, size: { width: -3 } }, {}, /CONFIG.*size/],
      [siglip, { mode: 'anyres' }, /CONFIG.*gridPinpoints.*none/],
      [siglip, { mode: 'anyres', gridPinpoints: [[224, 300]] }, /CONFIG.*multiples of 224.*300/],
      ['/nowhere/preprocessor_config.json', {}, /CONFIG.*\/nowhere/],
    ] as const)
      expect(errorOf(() => imageProcessor(config, options as ImageProcessorOptions))).toMatch(message);
  });

  it('refuses an image whose square nobody could hold', () => {
    const strip: DecodedImage = { width: 1, height: 60000, rgb: new Uint8Array(180000) };
    const siglip = { image_processor_type: 'SiglipImageProcessor' };
    expect(errorOf(() => imageProcessor(siglip, { mode: 'pad' }).process(strip))).toMatch(
      /ERR_LIBMOE_IMAGE.*60000 x 60000/,
    );
    const clip = { image_processor_type: 'CLIPImageProcessor' };
    expect(errorOf(() => imageProcessor(clip).process(strip))).toMatch(/ERR_LIBMOE_IMAGE.*too long/);
    expect(imageProcessor(siglip).process(strip).tiles).toBe(1);
  });
});
