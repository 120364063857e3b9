import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import sharp from 'sharp';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { drawBox, drawPolygon } from '../../ts/data/images/drawing.ts';
import { type DecodedImage, ImagePool, type ImageRecipe } from '../../ts/data/images/index.ts';
import { decodeReference, isImageRecipe } from '../../ts/data/images/recipe.ts';

const folder = mkdtempSync(join(tmpdir(), 'libmoe-recipes-'));
afterAll(() => rmSync(folder, { recursive: true }));
const at = (name: string): string => join(folder, name);
const file = (name: string, width: number, height: number, background: string) =>
  sharp({ create: { width, height, channels: 3, background } })
    .png()
    .toFile(at(name));
beforeAll(async () => {
  await file('grey.png', 12, 8, '#808080');
  await file('wide.png', 40, 20, '#0000ff');
  await file('tall.png', 20, 40, '#00ff00');
});

const pixel = ({ width, rgb }: DecodedImage, x: number, y: number): number[] => [
  ...rgb.subarray(3 * (y * width + x), 3 * (y * width + x) + 3),
];

interface Golden {
  width: number;
  height: number;
  cases: { box?: number[]; points?: number[]; width: number; pixels: number[]; colours: number[][] }[];
}
const golden = JSON.parse(
  readFileSync(join(import.meta.dirname, '../golden/image-drawing/outlines.json'), 'utf8'),
) as Golden;

describe('outlines', () => {
  it.each(golden.cases.map((one, i) => [i, one] as const))('are those of Pillow: %s', (_, one) => {
    const { width, height } = golden;
    const onto = { width, height, rgb: new Uint8Array(3 * width * height) };
    const colour = (one.colours[0] ?? [9, 9, 9]) as [number, number, number];
    if (one.box) drawBox(onto, one.box, colour, one.width);
    else drawPolygon(onto, one.points!, colour);
    const found = Array.from({ length: width * height }, (_, i) => i).filter((i) =>
      onto.rgb.subarray(3 * i, 3 * i + 3).some((c) => c !== 0),
    );
    expect(found).toEqual(one.pixels);
  });
});

describe('an image that is made when it is loaded', () => {
  const box: ImageRecipe = { make: 'box', files: [''], box: [2, 1, 6, 5], colour: '#ff0000', width: 1 };
  it('has a box drawn into it, and the file stays as it is', async () => {
    const drawn = await decodeReference({ ...box, files: [at('grey.png')] });
    expect([drawn.width, drawn.height]).toEqual([12, 8]);
    for (const [x, y] of [
      [2, 1],
      [6, 1],
      [2, 5],
      [6, 5],
      [4, 1],
      [2, 3],
    ] as const)
      expect(pixel(drawn, x, y)).toEqual([255, 0, 0]);
    for (const [x, y] of [
      [3, 2],
      [1, 1],
      [7, 5],
      [4, 3],
    ] as const)
      expect(pixel(drawn, x, y)).toEqual([128, 128, 128]);
    const plain = await decodeReference(at('grey.png'));
    expect(plain.rgb.every((c) => c === 128)).toBe(true);
  });

  it('is several, numbered, in the direction that is less long', async () => {
    const group = (...names: string[]): Promise<DecodedImage> =>
      decodeReference({ make: 'group', files: names.map(at), size: 100 });
    // Beside each other 200 + 50 wide; one below the other 50 + 200 high: no longer, so beside each other.
    const both = await group('wide.png', 'tall.png');
    expect([both.width, both.height]).toEqual([250, 100]);
    expect([pixel(both, 150, 50), pixel(both, 225, 90)]).toEqual([
      [0, 0, 255],
      [0, 255, 0],
    ]);
    const below = await group('wide.png', 'wide.png');
    expect([below.width, below.height]).toEqual([100, 100]);
    // A white square of 61 pixels with the number in black.
    expect([pixel(both, 60, 60), pixel(both, 61, 61)]).toEqual([
      [255, 255, 255],
      [0, 0, 255],
    ]);
    expect([pixel(both, 10, 10), pixel(both, 12, 37)]).toEqual([
      [0, 0, 0],
      [0, 0, 0],
    ]);
    const ink = (image: DecodedImage, left: number): number[] =>
      Array.from(
        { length: 40 * 40 },
        (_, i) => pixel(image, left + 10 + (i % 40), 10 + Math.floor(i / 40))[0]!,
      );
    expect(ink(both, 0)).not.toEqual(ink(both, 200));
  });

  it.each([
    [
      'beside.png',
      120,
      [
        [37, 23],
        [19, 41],
      ],
    ],
    [
      'below.png',
      90,
      [
        [37, 23],
        [90, 31],
        [64, 20],
      ],
    ],
  ] as const)('and is put together as Pillow does: %s', async (name, size, sizes) => {
    const files = sizes.map(([width, height]) => at(`${width}x${height}.png`));
    for (const [i, [width, height]] of sizes.entries()) {
      const rgb = Buffer.alloc(3 * width * height);
      for (let p = 0; p < width * height; p += 1) {
        const [x, y] = [p % width, Math.floor(p / width)];
        rgb.set([(x * 9) % 256, (y * 7) % 256, ((x + y) * 3) % 256], 3 * p);
      }
      await sharp(rgb, { raw: { width, height, channels: 3 } })
        .png()
        .toFile(files[i]!);
    }
    const made = await decodeReference({ make: 'group', files, size });
    const wanted = await decodeReference(join(import.meta.dirname, '../golden/image-drawing', name));
    expect([made.width, made.height]).toEqual([wanted.width, wanted.height]);
    const differ = Array.from({ length: wanted.width * wanted.height }, (_, p) => p).filter((p) =>
      [0, 1, 2].some((c) => made.rgb[3 * p + c] !== wanted.rgb[3 * p + c]),
    );
    // The numbers alone, black on white.
    expect(differ.length).toBeGreaterThan(200);
    for (const p of differ) {
      expect([...made.rgb.subarray(3 * p, 3 * p + 3)]).toEqual([0, 0, 0]);
      expect([...wanted.rgb.subarray(3 * p, 3 * p + 3)]).toEqual([255, 255, 255]);
    }
  });

  it('may come from a data: URL', async () => {
    const bytes = readFileSync(at('wide.png')).toString('base64');
    const url = `data:image/png;base64,${bytes}`;
    expect(await decodeReference(url)).toEqual(await decodeReference(at('wide.png')));
    await expect(decodeReference('data:image/png;base64,AAAA')).rejects.toThrow(
      /ERR_LIBMOE_IMAGE: data:image\/png;base64,AAAA… is no/,
    );
  });

  it('comes out of a pool like any other, in a thread too, each under its own name', async () => {
    const processor = {
      image_processor_type: 'SiglipImageProcessor',
      do_resize: true,
      resample: 0,
      do_rescale: true,
      rescale_factor: 1 / 255,
      do_normalize: false,
      size: { height: 8, width: 12 },
    };
    const square = { ...processor, size: { height: 8, width: 8 } };
    const red = { ...box, files: ['grey.png'] as const };
    const blue = { ...red, colour: '#0000ff' };
    const made = async (workers: number) => {
      await using pool = new ImagePool({ processor: square, folder, workers });
      const images = await pool.load(['grey.png', red, blue, red, { ...red, files: ['none.png'] }]);
      return images.map((image) => ('pixels' in image ? [...image.pixels] : image.reason));
    };
    const [plain, one, other, again, none] = await made(0);
    expect(one).toEqual(again);
    expect(one).not.toEqual(plain);
    expect(one).not.toEqual(other);
    expect(none).toBe('missing');
    expect(await made(1)).toEqual([plain, one, other, again, none]);
  });

  it('is told from a name', () => {
    expect([box, { make: 'box', files: ['a'] }].map(isImageRecipe)).toEqual([false, true]);
    expect(
      [null, 'a', ['a'], { make: 'cat', files: ['a'] }, { make: 'box', files: [] }].some(isImageRecipe),
    ).toBe(false);
  });
});
