import { add, cast, gelu, multiply, silu } from '../ts/tensor/elementwise.ts';
import type { Dtype } from '../ts/tensor/index.ts';
import type { BenchCase } from './case.ts';
import { bytesOf, opCase } from './op-case.ts';

const shape = [4096, 1024];
const size = 4096 * 1024;
const x = { shape, seed: 1, grad: true };

function cases_(dtype: Dtype): BenchCase[] {
  const two = { x, y: { shape, seed: 2, grad: true } };
  const name = (op: string) => `elementwise/${op}-4096x1024`;
  const other = dtype === 'f32' ? 'bf16' : 'f32';
  return [
    opCase({
      name: name('add'),
      dtype,
      inputs: two,
      peer: 'add',
      bytes: bytesOf(3 * size, dtype),
      compute: (t) => [add(t.x, t.y)],
    }),
    opCase({
      name: name('multiply'),
      dtype,
      pass: 'train',
      inputs: two,
      peer: 'multiply',
      bytes: bytesOf(8 * size, dtype),
      compute: (t) => [multiply(t.x, t.y)],
    }),
    ...(['forward', 'train'] as const).flatMap((pass) => [
      opCase({
        name: name('silu'),
        dtype,
        pass,
        inputs: { x },
        peer: 'silu',
        bytes: bytesOf((pass === 'train' ? 5 : 2) * size, dtype),
        compute: (t) => [silu(t.x)],
      }),
      opCase({
        name: name('gelu'),
        dtype,
        pass,
        inputs: { x },
        peer: 'gelu',
        bytes: bytesOf((pass === 'train' ? 5 : 2) * size, dtype),
        compute: (t) => [gelu(t.x)],
      }),
    ]),
    opCase({
      name: name(`cast-to-${other}`),
      dtype,
      inputs: { x },
      options: { to: other },
      peer: 'cast',
      bytes: 6 * size,
      compute: (t) => [cast(t.x, other)],
    }),
  ];
}

export const cases: BenchCase[] = [...cases_('f32'), ...cases_('bf16')];
