import { softmax } from '../ts/tensor/softmax.ts';
import type { BenchCase } from './case.ts';
import { bytesOf, opCase } from './op-case.ts';

const [rows, width] = [4096, 1024];

export const cases: BenchCase[] = (['f32', 'bf16'] as const).flatMap((dtype) =>
  (['forward', 'train'] as const).map((pass) =>
    opCase({
      name: `softmax/softmax-${rows}x${width}`,
      dtype,
      pass,
      inputs: { x: { shape: [rows, width], seed: 1, grad: true } },
      peer: 'softmax',
      // x read and y written; backward reads y and dy and writes dx.
      bytes: bytesOf((pass === 'train' ? 5 : 2) * rows * width, dtype),
      compute: ({ x }) => [softmax(x)],
    }),
  ),
);
