import { rotary } from '../ts/tensor/rotary.ts';
import type { BenchCase } from './case.ts';
import { bytesOf, opCase } from './op-case.ts';

const [tokens, heads, width] = [2048, 16, 64];

export const cases: BenchCase[] = (['f32', 'bf16'] as const).flatMap((dtype) =>
  (['forward', 'train'] as const).map((pass) =>
    opCase({
      name: `rotary/${tokens}x${heads}x${width}`,
      dtype,
      pass,
      inputs: {
        x: { shape: [tokens, heads, width], seed: 1, grad: true },
        // Any numbers do: that they are cosines and sines does not change the work.
        cos: { shape: [tokens, width / 2], seed: 2, dtype: 'f32' },
        sin: { shape: [tokens, width / 2], seed: 3, dtype: 'f32' },
        positions: { shape: [tokens], seed: 0, values: Array.from({ length: tokens }, (_, i) => i) },
      },
      peer: 'rotary',
      bytes: bytesOf((pass === 'train' ? 4 : 2) * tokens * heads * width, dtype),
      compute: ({ x, cos, sin, positions }) => [rotary(x, { cos, sin }, positions)],
    }),
  ),
);
