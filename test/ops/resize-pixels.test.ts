import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { codeOf } from '../../ts/native/index.ts';
import { type PixelFilter, resizePixels } from '../../ts/tensor/resize-pixels.ts';
import { madePixels } from './made-pixels.ts';

type Case = [
  width: number,
  height: number,
  channels: number,
  toWidth: number,
  toHeight: number,
  filter: PixelFilter,
  seed: number,
  sha256: string,
];
const golden: { cases: Case[] } = JSON.parse(
  readFileSync(new URL('../golden/image/resize.json', import.meta.url), 'utf8'),
);

describe('resizePixels', () => {
  it.each(['nearest', 'box', 'bilinear', 'bicubic', 'lanczos'] as const)(
    'gives the bytes of Pillow: %s',
    (name) => {
      const cases = golden.cases.filter(([, , , , , filter]) => filter === name);
      expect(cases.length).toBeGreaterThan(40);
      for (const [width, height, channels, toWidth, toHeight, filter, seed, sha256] of cases) {
        const from = madePixels(width * height * channels, seed);
        const before = from.slice();
        const to = resizePixels(
          from,
          { width, height, channels },
          { width: toWidth, height: toHeight, filter },
        );
        const digest = createHash('sha256').update(to).digest('hex').slice(0, 16);
        expect(digest, `${width} x ${height} x ${channels} → ${toWidth} x ${toHeight}`).toBe(sha256);
        expect(from).toEqual(before);
      }
    },
  );

  it('resizes each channel for itself', () => {
    const [width, height, size] = [19, 23, { width: 8, height: 31, filter: 'bicubic' }] as const;
    for (const channels of [2, 3, 4]) {
      const from = madePixels(width * height * channels, 9);
      const to = resizePixels(from, { width, height, channels }, size);
      for (let c = 0; c < channels; c += 1) {
        const plane = from.filter((_, i) => i % channels === c);
        expect(to.filter((_, i) => i % channels === c)).toEqual(
          resizePixels(plane, { width, height, channels: 1 }, size),
        );
      }
    }
  });

  it('refuses sizes that are none and pixels of another size', () => {
    const codeFrom = (run: () => unknown): unknown => {
      try {
        run();
      } catch (error) {
        return codeOf(error);
      }
      return undefined;
    };
    const pixels = new Uint8Array(12);
    const from = { width: 2, height: 2 };
    const to = { width: 3, height: 3, filter: 'bicubic' } as const;
    expect(resizePixels(pixels, from, to)).toEqual(new Uint8Array(27));
    expect(codeFrom(() => resizePixels(pixels, { width: 2, height: 3 }, to))).toBe('ERR_LIBMOE_SHAPE');
    expect(codeFrom(() => resizePixels(pixels, { ...from, channels: 4 }, to))).toBe('ERR_LIBMOE_SHAPE');
    expect(codeFrom(() => resizePixels(pixels, { ...from, channels: 5 }, to))).toBe('ERR_LIBMOE_ARGUMENT');
    expect(codeFrom(() => resizePixels(pixels, { width: 0, height: 2 }, to))).toBe('ERR_LIBMOE_ARGUMENT');
    for (const wrong of [{ width: 0 }, { height: 1.5 }, { filter: 'cubic' as 'bicubic' }])
      expect(codeFrom(() => resizePixels(pixels, from, { ...to, ...wrong }))).toBe('ERR_LIBMOE_ARGUMENT');
  });
});
