import { aloneGroup } from '../ts/distributed/alone.ts';
import { empty } from '../ts/tensor/index.ts';
import type { BenchCase } from './case.ts';
import { input } from './inputs.ts';

// One process has nobody to talk to: what is left is the copy from one tensor to the other, and the name says so. Started as several ranks
// (`libmoe launch --nproc 4 -- libmoe bench collective`), the bench measures collectives instead: collective-ranks.ts.
const group = aloneGroup('cpu', 0);
const size = 4 << 20;

export const cases: readonly BenchCase[] = (['allGather', 'reduceScatter'] as const).map((name) => ({
  name: `collective/${name}-16MiB-copy-of-one-process/f32/forward`,
  flops: 0,
  bytes: 2 * 4 * size,
  setup() {
    const x = input({ shape: [size], seed: 1 }, 'f32');
    const y = empty([size]);
    return {
      run() {
        void group[name](x, y);
      },
      dispose() {
        x.dispose();
        y.dispose();
      },
    };
  },
}));
