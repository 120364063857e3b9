import type { Dtype } from '../ts/tensor/index.ts';
import { cat, gatherRows, transpose } from '../ts/tensor/shape.ts';
import type { BenchCase } from './case.ts';
import { bytesOf, opCase } from './op-case.ts';

const [rows, width] = [4096, 1024];
const x = { shape: [rows, width], seed: 1 };

function moves(dtype: Dtype): BenchCase[] {
  const bytes = bytesOf(2 * rows * width, dtype);
  return [
    opCase({
      name: `shape/transpose-${rows}x${width}`,
      dtype,
      inputs: { x },
      peer: 'transpose',
      bytes,
      compute: (t) => [transpose(t.x)],
    }),
    opCase({
      name: `shape/cat-2x${rows}x${width}`,
      dtype,
      inputs: { x, y: { shape: [rows, width], seed: 2 } },
      peer: 'cat',
      bytes: 2 * bytes,
      compute: (t) => [cat([t.x, t.y], 1)],
    }),
    opCase({
      name: `shape/gatherRows-${rows}x${width}`,
      dtype,
      inputs: { x, index: { shape: [rows], seed: 2, below: rows } },
      peer: 'gather_rows',
      bytes,
      compute: (t) => [gatherRows(t.x, t.index)],
    }),
  ];
}

export const cases: BenchCase[] = [...moves('f32'), ...moves('bf16')];
