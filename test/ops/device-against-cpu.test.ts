// The same inputs on the default device and on the CPU: sizes that take a device's other paths (rows that a block shares, more rows than the grid, views at any
// address), which the tests of the families leave to it. With the CPU as default device there is nothing to compare.
import { describe, expect, it } from 'vitest';
import { embedding } from '../../ts/tensor/embedding.ts';
import { type Dtype, defaultDevice, scope, type Tensor, tensor } from '../../ts/tensor/index.ts';
import { inverseNorms, layerNorm, rmsNorm } from '../../ts/tensor/norm.ts';
import { bernoulli, randn, randomPermutation, truncatedNormal, uniform } from '../../ts/tensor/random.ts';
import { logSumExp, max, mean, sum } from '../../ts/tensor/reduction.ts';
import { rotary, rotaryTable } from '../../ts/tensor/rotary.ts';
import { logSoftmax, softmax } from '../../ts/tensor/softmax.ts';
import { view } from '../../ts/tensor/tensor.ts';
import { distance, sameBits, values } from './values.ts';

const device = defaultDevice();
if (device === 'cpu') console.log('device-against-cpu: left out, the default device is the CPU');

const tolerance: Partial<Record<Dtype, number>> = { f64: 1e-12, f32: 1e-5, bf16: 2 ** -7 };
const floats = ['f32', 'bf16', 'f64'] as const;

/** A float tensor that begins `offset` elements into its storage, the same values on both devices. */
function make(
  shape: readonly number[],
  seed: number,
  dtype: Dtype,
  on: string,
  { offset = 0, requiresGrad = false } = {},
): Tensor {
  const n = shape.reduce((a, b) => a * b, 1);
  const whole = tensor(values(n + offset, seed), [n + offset], { dtype, device: on as 'cpu' });
  const x = view(whole, shape, offset);
  x.requiresGrad = requiresGrad;
  return x;
}

/** What `run` returns, on both devices; the gradients of the inputs are compared too. */
function compare(dtype: Dtype, run: (on: string) => { results: Tensor[]; inputs: Tensor[] }): void {
  scope(() => {
    const read = (on: string) => {
      const { results, inputs } = run(on);
      const out = results.map((t) => t.toArray());
      for (const t of inputs) {
        out.push(t.grad!.toArray());
        t.grad!.dispose();
        t.grad = undefined;
      }
      return out;
    };
    const expected = read('cpu');
    const actual = read(device);
    const again = read(device);
    actual.forEach((values, i) => {
      expect(distance(values, expected[i]!), `result ${i}`).toBeLessThan(tolerance[dtype]!);
      expect(values, `result ${i}, again`).toEqual(again[i]);
    });
  });
}

const shapes = [
  { rows: 3, width: 2056, offset: 0 },
  { rows: 2, width: 4803, offset: 0 },
  { rows: 27, width: 1100, offset: 1 },
  { rows: 801, width: 24, offset: 0 },
  { rows: 530, width: 3, offset: 1 },
] as const;

describe.runIf(device !== 'cpu')('on a device and on the CPU', () => {
  it.each(floats)('softmax and reductions of rows in %s', (dtype) => {
    for (const { rows, width, offset } of shapes) {
      for (const f of [softmax, logSoftmax, logSumExp]) {
        compare(dtype, (on) => {
          const x = make([rows, width], 1, dtype, on, { offset, requiresGrad: true });
          const y = f(x);
          y.backward(make(y.shape, 2, y.dtype, on));
          return { results: [y], inputs: [x] };
        });
      }
      compare(dtype, (on) => {
        const x = make([rows, width], 1, dtype, on, { offset });
        return { results: [sum(x, 0), sum(x, 1), mean(x), max(x, 0)], inputs: [] };
      });
    }
  });

  it.each(floats)('norms in %s', (dtype) => {
    for (const { rows, width, offset } of shapes) {
      for (const centred of [true, false]) {
        compare(dtype, (on) => {
          const x = make([rows, width], 1, dtype, on, { offset, requiresGrad: true });
          const w = make([width], 2, dtype, on, { requiresGrad: true });
          const b = make([width], 3, dtype, on, { requiresGrad: true });
          const y = centred ? layerNorm(x, w, b) : rmsNorm(x, w);
          y.backward(make(y.shape, 4, dtype, on));
          return { results: [y], inputs: centred ? [x, w, b] : [x, w] };
        });
      }
      compare(dtype, (on) => {
        const x = make([rows, width], 1, dtype, on, { offset, requiresGrad: true });
        const y = inverseNorms(x, { floor: 1e-3, plus: 0.1 });
        y.backward(make(y.shape, 4, y.dtype, on));
        return { results: [y], inputs: [x] };
      });
    }
  });

  it.each(floats)('rotary and embedding in %s', (dtype) => {
    for (const { heads, width, dims, offset } of [
      { heads: 3, width: 48, dims: 32, offset: 0 },
      { heads: 1, width: 48, dims: 32, offset: 1 },
      { heads: 40, width: 82, dims: 40, offset: 0 },
    ]) {
      for (const interleaved of [true, false]) {
        compare(dtype, (on) => {
          const x = make([30, heads, width], 1, dtype, on, { offset, requiresGrad: true });
          const table = rotaryTable({
            dims,
            positions: 90,
            dtype: dtype === 'f64' ? 'f64' : 'f32',
            device: on as 'cpu',
          });
          const at = tensor(
            Int32Array.from({ length: 30 }, (_, i) => (i * 7) % 90),
            [30],
            { device: on as 'cpu' },
          );
          const y = rotary(x, table, at, { interleaved });
          y.backward(make(y.shape, 4, dtype, on));
          return { results: [y], inputs: [x] };
        });
      }
    }
    for (const width of [264, 35]) {
      compare(dtype, (on) => {
        const table = make([300, width], 1, dtype, on, { requiresGrad: true });
        const ids = tensor(
          Int32Array.from({ length: 150 }, (_, i) => (i % 3 ? 299 : i % 256)),
          [150],
          { device: on as 'cpu' },
        );
        const y = embedding(table, ids);
        y.backward(make(y.shape, 4, dtype, on));
        return { results: [y], inputs: [table] };
      });
    }
  });

  it('random numbers: uniform ones, coins and permutations to the bit', () => {
    scope(() => {
      for (const dtype of floats) {
        const both = (
          draw: (options: { seed: number; stream: number; dtype: Dtype; device: 'cpu' }) => Tensor,
        ) => [device, 'cpu'].map((on) => draw({ seed: 77, stream: 3, dtype, device: on as 'cpu' }));
        for (const draw of [
          (o: { seed: number; stream: number; dtype: Dtype; device: 'cpu' }) =>
            uniform([10_007], { ...o, low: -0.3, high: 0.7 }),
          (o: { seed: number; stream: number; dtype: Dtype; device: 'cpu' }) => bernoulli([10_007], 0.3, o),
        ]) {
          const [here, there] = both(draw);
          expect(sameBits(here!.readSync(), there!.readSync())).toBe(true);
        }
        for (const draw of [
          (o: { seed: number; stream: number; dtype: Dtype; device: 'cpu' }) =>
            randn([10_007], { ...o, mean: 0.5 }),
          (o: { seed: number; stream: number; dtype: Dtype; device: 'cpu' }) => truncatedNormal([10_007], o),
        ]) {
          const [here, there] = both(draw);
          expect(distance(here!.toArray(), there!.toArray())).toBeLessThan(dtype === 'bf16' ? 2 ** -8 : 2e-6);
        }
      }
      for (const n of [1, 2, 3, 33, 255, 256, 257, 4097, 70_001])
        for (const seed of [1, 2])
          expect(
            sameBits(
              randomPermutation(n, { seed }).readSync(),
              randomPermutation(n, { seed, device: 'cpu' }).readSync(),
            ),
          ).toBe(true);
    });
  });
});
