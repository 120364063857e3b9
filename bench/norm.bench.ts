import type { Dtype } from '../ts/tensor/index.ts';
import { layerNorm, rmsNorm } from '../ts/tensor/norm.ts';
import type { BenchCase } from './case.ts';
import type { InputSpec } from './inputs.ts';
import { bytesOf, opCase } from './op-case.ts';

const [width, epsilon] = [1024, 1e-5];

function norm(
  kind: 'rmsNorm' | 'layerNorm',
  dtype: Dtype,
  pass: 'forward' | 'train',
  rows = 4096,
): BenchCase {
  const vector = { shape: [width], grad: true };
  const inputs: Record<string, InputSpec> = {
    x: { shape: [rows, width], seed: 1, grad: true },
    weight: { ...vector, seed: 2 },
    ...(kind === 'layerNorm' && { bias: { ...vector, seed: 3 } }),
  };
  return opCase({
    name: `norm/${kind}-${rows}x${width}`,
    dtype,
    pass,
    inputs,
    options: { epsilon },
    // PyTorch sums the bf16 gradients of LayerNorm's weight and bias in bf16.
    ...(kind === 'layerNorm' && dtype === 'bf16' && { tolerance: 0.1 }),
    peer: kind === 'rmsNorm' ? 'rms_norm' : 'layer_norm',
    // x read and y written; backward reads x and dy and writes dx.
    bytes: bytesOf((pass === 'train' ? 5 : 2) * rows * width, dtype),
    compute: ({ x, weight, bias }) => [
      kind === 'rmsNorm' ? rmsNorm(x!, weight!, epsilon) : layerNorm(x!, weight!, bias, epsilon),
    ],
  });
}

export const cases: BenchCase[] = (['f32', 'bf16'] as const).flatMap((dtype) =>
  (['rmsNorm', 'layerNorm'] as const).flatMap((kind) => [
    norm(kind, dtype, 'forward'),
    norm(kind, dtype, 'train'),
    // Larger than a GPU's L2 cache.
    { ...norm(kind, dtype, 'forward', 131072), gpuOnly: true },
    { ...norm(kind, dtype, 'train', 131072), gpuOnly: true },
  ]),
);
