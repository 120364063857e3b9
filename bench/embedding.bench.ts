import { embedding } from '../ts/tensor/embedding.ts';
import type { BenchCase } from './case.ts';
import { bytesOf, opCase } from './op-case.ts';

const [vocabulary, d, tokens] = [32000, 512, 4096];

export const cases: BenchCase[] = (['f32', 'bf16'] as const).flatMap((dtype) =>
  (['forward', 'train'] as const).map((pass) =>
    opCase({
      name: `embedding/${tokens}-of-${vocabulary}x${d}`,
      dtype,
      pass,
      inputs: {
        weight: { shape: [vocabulary, d], seed: 1, grad: true },
        ids: { shape: [tokens], seed: 2, below: vocabulary },
      },
      peer: 'embedding',
      // Rows read and written; backward reads their gradients and writes the table's, in f32.
      bytes:
        bytesOf((pass === 'train' ? 3 : 2) * tokens * d, dtype) + (pass === 'train' ? 4 * vocabulary * d : 0),
      compute: ({ weight, ids }) => [embedding(weight, ids)],
    }),
  ),
);
