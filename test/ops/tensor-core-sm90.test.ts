// What is special in the bf16 products of Hopper (cuda/sm90): tiles of 128 rows by 128 or 256 columns, steps of 64 k that end inside a stage, several tiles for one block, experts
// that end inside a tile, and shapes that go to sm_80's kernels. The expectations hold on every device.
import { afterEach, describe, expect, it } from 'vitest';
import { linear, matmul } from '../../ts/tensor/gemm.ts';
import { groupedFfn } from '../../ts/tensor/grouped_ffn.ts';
import { type Dtype, scope, type Tensor, tensor, view } from '../../ts/tensor/index.ts';
import { dispatchPlan } from '../../ts/tensor/permutation.ts';
import { distance, sameBits, sample, values } from './values.ts';

/** In f64, from what the tensors hold. */
function product(a: Tensor, b: Tensor, transposeA: boolean, transposeB: boolean): Float64Array {
  const [m, k] = transposeA ? [a.shape[1]!, a.shape[0]!] : [a.shape[0]!, a.shape[1]!];
  const n = transposeB ? b.shape[0]! : b.shape[1]!;
  const [x, y] = [Float64Array.from(a.toArray()), Float64Array.from(b.toArray())];
  const out = new Float64Array(m * n);
  for (let i = 0; i < m; i += 1)
    for (let p = 0; p < k; p += 1) {
      const left = x[transposeA ? p * m + i : i * k + p]!;
      for (let j = 0; j < n; j += 1) out[i * n + j]! += left * y[transposeB ? j * k + p : p * n + j]!;
    }
  return out;
}

/** Runs `fn` under several orders of the emulator's threads and copies; elsewhere they are repetitions. */
function inOrders<T>(fn: () => T): T[] {
  return ['', '1', '2', '3'].map((seed) => {
    if (seed) process.env.LIBMOE_EMULATOR_ORDER = seed;
    return fn();
  });
}
afterEach(() => {
  delete process.env.LIBMOE_EMULATOR_ORDER;
});

describe('dense products', () => {
  // Around one and two tiles; k below, at and beyond a stage and the ring; k long enough for tiles of 256 columns; 12 tiles, four for each emulated processor.
  const sizes = [
    [1, 8, 8],
    [64, 128, 64],
    [65, 120, 72],
    [129, 136, 200],
    [70, 248, 584],
    [130, 264, 136],
    [400, 300, 72],
  ] as const;
  for (const [ta, tb] of [
    [false, true],
    [false, false],
    [true, false],
    [true, true],
  ] as const)
    it(`are sums of products (${ta ? 'a' : ''}${tb ? 'b' : ''} transposed)`, () => {
      for (const [m, n, k] of sizes)
        scope(() => {
          const a = sample(ta ? [k, m] : [m, k], 1, 'bf16');
          const b = sample(tb ? [n, k] : [k, n], 2, 'bf16');
          const c = matmul(a, b, { transposeA: ta, transposeB: tb }).toArray();
          expect(distance(c, product(a, b, ta, tb)), `${m} ${n} ${k}`).toBeLessThan(8e-3);
        });
    });

  it('take rows of any length and any address', () => {
    for (const [m, n, k] of [
      [40, 51, 64], // columns that end inside 16 bytes
      [40, 48, 60], // rows that the copy engine cannot take
      [70, 130, 129],
    ] as const)
      scope(() => {
        const a = sample([m + 1, k], 1, 'bf16');
        const b = sample([n, k], 2, 'bf16');
        const bias = sample([n], 3, 'bf16');
        const odd = view(sample([m * k + 3], 4, 'bf16'), [m, k], 3);
        for (const x of [view(a, [m, k], k), odd]) {
          const added = bias.toArray();
          const expected = product(x, b, false, true).map((v, i) => v + added[i % n]!);
          expect(distance(linear(x, b, bias).toArray(), expected), `${m} ${n} ${k}`).toBeLessThan(8e-3);
        }
      });
  });

  it('give a row the same bits alone and among others, in any order of events', () => {
    for (const k of [264, 584])
      scope(() => {
        const a = sample([150, k], 1, 'bf16');
        const b = sample([248, k], 2, 'bf16');
        const all = inOrders(() => matmul(a, b, { transposeB: true }));
        for (const again of all) expect(sameBits(again.readSync(), all[0]!.readSync())).toBe(true);
        for (const row of [0, 63, 64, 128, 149])
          expect(
            sameBits(
              matmul(view(a, [1, k], row * k), b, { transposeB: true }).readSync(),
              view(all[0]!, [1, 248], row * 248).readSync(),
            ),
            `row ${row}`,
          ).toBe(true);
      });
  });
});

describe('products of experts', () => {
  /** Rows per expert, and the sizes of a layer. */
  interface Case {
    rows: number[];
    d: number;
    hidden: number;
    gated: boolean;
  }
  const cases: Record<string, Case> = {
    'experts that end at, before and behind a tile': {
      rows: [100, 0, 1, 140, 129, 128],
      d: 72,
      hidden: 40,
      gated: true,
    },
    'few rows each': { rows: [3, 16, 17, 0, 9, 1, 5], d: 136, hidden: 136, gated: false },
    'tiles of 256 columns': { rows: [66, 3], d: 744, hidden: 120, gated: true },
    'rows the copy engine cannot take': { rows: [70, 61], d: 44, hidden: 36, gated: true },
  };

  /** Output and gradients of the layer whose values are those of bf16 tensors, computed in `dtype`. */
  function layer(c: Case, dtype: Dtype) {
    return scope(() => {
      const full = c.gated ? 2 * c.hidden : c.hidden;
      const tokens = c.rows.reduce((a, b) => a + b, 0);
      const of = (shape: number[], seed: number, scale: number, requiresGrad = true) => {
        const drawn = values(
          shape.reduce((a, b) => a * b, 1),
          seed,
        ).map((v) => v * scale);
        return tensor(tensor(drawn, shape, { dtype: 'bf16' }).toArray(), shape, { dtype, requiresGrad });
      };
      // Each token has one expert, and they come shuffled.
      const experts = c.rows.flatMap((count, e) => new Array<number>(count).fill(e));
      const choices = experts.map((_, i) => experts[(i * 389) % tokens]!);
      const x = of([tokens, c.d], 1, 1);
      const weights = tensor(values(tokens, 2), [tokens, 1], {
        dtype: dtype === 'f64' ? 'f64' : 'f32',
        requiresGrad: true,
      });
      const up = of([c.rows.length, full, c.d], 3, 1 / Math.sqrt(c.d));
      const upBias = of([c.rows.length, full], 4, 0.3);
      const down = of([c.rows.length, c.d, c.hidden], 5, 1 / Math.sqrt(c.hidden));
      const downBias = of([c.rows.length, c.d], 6, 0.3);
      const plan = dispatchPlan(tensor(Int32Array.from(choices), [tokens, 1]), { experts: c.rows.length });
      const out = groupedFfn(
        x,
        plan,
        weights,
        { up, upBias, down, downBias },
        { activation: 'silu', gated: c.gated },
      );
      out.backward(of([tokens, c.d], 8, 1, false));
      return [
        out.toArray(),
        ...[x, weights, up, upBias, down, downBias].map((t) => {
          const g = t.grad!;
          const numbers = g.toArray();
          g.dispose();
          return numbers;
        }),
      ];
    });
  }

  for (const [name, c] of Object.entries(cases))
    it(`agree with f64: ${name}`, () => {
      const exact = layer(c, 'f64');
      layer(c, 'bf16').forEach((got, i) => {
        expect(distance(got, exact[i]!), `output, x, weights, up, upBias, down, downBias: ${i}`).toBeLessThan(
          3e-2,
        );
      });
    });

  it('have the same bits in any order of events', () => {
    const c: Case = { rows: [70, 0, 129, 1], d: 72, hidden: 40, gated: true };
    const all = inOrders(() => layer(c, 'bf16'));
    for (const again of all)
      for (const [i, got] of again.entries())
        expect(sameBits(Float64Array.from(got), Float64Array.from(all[0]![i]!)), `${i}`).toBe(true);
  });
});
