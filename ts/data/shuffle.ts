import { streamOf } from '../nn/initialisers.ts';
import { randomPermutation } from '../tensor/random.ts';

/**
 * A permutation of 0…count−1 that depends on `count`, `seed`, `epoch` and `part` alone: every epoch, and every part of an order that draws
 * several, has its own Philox stream.
 */
export function permutation(count: number, seed: number, epoch: number, part = ''): Int32Array {
  if (count === 0) return new Int32Array(0);
  const stream = streamOf(`data/epoch/${epoch}${part === '' ? '' : `/${part}`}`);
  using order = randomPermutation(count, { seed, stream, device: 'cpu' });
  return order.readSync() as Int32Array;
}
