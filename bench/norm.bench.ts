import type { Dtype } from '../ts/tensor/index.ts';
import { layerNorm, rmsNorm } from '../ts/tensor/norm.ts';
import type { BenchCase } from './case.ts';
import { bytesOf, opCase } from './op-case.ts';

const [rows, width, epsilon] = [4096, 1024, 1e-5];

function norm(kind: 'rmsNorm' | 'layerNorm', dtype: Dtype, pass: 'forward' | 'train'): BenchCase {
  return opCase({
    name: `norm/${kind}-${rows}x${width}`,
    dtype,
    pass,
    inputs: {
      x: { shape: [rows, width], seed: 1, grad: true },
      weight: { shape: [width], seed: 2, grad: true },
      ...(kind === 'layerNorm' && { bias: { shape: [width], seed: 3, grad: true } }),
    } as Record<'x' | 'weight' | 'bias', { shape: number[]; seed: number; grad: true }>,
    options: { epsilon },
    peer: kind === 'rmsNorm' ? 'rms_norm' : 'layer_norm',
    // x read and y written; backward reads x and dy and writes dx.
    bytes: bytesOf((pass === 'train' ? 5 : 2) * rows * width, dtype),
    compute: ({ x, weight, bias }) => [
      kind === 'rmsNorm' ? rmsNorm(x, weight, epsilon) : layerNorm(x, weight, bias, epsilon),
    ],
  });
}

export const cases: BenchCase[] = (['f32', 'bf16'] as const).flatMap((dtype) =>
  (['rmsNorm', 'layerNorm'] as const).flatMap((kind) => [
    norm(kind, dtype, 'forward'),
    norm(kind, dtype, 'train'),
  ]),
);
