import { interpolate, unfold } from '../ts/tensor/image.ts';
import { type PixelFilter, resizePixels } from '../ts/tensor/resize-pixels.ts';
import type { BenchCase } from './case.ts';
import { mixed } from './inputs.ts';
import { bytesOf, opCase } from './op-case.ts';

const dtypes = ['f32', 'bf16'] as const;
const passes = ['forward', 'train'] as const;

/** What a multi-scale tower does: images made larger, feature maps made smaller. */
const resizes = [
  { mode: 'bicubic', shape: [2, 3, 224, 224], side: 672 },
  { mode: 'area', shape: [2, 256, 48, 48], side: 16 },
] as const;

/** A photograph to what a tower sees, against Pillow; both on one thread. */
function pixelCase(filter: PixelFilter): BenchCase {
  const [width, height, side, seed] = [640, 480, 224, 1];
  return {
    name: `image/resize-pixels-${width}x${height}-to-${side}/u8/${filter}`,
    flops: 0,
    bytes: 3 * (width * height + side * side),
    tolerance: 0,
    setup() {
      const pixels = Uint8Array.from({ length: 3 * width * height }, (_, i) => mixed(i, seed) & 255);
      const run = () => resizePixels(pixels, { width, height }, { width: side, height: side, filter });
      return { run, results: () => ({ pixels: [...run().subarray(0, 4096)] }), dispose: () => {} };
    },
    peer: {
      script: 'pixels.py',
      request: { what: 'resize', shape: [height, width, 3], seed, to: [side, side], filter },
    },
  };
}

const planes: BenchCase[] = dtypes.flatMap((dtype) =>
  passes.flatMap((pass) => [
    ...resizes.map(({ mode, shape, side }) => {
      const [n, c, h] = shape;
      const elements = n * c * (h * h + side * side);
      return opCase({
        name: `image/${mode}-${n}x${c}x${h}-to-${side}`,
        dtype,
        pass,
        inputs: { x: { shape, seed: 1, grad: true } },
        options: { mode, size: [side, side] },
        peer: 'interpolate',
        bytes: bytesOf((pass === 'train' ? 2 : 1) * elements, dtype),
        compute: ({ x }) => [interpolate(x, { height: side, width: side, mode })],
      });
    }),
    opCase({
      name: 'image/unfold-4x3x224-by-14',
      dtype,
      pass,
      inputs: { x: { shape: [4, 3, 224, 224], seed: 1, grad: true } },
      options: { patch: 14 },
      peer: 'unfold',
      bytes: bytesOf((pass === 'train' ? 4 : 2) * 4 * 3 * 224 * 224, dtype),
      compute: ({ x }) => [unfold(x, 14)],
    }),
  ]),
);

export const cases: BenchCase[] = [...planes, pixelCase('bicubic'), pixelCase('bilinear')];
