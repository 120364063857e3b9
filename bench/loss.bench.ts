import { linearCrossEntropy } from '../ts/tensor/loss.ts';
import type { BenchCase } from './case.ts';
import { bytesOf, opCase } from './op-case.ts';

const [tokens, d, vocabulary] = [1024, 512, 32000];

export const cases: BenchCase[] = (['f32', 'bf16'] as const).flatMap((dtype) =>
  (['forward', 'train'] as const).map((pass) =>
    opCase({
      name: `loss/linearCrossEntropy-${tokens}x${d}x${vocabulary}`,
      dtype,
      pass,
      inputs: {
        hidden: { shape: [tokens, d], seed: 1, grad: true },
        weight: { shape: [vocabulary, d], seed: 2, scale: 1 / Math.sqrt(d), grad: true },
        targets: { shape: [tokens], seed: 3, below: vocabulary },
      },
      peer: 'linear_cross_entropy',
      flops: (pass === 'train' ? 6 : 2) * tokens * d * vocabulary,
      // Weights and inputs read; training writes their gradients, the weights' in f32.
      bytes:
        bytesOf((tokens + vocabulary) * d, dtype) +
        (pass === 'train' ? bytesOf(tokens * d, dtype) + 4 * vocabulary * d : 0),
      compute: ({ hidden, weight, targets }) => [linearCrossEntropy(hidden, weight, undefined, targets)],
    }),
  ),
);
