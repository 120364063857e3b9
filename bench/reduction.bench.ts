import type { Dtype } from '../ts/tensor/index.ts';
import { argmax, logSumExp, sum } from '../ts/tensor/reduction.ts';
import type { BenchCase } from './case.ts';
import { bytesOf, opCase } from './op-case.ts';

const shape = [4096, 1024];
const inputs = { x: { shape, seed: 1 } };

function reductions(dtype: Dtype): BenchCase[] {
  const bytes = bytesOf(4096 * 1024, dtype);
  const base = { dtype, inputs, bytes };
  return [
    opCase({
      ...base,
      name: 'reduction/sum-rows-4096x1024',
      options: { axis: 1 },
      peer: 'sum',
      compute: ({ x }) => [sum(x, 1)],
    }),
    opCase({
      ...base,
      name: 'reduction/sum-columns-4096x1024',
      options: { axis: 0 },
      peer: 'sum',
      compute: ({ x }) => [sum(x, 0)],
    }),
    opCase({
      ...base,
      name: 'reduction/logSumExp-4096x1024',
      peer: 'log_sum_exp',
      compute: ({ x }) => [logSumExp(x)],
    }),
    // Equal largest values may give another index on the other side.
    opCase({
      ...base,
      name: 'reduction/argmax-4096x1024',
      peer: 'argmax',
      comparable: false,
      compute: ({ x }) => [argmax(x)],
    }),
  ];
}

export const cases: BenchCase[] = [...reductions('f32'), ...reductions('bf16')];
