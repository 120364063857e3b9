import { interpolate, unfold } from '../ts/tensor/image.ts';
import type { BenchCase } from './case.ts';
import { bytesOf, opCase } from './op-case.ts';

const dtypes = ['f32', 'bf16'] as const;
const passes = ['forward', 'train'] as const;

/** What a multi-scale tower does: images made larger, feature maps made smaller. */
const resizes = [
  { mode: 'bicubic', shape: [2, 3, 224, 224], side: 672 },
  { mode: 'area', shape: [2, 256, 48, 48], side: 16 },
] as const;

export const cases: BenchCase[] = dtypes.flatMap((dtype) =>
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
