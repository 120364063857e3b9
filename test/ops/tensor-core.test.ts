// The bf16 products where tiles, pipelines and ragged experts matter, against the CPU's f64 on the same numbers. Seeds are new at every run; a failure names its own.
import { describe, expect, it } from 'vitest';
import { linear, matmul } from '../../ts/tensor/gemm.ts';
import { type ExpertActivation, expertActivations, groupedFfn } from '../../ts/tensor/grouped_ffn.ts';
import {
  type DeviceName,
  type Dtype,
  defaultDevice,
  noGrad,
  scope,
  type Tensor,
  tensor,
  view,
} from '../../ts/tensor/index.ts';
import { type DispatchOptions, dispatchPlan } from '../../ts/tensor/permutation.ts';
import { distance, sameBits, values } from './values.ts';

const seed = Math.floor(Math.random() * 1e6);
const size = (shape: readonly number[]) => shape.reduce((a, b) => a * b, 1);

/** Numbers that bf16 holds exactly, so that both devices and dtypes start from the same. */
function numbers(shape: readonly number[], salt: number, scale = 1): Float64Array {
  return scope(() => {
    const drawn = values(size(shape), seed + salt).map((v) => v * scale);
    return Float64Array.from(tensor(drawn, shape, { dtype: 'bf16', device: 'cpu' }).toArray());
  });
}

describe(`bf16 matrix products (seed ${seed})`, () => {
  const transposes = [
    [false, true],
    [false, false],
    [true, false],
    [true, true],
  ] as const;
  // Rows for every height of tile, sizes that are multiples of 8 (whole pieces of 16 bytes) and not, several stages of k and less than one.
  for (const [m, n, k] of [
    [5, 136, 200],
    [40, 264, 8],
    [200, 72, 168],
    [400, 136, 72],
    [130, 131, 67],
    [1, 412, 412],
  ] as const)
    it(`${m} x ${n} x ${k}, whatever is stored transposed, is the sum of products`, () => {
      for (const [ta, tb] of transposes)
        scope(() => {
          const a = numbers(ta ? [k, m] : [m, k], 1);
          const b = numbers(tb ? [n, k] : [k, n], 2);
          const on = (dtype: Dtype, device: DeviceName) =>
            matmul(
              tensor(a, ta ? [k, m] : [m, k], { dtype, device }),
              tensor(b, tb ? [n, k] : [k, n], { dtype, device }),
              { transposeA: ta, transposeB: tb },
            ).toArray();
          expect(distance(on('bf16', defaultDevice()), on('f64', 'cpu')), `${ta} ${tb}`).toBeLessThan(4e-3);
        });
    });

  it('takes batches', () => {
    scope(() => {
      const [a, b] = [numbers([3, 70, 48], 3), numbers([3, 56, 48], 4)];
      const on = (dtype: Dtype, device: DeviceName) =>
        matmul(tensor(a, [3, 70, 48], { dtype, device }), tensor(b, [3, 56, 48], { dtype, device }), {
          transposeB: true,
        }).toArray();
      expect(distance(on('bf16', defaultDevice()), on('f64', 'cpu'))).toBeLessThan(4e-3);
    });
  });

  it('adds biases, adds to gradients in f32, and gives a row the same bits in every tile', () => {
    scope(() => {
      const [rows, inner, out] = [300, 104, 264];
      const [x, w, b, dy] = [[rows, inner], [out, inner], [out], [rows, out]].map((s, i) =>
        numbers(s, 5 + i),
      );
      const on = (dtype: Dtype, device: DeviceName) => {
        const leaf = (data: Float64Array, shape: number[]) =>
          tensor(data, shape, { dtype, device, requiresGrad: true });
        const [tx, tw, tb] = [leaf(x!, [rows, inner]), leaf(w!, [out, inner]), leaf(b!, [out])];
        const start = tensor(dy!, [rows, out], { dtype, device });
        const y = linear(tx, tw, tb);
        linear(tx, tw, tb).backward(start);
        y.backward(start);
        const grads = [tx, tw, tb].map((t) => {
          const g = t.grad!.toArray();
          t.grad!.dispose();
          return g;
        });
        return { y, tx, tw, tb, grads };
      };
      const [got, exact] = [on('bf16', defaultDevice()), on('f64', 'cpu')];
      expect(distance(got.y.toArray(), exact.y.toArray())).toBeLessThan(4e-3);
      // dx is bf16 and added up from two halves; the weights' gradients are f32.
      for (const [i, tolerance] of [1e-2, 1e-5, 1e-5].entries())
        expect(distance(got.grads[i]!, exact.grads[i]!), `gradient ${i}`).toBeLessThan(tolerance);
      for (const count of [1, 16, 17, 64, 65])
        for (const first of [0, rows - count]) {
          const few = noGrad(() => linear(view(got.tx, [count, inner], first * inner), got.tw, got.tb));
          expect(
            sameBits(few.readSync(), view(got.y, [count, out], first * out).readSync()),
            `${count} rows`,
          ).toBe(true);
        }
    });
  });

  it('has long inner sizes in wide tiles, of the same bits as narrow ones', () => {
    scope(() => {
      const [rows, inner, out] = [700, 1032, 264];
      const [x, w] = [numbers([rows, inner], 20), numbers([out, inner], 21)];
      const on = (dtype: Dtype, device: DeviceName, count: number) => {
        const a = tensor(x.subarray((rows - count) * inner), [count, inner], { dtype, device });
        return linear(a, tensor(w, [out, inner], { dtype, device }));
      };
      const all = on('bf16', defaultDevice(), rows);
      expect(distance(all.toArray(), on('f64', 'cpu', rows).toArray())).toBeLessThan(4e-3);
      expect(
        sameBits(on('bf16', defaultDevice(), 9).readSync(), view(all, [9, out], (rows - 9) * out).readSync()),
      ).toBe(true);
    });
  });
});

interface Case {
  tokens: number;
  d: number;
  hidden: number;
  experts: number;
  topK: number;
  gated?: boolean;
  activation?: ExpertActivation;
  bias?: boolean;
  choice?: (token: number, j: number) => number;
  capacity?: number;
}

/** Output and all gradients of a layer, the first `tokens` tokens of the case. */
function layer(c: Case, dtype: Dtype, device: DeviceName, tokens = c.tokens) {
  const { d, hidden, experts, topK, gated = true, activation = 'silu', bias = true, capacity } = c;
  const full = gated ? 2 * hidden : hidden;
  const choice =
    c.choice ?? ((t: number, j: number) => (t * 7 + j * (1 + (t % Math.max(1, experts - 1)))) % experts);
  return scope(() => {
    const leaf = (shape: number[], salt: number, scale = 1) =>
      tensor(numbers(shape, salt, scale), shape, { dtype, device, requiresGrad: true });
    const wide = { dtype: dtype === 'f64' ? 'f64' : 'f32', device } as const;
    const x = tensor(numbers([c.tokens, d], 30).subarray(0, tokens * d), [tokens, d], {
      dtype,
      device,
      requiresGrad: true,
    });
    const weights = tensor(numbers([c.tokens, topK], 31).subarray(0, tokens * topK), [tokens, topK], {
      ...wide,
      requiresGrad: true,
    });
    const up = leaf([experts, full, d], 32, 1 / Math.sqrt(d));
    const down = leaf([experts, d, hidden], 33, 1 / Math.sqrt(hidden));
    const upBias = bias ? leaf([experts, full], 34, 0.3) : undefined;
    const downBias = bias ? leaf([experts, d], 35, 0.3) : undefined;
    const chosen = Int32Array.from({ length: tokens * topK }, (_, i) =>
      choice(Math.floor(i / topK), i % topK),
    );
    const options: DispatchOptions = capacity === undefined ? { experts } : { experts, capacity };
    const plan = dispatchPlan(tensor(chosen, [tokens, topK], { device }), options);
    const out = groupedFfn(x, plan, weights, { up, upBias, down, downBias }, { activation, gated });
    out.backward(tensor(numbers([c.tokens, d], 36).subarray(0, tokens * d), [tokens, d], { dtype, device }));
    const read = (t: Tensor) => ({ numbers: t.toArray(), raw: t.readSync() });
    const result: Record<string, ReturnType<typeof read>> = { out: read(out) };
    for (const [name, t] of Object.entries({ x, weights, up, down, upBias, downBias })) {
      if (!t) continue;
      result[name] = read(t.grad!);
      t.grad!.dispose();
    }
    return result;
  });
}

describe(`bf16 expert layers (seed ${seed})`, () => {
  const cases: Record<string, Case> = {
    'many rows per expert': { tokens: 210, d: 64, hidden: 72, experts: 2, topK: 1 },
    'some rows per expert': {
      tokens: 60,
      d: 40,
      hidden: 136,
      experts: 3,
      topK: 2,
      gated: false,
      activation: 'relu',
    },
    'few rows per expert': { tokens: 9, d: 48, hidden: 200, experts: 4, topK: 2, bias: false },
    'one token': { tokens: 1, d: 32, hidden: 32, experts: 8, topK: 2 },
    'every expert for every token': {
      tokens: 12,
      d: 32,
      hidden: 24,
      experts: 5,
      topK: 5,
      choice: (_, j) => j,
    },
    'most experts empty': {
      tokens: 150,
      d: 32,
      hidden: 40,
      experts: 9,
      topK: 1,
      choice: (t) => (t < 149 ? 4 : 8),
    },
    'd that is no multiple of 8': { tokens: 30, d: 412, hidden: 24, experts: 3, topK: 2 },
    'hidden that is no multiple of 8': { tokens: 30, d: 24, hidden: 412, experts: 3, topK: 2 },
    'sizes that are multiples of nothing': { tokens: 131, d: 37, hidden: 67, experts: 1, topK: 1 },
    '66 experts, 8 of them per token': { tokens: 20, d: 24, hidden: 16, experts: 66, topK: 8, gated: false },
    'choices dropped by capacity': { tokens: 80, d: 32, hidden: 24, experts: 3, topK: 2, capacity: 21 },
    'nobody chosen': { tokens: 3, d: 16, hidden: 8, experts: 2, topK: 2, choice: () => -1 },
  };
  for (const [name, c] of Object.entries(cases))
    it(`agree with f64, and with themselves: ${name}`, () => {
      const got = layer(c, 'bf16', defaultDevice());
      const exact = layer(c, 'f64', 'cpu');
      for (const [part, { numbers: found }] of Object.entries(got))
        expect(distance(found, exact[part]!.numbers), part).toBeLessThan(3e-2);
      const again = layer(c, 'bf16', defaultDevice());
      for (const [part, { raw }] of Object.entries(got))
        expect(sameBits(raw, again[part]!.raw), part).toBe(true);
    });

  it('know every activation', () => {
    for (const activation of expertActivations)
      for (const gated of activation === 'clamped_swiglu' ? [true] : [true, false]) {
        const c: Case = { tokens: 6, d: 16, hidden: 24, experts: 2, topK: 1, activation, gated };
        const [got, exact] = [layer(c, 'bf16', defaultDevice()), layer(c, 'f64', 'cpu')];
        for (const [part, { numbers: found }] of Object.entries(got))
          expect(distance(found, exact[part]!.numbers), `${activation} ${gated} ${part}`).toBeLessThan(3e-2);
      }
  });

  it('give a token the same bits in tiles of 128, 64 and 16 rows', () => {
    const c: Case = { tokens: 200, d: 40, hidden: 144, experts: 2, topK: 1 };
    const all = layer(c, 'bf16', defaultDevice());
    for (const tokens of [120, 20])
      for (const part of ['out', 'x', 'weights']) {
        const few = layer(c, 'bf16', defaultDevice(), tokens)[part]!.raw as Uint16Array;
        expect(
          sameBits(few, (all[part]!.raw as Uint16Array).slice(0, few.length)),
          `${tokens} tokens, ${part}`,
        ).toBe(true);
      }
  });
});
