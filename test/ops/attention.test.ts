import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { codeOf } from '../../ts/native/index.ts';
import { attention } from '../../ts/tensor/attention.ts';
import { type Dtype, noGrad, scope, type Tensor, tensor } from '../../ts/tensor/index.ts';
import { type Case, i32, inputs, offsetsOf, tolerances } from './attention-inputs.ts';
import { referenceAttention } from './attention-reference.ts';
import { gradientCheck } from './gradient-check.ts';
import { distance, sameBits, sample, withThreads } from './values.ts';

const cases: Case[] = [
  { lengths: [1], queryHeads: 1, heads: 1, width: 8 },
  { lengths: [0, 5, 0, 0, 3, 0], queryHeads: 2, heads: 2, width: 8 },
  { lengths: [70, 1, 33], queryHeads: 2, heads: 1, width: 82 },
  { lengths: [130], queryHeads: 3, heads: 1, width: 16, causal: false },
  { lengths: [66, 40], queryHeads: 6, heads: 2, width: 64, valueWidth: 48 },
  { lengths: [67], queryHeads: 1, heads: 1, width: 192, valueWidth: 128 },
  { lengths: [200, 150], queryHeads: 2, heads: 2, width: 16, window: 70 },
  { lengths: [90], queryHeads: 4, heads: 2, width: 24, window: 1 },
  { lengths: [150], queryHeads: 2, heads: 1, width: 10, window: 20, causal: false },
];

describe('attention', () => {
  for (const [dtype, tolerance] of tolerances) {
    it(`matches the definition in ${dtype}`, () => {
      for (const c of cases) {
        scope(() => {
          const offsets = offsetsOf(c.lengths);
          const [q, k, v] = inputs(c, dtype);
          const { causal = true, window } = c;
          const out = attention(q, k, v, { sequenceOffsets: i32(offsets), causal, window, scale: 0.3 });
          expect(out.dtype).toBe(dtype);
          expect(out.shape).toEqual([q.shape[0], c.queryHeads, v.shape[2]]);
          const expected = referenceAttention(q, k, v, { offsets, causal, window, scale: 0.3 });
          expect(distance(out.toArray(), expected), JSON.stringify(c)).toBeLessThan(tolerance);
        });
      }
    });
  }

  it('agrees with PyTorch in value and gradient', () => {
    interface Golden extends Record<'q' | 'k' | 'v' | 'gradient' | 'out' | 'dq' | 'dk' | 'dv', number[]> {
      tokens: number;
      queryHeads: number;
      heads: number;
      width: number;
      valueWidth: number;
      causal: boolean;
      window: number;
    }
    const file = new URL('../golden/attention/sdpa.json', import.meta.url);
    const golden = JSON.parse(readFileSync(file, 'utf8')) as { cases: Golden[] };
    expect(golden.cases.length).toBe(3);
    for (const g of golden.cases) {
      scope(() => {
        const f64 = { dtype: 'f64', requiresGrad: true } as const;
        const q = tensor(g.q, [g.tokens, g.queryHeads, g.width], f64);
        const k = tensor(g.k, [g.tokens, g.heads, g.width], f64);
        const v = tensor(g.v, [g.tokens, g.heads, g.valueWidth], f64);
        const { causal, window } = g;
        const out = attention(q, k, v, {
          sequenceOffsets: i32([0, g.tokens]),
          causal,
          ...(window > 0 && { window }),
        });
        expect(distance(out.toArray(), g.out)).toBeLessThan(1e-13);
        out.backward(tensor(g.gradient, out.shape, { dtype: 'f64' }));
        for (const [t, expected] of [
          [q, g.dq],
          [k, g.dk],
          [v, g.dv],
        ] as const) {
          expect(distance(t.grad!.toArray(), expected)).toBeLessThan(1e-13);
          t.grad!.dispose();
        }
      });
    }
  });

  it('has the gradients of finite differences', () => {
    const small: Case[] = [
      { lengths: [1, 0, 4], queryHeads: 2, heads: 1, width: 3, valueWidth: 2 },
      { lengths: [5], queryHeads: 2, heads: 2, width: 3, window: 2 },
      { lengths: [3, 2], queryHeads: 3, heads: 1, width: 2, causal: false },
    ];
    for (const c of small) {
      scope(() => {
        const sequenceOffsets = i32(offsetsOf(c.lengths));
        const { causal = true, window } = c;
        gradientCheck(
          (q, k, v) => attention(q!, k!, v!, { sequenceOffsets, causal, window }),
          inputs(c, 'f64', true),
        );
      });
    }
  });

  it('has the same gradients in f32 and bf16 as in f64, over many blocks', () => {
    const wide: Case[] = [
      { lengths: [200, 1, 77], queryHeads: 4, heads: 2, width: 82, valueWidth: 40 },
      { lengths: [300], queryHeads: 1, heads: 1, width: 16, window: 100 },
      { lengths: [100], queryHeads: 3, heads: 1, width: 64, causal: false },
    ];
    for (const c of wide) {
      const run = (dtype: Dtype) =>
        scope(() => {
          const ts = inputs(c, 'bf16').map((t) =>
            tensor(t.toArray(), t.shape, { dtype, requiresGrad: true }),
          );
          const [q, k, v] = ts as [Tensor, Tensor, Tensor];
          const { causal = true, window } = c;
          const out = attention(q, k, v, { sequenceOffsets: i32(offsetsOf(c.lengths)), causal, window });
          out.backward(sample(out.shape, 9, dtype));
          return ts.map((t) => {
            const gradient = t.grad!.toArray();
            t.grad!.dispose();
            return gradient;
          });
        });
      const exact = run('f64');
      for (const [dtype, tolerance] of [
        ['f32', 3e-6],
        ['bf16', 1e-2],
      ] as const) {
        run(dtype).forEach((gradient, i) => {
          expect(distance(gradient, exact[i]!), `${dtype} ${i} ${JSON.stringify(c)}`).toBeLessThan(tolerance);
        });
      }
    }
  });

  it.each(['f32', 'bf16'] as const)(
    'gives the same bits alone, in any batch and with any number of threads, forward and backward, %s',
    (dtype) => {
      const lengths = [65, 3, 140, 64];
      const shape = { queryHeads: 4, heads: 2, width: 40 };
      const run = (at: readonly number[], only?: number) =>
        scope(() => {
          const begin = offsetsOf(lengths);
          const parts = inputs({ lengths, ...shape }, dtype).map((t) => {
            const row = t.shape[1]! * t.shape[2]!;
            const data = t.toArray();
            const kept = only === undefined ? data : data.slice(begin[only]! * row, begin[only + 1]! * row);
            return tensor(kept, [kept.length / row, t.shape[1]!, t.shape[2]!], { dtype, requiresGrad: true });
          });
          const [q, k, v] = parts as [Tensor, Tensor, Tensor];
          const out = attention(q, k, v, { sequenceOffsets: i32(offsetsOf(at)) });
          const gradient = sample([278 - 6, 4, 40], 5, 'f32').toArray();
          const first = only === undefined ? 0 : begin[only]! * 160;
          out.backward(tensor(gradient.slice(first, first + out.size), out.shape, { dtype }));
          const read = [out, ...parts.map((t) => t.grad!)].map((t) => t.readSync() as Float32Array);
          for (const t of parts) t.grad!.dispose();
          return read;
        });
      const batch = withThreads(1, () => run(lengths));
      const again = withThreads(2, () => run(lengths));
      expect(again.map((t, i) => sameBits(t, batch[i]!))).toEqual([true, true, true, true]);
      lengths.forEach((length, s) => {
        const begin = offsetsOf(lengths)[s]!;
        run([length], s).forEach((alone, i) => {
          const row = alone.length / length;
          expect(sameBits(alone, batch[i]!.slice(begin * row, (begin + length) * row)), `${s} ${i}`).toBe(
            true,
          );
        });
      });
    },
  );

  it('does without statistics under noGrad and accepts no tokens', () => {
    scope(() => {
      const [q, k, v] = inputs(cases[1]!, 'f32', true);
      const sequenceOffsets = i32(offsetsOf(cases[1]!.lengths));
      const out = noGrad(() => attention(q, k, v, { sequenceOffsets }));
      expect(out.node).toBe(undefined);
      const plain = inputs(cases[1]!, 'f32');
      expect(sameBits(attention(...plain, { sequenceOffsets }).readSync(), out.readSync())).toBe(true);
      const none = inputs({ lengths: [], queryHeads: 2, heads: 1, width: 8 }, 'f32');
      expect(attention(...none, { sequenceOffsets: i32([0]) }).shape).toEqual([0, 2, 8]);
    });
  });

  it('refuses wrong input', () => {
    const code = (change: {
      q?: number[];
      k?: number[];
      v?: number[];
      offsets?: number[];
      window?: number;
      scale?: number;
      dtype?: Dtype;
    }) => {
      try {
        scope(() => {
          const { q = [4, 2, 8], k = [4, 1, 8], v = [4, 1, 8], offsets = [0, 4], dtype = 'f32' } = change;
          attention(sample(q, 1, 'f32'), sample(k, 1, dtype), sample(v, 1, 'f32'), {
            sequenceOffsets: i32(offsets),
            window: change.window,
            scale: change.scale,
          }).toArray(); // a device finds wrong offsets while the host goes on: reading tells
        });
      } catch (e) {
        return codeOf(e);
      }
      return undefined;
    };
    expect(code({})).toBe(undefined);
    for (const offsets of [
      [0, 5],
      [1, 4],
      [0, 3],
      [0, 3, 2, 4],
      [0, -1, 4],
    ])
      expect(code({ offsets }), String(offsets)).toBe('ERR_LIBMOE_ARGUMENT');
    expect(code({ offsets: [] })).toBe('ERR_LIBMOE_SHAPE');
    expect(code({ q: [4, 3, 8], k: [4, 2, 8], v: [4, 2, 8] })).toBe('ERR_LIBMOE_SHAPE');
    expect(code({ k: [4, 1, 7] })).toBe('ERR_LIBMOE_SHAPE');
    expect(code({ v: [3, 1, 8] })).toBe('ERR_LIBMOE_SHAPE');
    expect(code({ q: [4, 16] })).toBe('ERR_LIBMOE_SHAPE');
    expect(code({ v: [4, 8] })).toBe('ERR_LIBMOE_SHAPE');
    expect(code({ dtype: 'bf16' })).toBe('ERR_LIBMOE_DTYPE');
    expect(code({ window: 0 })).toBe('ERR_LIBMOE_ARGUMENT');
    expect(code({ window: 1.5 })).toBe('ERR_LIBMOE_ARGUMENT');
    expect(code({ scale: Number.NaN })).toBe('ERR_LIBMOE_ARGUMENT');
  });
});
