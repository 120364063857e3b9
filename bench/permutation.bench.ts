import { dispatchPlan } from '../ts/tensor/permutation.ts';
import type { BenchCase } from './case.ts';
import { opCase } from './op-case.ts';

function plan(tokens: number, experts: number, topK: number): BenchCase {
  return opCase({
    name: `permutation/plan-${tokens}x${topK}-of-${experts}`,
    dtype: 'f32',
    inputs: { choices: { shape: [tokens, topK], seed: 1, below: experts } },
    options: { experts },
    peer: 'dispatch_plan',
    // Choices read, sorted rows and the inverse written.
    bytes: 4 * 3 * tokens * topK,
    compute({ choices }) {
      const { rows, offsets, inverse } = dispatchPlan(choices, { experts });
      return [rows, offsets, inverse];
    },
  });
}

export const cases: BenchCase[] = [plan(4096, 8, 2), plan(2048, 64, 8)];
