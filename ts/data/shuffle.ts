import { streamOf } from '../nn/initialisers.ts';
import { randomPermutation } from '../tensor/random.ts';

/** A permutation of 0…count−1 that depends on `count`, `seed` and `epoch` alone: every epoch has its own Philox stream. */
export function permutation(count: number, seed: number, epoch: number): Int32Array {
  using order = randomPermutation(count, { seed, stream: streamOf(`data/epoch/${epoch}`), device: 'cpu' });
  return order.readSync() as Int32Array;
}
