import { describe, expect, it } from 'vitest';
import { attention, attentionCached, cacheWrite } from '../../ts/tensor/attention.ts';
import { type Dtype, full, scope, type Tensor, tensor, view } from '../../ts/tensor/index.ts';
import { type Case, i32, inputs, offsetsOf, tolerances } from './attention-inputs.ts';
import { referenceAttention } from './attention-reference.ts';
import { gradientCheck } from './gradient-check.ts';
import { distance, sameBits, sample, withThreads } from './values.ts';

/** q, k, v and sinks. */
const withSinks = (c: Case, dtype: Dtype, requiresGrad = false): [Tensor, Tensor, Tensor, Tensor] => [
  ...inputs(c, dtype, requiresGrad),
  sample([c.queryHeads], 4, dtype, requiresGrad),
];

const cases: Case[] = [
  { lengths: [1], queryHeads: 1, heads: 1, width: 8 },
  { lengths: [0, 5, 0, 3], queryHeads: 3, heads: 3, width: 5 },
  { lengths: [70, 1, 33], queryHeads: 6, heads: 2, width: 20, valueWidth: 7 },
  { lengths: [130], queryHeads: 3, heads: 1, width: 16, causal: false },
  { lengths: [200], queryHeads: 8, heads: 1, width: 16, window: 8 },
];

describe('attention with sinks', () => {
  for (const [dtype, tolerance] of tolerances) {
    it(`matches the definition in ${dtype}`, () => {
      for (const c of cases) {
        scope(() => {
          const offsets = offsetsOf(c.lengths);
          const [q, k, v, sinks] = withSinks(c, dtype);
          const { causal = true, window } = c;
          const options = { causal, window, scale: 0.3 };
          const out = attention(q, k, v, { sequenceOffsets: i32(offsets), sinks, ...options });
          const expected = referenceAttention(q, k, v, { offsets, sinks: sinks.toArray(), ...options });
          expect(distance(out.toArray(), expected), JSON.stringify(c)).toBeLessThan(tolerance);
          const without = referenceAttention(q, k, v, { offsets, ...options });
          expect(distance(out.toArray(), without)).toBeGreaterThan(1e-3);
        });
      }
    });
  }

  it('a sink of −∞ is none, one that outweighs everything leaves nothing', () => {
    scope(() => {
      const c = cases[2]!;
      const [q, k, v] = withSinks(c, 'f32');
      const sequenceOffsets = i32(offsetsOf(c.lengths));
      const plain = attention(q, k, v, { sequenceOffsets, scale: 1 });
      const at = (value: number): Tensor =>
        attention(q, k, v, { sequenceOffsets, scale: 1, sinks: full([c.queryHeads], value) });
      expect(distance(at(Number.NEGATIVE_INFINITY).toArray(), plain.toArray())).toBeLessThan(1e-6);
      expect(
        at(1e4)
          .toArray()
          .every((x) => x === 0),
      ).toBe(true);
    });
  });

  it('has the gradients of central differences', () => {
    const small: Case[] = [
      { lengths: [1, 0, 4], queryHeads: 2, heads: 1, width: 3, valueWidth: 2 },
      { lengths: [5], queryHeads: 4, heads: 2, width: 3, window: 2 },
      { lengths: [3, 2], queryHeads: 3, heads: 1, width: 2, causal: false },
      { lengths: [19], queryHeads: 1, heads: 1, width: 2 }, // more tokens than a vector has lanes
    ];
    for (const c of small) {
      scope(() => {
        const sequenceOffsets = i32(offsetsOf(c.lengths));
        const { causal = true, window } = c;
        gradientCheck(
          (q, k, v, sinks) => attention(q!, k!, v!, { sequenceOffsets, causal, window, sinks }),
          withSinks(c, 'f64', true),
        );
      });
    }
  });

  it('has the same gradients in f32 and bf16 as in f64, adds to what is there, and for any number of threads', () => {
    const c: Case = { lengths: [150, 1, 40], queryHeads: 6, heads: 2, width: 24, window: 50 };
    const run = (dtype: Dtype, times = 1) =>
      scope(() => {
        const ts = withSinks(c, 'bf16').map((t) =>
          tensor(t.toArray(), t.shape, { dtype, requiresGrad: true }),
        );
        const [q, k, v, sinks] = ts as [Tensor, Tensor, Tensor, Tensor];
        for (let i = 0; i < times; i++) {
          const out = attention(q, k, v, {
            sequenceOffsets: i32(offsetsOf(c.lengths)),
            window: c.window,
            sinks,
          });
          out.backward(sample(out.shape, 9, dtype));
        }
        return ts.map((t) => {
          const gradient = { dtype: t.grad!.dtype, raw: t.grad!.readSync(), values: t.grad!.toArray() };
          t.grad!.dispose();
          return gradient;
        });
      });
    const exact = run('f64');
    for (const [dtype, tolerance] of [
      ['f32', 3e-6],
      ['bf16', 2e-2],
    ] as const) {
      const found = run(dtype);
      expect(found[3]!.dtype).toBe('f32');
      found.forEach((gradient, i) => {
        expect(distance(gradient.values, exact[i]!.values), `${dtype} ${i}`).toBeLessThan(tolerance);
      });
      const twice = run(dtype, 2)[3]!.values.map((x) => x / 2);
      expect(distance(twice, found[3]!.values)).toBeLessThan(1e-6);
    }
    const one = withThreads(1, () => run('f32'));
    const two = withThreads(2, () => run('f32'));
    one.forEach((gradient, i) => {
      expect(sameBits(gradient.raw, two[i]!.raw), `input ${i}`).toBe(true);
    });
  });

  it.each([
    ['f32', undefined],
    ['f32', 9],
    ['bf16', undefined],
    ['f64', 3],
  ] as const)('over a cache gives the bits of the whole, %s, window %s', (dtype, window) => {
    scope(() => {
      const [tokens, pageSize] = [75, 8];
      const c: Case = { lengths: [tokens], queryHeads: 6, heads: 2, width: 10, valueWidth: 7 };
      const [q, k, v, sinks] = withSinks(c, dtype);
      const options = { scale: 0.4, sinks, ...(window && { window }) };
      const whole = attention(q, k, v, { sequenceOffsets: i32([0, tokens]), ...options });
      const pages = Math.ceil(tokens / pageSize);
      const keys = full([pages, pageSize, 2, 10], Number.NaN, { dtype });
      const stored = full([pages, pageSize, 2, 7], Number.NaN, { dtype });
      const blockTable = i32(
        Array.from({ length: pages }, (_, p) => pages - 1 - p),
        [1, pages],
      );
      const part = (t: Tensor, begin: number, end: number): Tensor => {
        const row = t.size / tokens;
        return view(t, [end - begin, ...t.shape.slice(1)], begin * row);
      };
      for (const [begin, end] of [
        [0, 31],
        [31, 32],
        [32, 75],
      ] as const) {
        const placement = { blockTable, queryOffsets: i32([0, end - begin]), keyLengths: i32([end]) };
        cacheWrite(keys, part(k, begin, end), placement);
        cacheWrite(stored, part(v, begin, end), placement);
        const out = attentionCached(part(q, begin, end), keys, stored, placement, options);
        expect(sameBits(out.readSync(), part(whole, begin, end).readSync()), `${begin}`).toBe(true);
      }
    });
  });

  it('refuses sinks of another size or dtype', () => {
    scope(() => {
      const [q, k, v] = withSinks(cases[1]!, 'f32');
      const sequenceOffsets = i32(offsetsOf(cases[1]!.lengths));
      expect(() => attention(q, k, v, { sequenceOffsets, sinks: full([4], 0) })).toThrow(
        /ERR_LIBMOE_SHAPE.*sinks must be \[query heads=3\]/,
      );
      expect(() => attention(q, k, v, { sequenceOffsets, sinks: full([3], 0, { dtype: 'f64' }) })).toThrow(
        /ERR_LIBMOE_DTYPE/,
      );
    });
  });
});
