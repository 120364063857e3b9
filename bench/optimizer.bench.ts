import { adamwStep } from '../ts/tensor/optimizer.ts';
import type { BenchCase } from './case.ts';
import { opCase } from './op-case.ts';

const [tensors, size] = [16, 1 << 20];
const kinds = ['parameter', 'gradient', 'first', 'second'] as const;
const list = (kind: (typeof kinds)[number]) => Array.from({ length: tensors }, (_, i) => `${kind}${i}`);
// Moments start at zero.
const inputs = Object.fromEntries(
  kinds.flatMap((kind, k) =>
    list(kind).map((name, i) => [name, { shape: [size], seed: k * tensors + i, scale: k < 2 ? 1 : 0 }]),
  ),
);
let step = 0;

export const cases: BenchCase[] = [
  opCase({
    name: `optimizer/adamw-${tensors}x${size}`,
    dtype: 'f32',
    inputs,
    options: { tensors },
    peer: 'adamw',
    // Parameter, gradient and two moments read, all but the gradient written.
    bytes: 7 * 4 * tensors * size,
    comparable: false, // every call goes on from the one before
    compute(given) {
      const of = (kind: (typeof kinds)[number]) => list(kind).map((name) => given[name]!);
      step += 1;
      adamwStep(
        {
          parameters: of('parameter'),
          gradients: of('gradient'),
          firstMoments: of('first'),
          secondMoments: of('second'),
        },
        { learningRate: 1e-3, weightDecay: 0.1, step },
      );
      return [];
    },
  }),
];
