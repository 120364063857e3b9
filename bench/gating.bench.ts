import { gate } from '../ts/tensor/gating.ts';
import type { BenchCase } from './case.ts';
import { opCase } from './op-case.ts';

function gating(tokens: number, experts: number, topK: number, pass: 'forward' | 'train'): BenchCase {
  return opCase({
    name: `gating/softmax-${tokens}x${experts}-top${topK}`,
    dtype: 'f32',
    pass,
    inputs: { logits: { shape: [tokens, experts], seed: 1, grad: true } },
    options: { topK },
    peer: 'gate',
    // Logits read, weights and choices written; backward reads logits and weights' gradients again and writes the logits' gradients.
    bytes: 4 * tokens * (pass === 'train' ? 3 * experts + 4 * topK : experts + 2 * topK),
    compute({ logits }) {
      const { weights, probabilitySums } = gate(logits, { topK });
      return [weights, probabilitySums];
    },
  });
}

export const cases: BenchCase[] = (['forward', 'train'] as const).flatMap((pass) => [
  gating(4096, 8, 2, pass),
  gating(2048, 64, 8, pass),
]);
