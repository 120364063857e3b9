import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { codeOf } from '../../ts/native/index.ts';
import { type InterpolateOptions, interpolate, unfold } from '../../ts/tensor/image.ts';
import { scope, tensor, zeros } from '../../ts/tensor/index.ts';
import { gradientCheck } from './gradient-check.ts';
import { distance, sameBits, sample, withThreads } from './values.ts';

interface Golden {
  shape: [number, number, number, number];
  size: [number, number];
  mode: InterpolateOptions['mode'];
}
const golden = <T>(name: string): (Golden & T)[] =>
  JSON.parse(readFileSync(new URL(`../golden/image/${name}`, import.meta.url), 'utf8'));
const small = golden<{ y: number[]; dx: number[] }>('interpolate.json');
const large = golden<{ at: number[]; y: number[] }>('interpolate-large.json');
const modes = ['bilinear', 'bicubic', 'area'] as const;
const codeFrom = (run: () => unknown): unknown => {
  try {
    run();
  } catch (error) {
    return codeOf(error);
  }
  return undefined;
};

describe('interpolate', () => {
  for (const [dtype, tolerance] of [
    ['f64', 1e-12],
    ['f32', 1e-6],
    ['bf16', 2 ** -7],
  ] as const) {
    it(`agrees with PyTorch in ${dtype}, forward and backward`, () => {
      for (const { shape, size, mode, y, dx } of small) {
        scope(() => {
          const name = `${mode} ${shape} → ${size}`;
          const x = sample(shape, 1, dtype, true);
          const out = interpolate(x, { height: size[0], width: size[1], mode });
          expect(out.dtype).toBe(dtype);
          expect(out.shape).toEqual([shape[0], shape[1], ...size]);
          expect(distance(out.toArray(), y), name).toBeLessThan(tolerance);
          out.backward(sample(out.shape, 2, dtype));
          expect(distance(x.grad!.toArray(), dx), name).toBeLessThan(tolerance);
          x.grad!.dispose();
        });
      }
    });
  }

  it('agrees with PyTorch in f32 at the sizes of towers, whose positions are rounded as there', () => {
    for (const { shape, size, mode, at, y } of large) {
      scope(() => {
        const out = interpolate(sample(shape, 3, 'f32'), { height: size[0], width: size[1], mode }).toArray();
        expect(
          distance(
            at.map((i) => out[i]!),
            y,
          ),
          `${mode} ${shape} → ${size}`,
        ).toBeLessThan(1e-6);
      });
    }
  });

  it.each(modes)('has a gradient: %s', (mode) => {
    for (const [h, w, height, width] of [
      [3, 5, 7, 4],
      [4, 3, 4, 9],
      [1, 1, 2, 3],
      [5, 4, 1, 1],
    ] as const) {
      scope(() =>
        gradientCheck(
          (x) => interpolate(x!, { height, width, mode }),
          [sample([2, 2, h, w], 1, 'f64', true)],
        ),
      );
    }
  });

  it('leaves an image of its size as it is, and spreads a NaN no further than its weight', () => {
    scope(() => {
      const x = sample([1, 2, 5, 6], 1, 'f32');
      for (const mode of modes)
        expect(sameBits(interpolate(x, { height: 5, width: 6, mode }).readSync(), x.readSync())).toBe(true);
      const hole = tensor([1, Number.NaN, 3, 4, 5, 6, 7, 8, 9], [1, 1, 1, 9]);
      expect(interpolate(hole, { height: 1, width: 3, mode: 'area' }).toArray()).toEqual([Number.NaN, 5, 8]);
    });
  });

  it('takes rows longer than a block keeps, sides of one, and no images', () => {
    scope(() => {
      // The mean of a plane, of a row of 9,001: by the definition.
      const x = sample([2, 1, 1, 9001], 4, 'f64');
      const values = x.toArray();
      const mean = (from: number, to: number) =>
        values.slice(from, to).reduce((a, b) => a + b, 0) / (to - from);
      const y = interpolate(x, { height: 1, width: 1, mode: 'area' }).toArray();
      expect(distance(y, [mean(0, 9001), mean(9001, 18002)])).toBeLessThan(1e-12);
      const wide = interpolate(x, { height: 3, width: 700, mode: 'area' }).toArray();
      const bounds = (o: number) =>
        [Math.floor((o * 9001) / 700), Math.ceil(((o + 1) * 9001) / 700)] as const;
      const row = Array.from({ length: 700 }, (_, o) => mean(...bounds(o)));
      expect(distance(wide.slice(700, 1400), row)).toBeLessThan(1e-12);
      const grown = interpolate(tensor([2, -1], [1, 2, 1, 1]), { height: 3, width: 600, mode: 'bicubic' });
      expect(
        distance(grown.toArray(), [...new Array(1800).fill(2), ...new Array(1800).fill(-1)]),
      ).toBeLessThan(1e-6);
      expect(interpolate(zeros([0, 3, 2, 2]), { height: 4, width: 4, mode: 'bicubic' }).shape).toEqual([
        0, 3, 4, 4,
      ]);
    });
  });

  it('gives the same bits with one thread and two, and whatever lies beside an image', () => {
    scope(() => {
      for (const mode of modes) {
        const run = (planes: number) => {
          const x = sample([planes, 3, 37, 41], 5, 'f32', true);
          const y = interpolate(x, { height: 53, width: 19, mode });
          y.backward(sample(y.shape, 6, 'f32'));
          const bits = [y.readSync(), x.grad!.readSync()];
          x.grad!.dispose();
          return bits;
        };
        const one = withThreads(1, () => run(4));
        const two = withThreads(2, () => run(4));
        const alone = run(1);
        one.forEach((bits, i) => {
          expect(sameBits(bits, two[i]!)).toBe(true);
          expect(sameBits(bits.subarray(0, alone[i]!.length) as typeof bits, alone[i]!)).toBe(true);
        });
      }
    });
  });

  it('refuses what is no image, no size, no mode', () => {
    scope(() => {
      const x = zeros([1, 2, 3, 4]);
      const size = { height: 2, width: 2 };
      expect(codeFrom(() => interpolate(zeros([2, 3]), { ...size, mode: 'area' }))).toBe('ERR_LIBMOE_SHAPE');
      expect(codeFrom(() => interpolate(x, { height: 0, width: 2, mode: 'area' }))).toBe(
        'ERR_LIBMOE_ARGUMENT',
      );
      expect(codeFrom(() => interpolate(x, { height: 2.5, width: 2, mode: 'area' }))).toBe(
        'ERR_LIBMOE_ARGUMENT',
      );
      expect(codeFrom(() => interpolate(x, { ...size, mode: 'cubic' as 'bicubic' }))).toBe(
        'ERR_LIBMOE_ARGUMENT',
      );
      expect(codeFrom(() => interpolate(zeros([1, 1, 0, 4]), { ...size, mode: 'area' }))).toBe(
        'ERR_LIBMOE_SHAPE',
      );
      const whole = tensor(new Int32Array(4), [1, 1, 2, 2]);
      expect(codeFrom(() => interpolate(whole, { ...size, mode: 'area' }))).toBe('ERR_LIBMOE_DTYPE');
    });
  });
});

/** Patches by the definition. */
function patches(x: readonly number[], [n, c, h, w]: readonly number[], p: number): number[] {
  const out: number[] = [];
  for (let i = 0; i < n!; i += 1)
    for (let r = 0; r + p <= h!; r += p)
      for (let s = 0; s + p <= w!; s += p)
        for (let k = 0; k < c!; k += 1)
          for (let a = 0; a < p; a += 1)
            for (let b = 0; b < p; b += 1) out.push(x[((i * c! + k) * h! + r + a) * w! + s + b]!);
  return out;
}

describe('unfold', () => {
  it.each(['f32', 'bf16', 'f64'] as const)('cuts %s images into patches', (dtype) => {
    for (const [shape, p] of [
      [[2, 3, 8, 12], 4],
      [[1, 3, 28, 28], 14],
      [[2, 1, 5, 7], 2],
      [[1, 2, 3, 3], 1],
      [[1, 3, 29, 30], 14],
      [[1, 4, 6, 6], 6],
    ] as const) {
      scope(() => {
        const x = sample(shape, 1, dtype);
        const y = unfold(x, p);
        expect(y.shape).toEqual([
          shape[0] * Math.floor(shape[2] / p) * Math.floor(shape[3] / p),
          shape[1] * p * p,
        ]);
        expect(y.toArray()).toEqual(patches(x.toArray(), shape, p));
      });
    }
  });

  it('has a gradient, 0 for what no patch covers', () => {
    for (const [shape, p] of [
      [[2, 2, 4, 6], 2],
      [[1, 2, 5, 7], 3],
    ] as const)
      scope(() => gradientCheck((x) => unfold(x!, p), [sample(shape, 1, 'f64', true)]));
  });

  it('refuses what is no image and a patch that does not fit', () => {
    scope(() => {
      expect(codeFrom(() => unfold(zeros([3, 4, 4]), 2))).toBe('ERR_LIBMOE_SHAPE');
      for (const p of [0, 5, 1.5])
        expect(codeFrom(() => unfold(zeros([1, 3, 4, 8]), p))).toBe('ERR_LIBMOE_ARGUMENT');
    });
  });
});
