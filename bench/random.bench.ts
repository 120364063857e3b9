import type { Dtype } from '../ts/tensor/index.ts';
import { randn, uniform } from '../ts/tensor/random.ts';
import type { BenchCase } from './case.ts';
import { bytesOf, opCase } from './op-case.ts';

const size = 1 << 22;

// Philox here, Mersenne Twister there: the numbers are not the same, only their distribution.
function draws(dtype: Dtype): BenchCase[] {
  const base = { dtype, inputs: {}, options: { size }, bytes: bytesOf(size, dtype), comparable: false };
  return [
    opCase({
      ...base,
      name: `random/normal-${size}`,
      peer: 'normal',
      compute: () => [randn([size], { seed: 1, dtype })],
    }),
    opCase({
      ...base,
      name: `random/uniform-${size}`,
      peer: 'uniform',
      compute: () => [uniform([size], { seed: 1, dtype })],
    }),
  ];
}

export const cases: BenchCase[] = [...draws('f32'), ...draws('bf16')];
