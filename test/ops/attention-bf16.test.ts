import { describe, expect, it } from 'vitest';
import { attention } from '../../ts/tensor/attention.ts';
import { type Dtype, scope, type Tensor, tensor, view } from '../../ts/tensor/index.ts';
import { type Case, i32, inputs, offsetsOf } from './attention-inputs.ts';
import { referenceAttention } from './attention-reference.ts';
import { distance, sameBits, sample } from './values.ts';

/** What models have: every width that the tensor-core kernels are compiled for, and some between. */
const cases: (Case & { sinks?: boolean })[] = [
  { lengths: [1], queryHeads: 2, heads: 1, width: 64 },
  { lengths: [130, 1, 0, 70], queryHeads: 4, heads: 2, width: 64 },
  { lengths: [64, 65], queryHeads: 3, heads: 1, width: 8, valueWidth: 16, sinks: true },
  { lengths: [150], queryHeads: 3, heads: 1, width: 82, valueWidth: 40, window: 40, sinks: true },
  { lengths: [90], queryHeads: 1, heads: 1, width: 33, valueWidth: 7, window: 3 },
  { lengths: [66, 63], queryHeads: 2, heads: 2, width: 96, causal: false },
  { lengths: [100], queryHeads: 8, heads: 1, width: 128, sinks: true },
  { lengths: [150], queryHeads: 1, heads: 1, width: 128, window: 10, causal: false },
  { lengths: [70, 33], queryHeads: 2, heads: 1, width: 192, valueWidth: 128, window: 65 },
  { lengths: [129], queryHeads: 1, heads: 1, width: 192 },
  { lengths: [67], queryHeads: 1, heads: 1, width: 48, valueWidth: 160 },
];
const name = (c: Case): string => JSON.stringify(c).replaceAll('"', '');

interface Result {
  out: ArrayLike<number>;
  gradients: ArrayLike<number>[];
}

/** Output and gradients of q, k, v and the sinks at bf16 numbers, computed in a dtype. */
function run(c: (typeof cases)[number], dtype: Dtype): Result {
  return scope(() => {
    const parts = [...inputs(c, 'bf16'), ...(c.sinks ? [sample([c.queryHeads], 4, 'bf16')] : [])];
    const ts = parts.map((t) => tensor(t.toArray(), t.shape, { dtype, requiresGrad: true }));
    const [q, k, v, sinks] = ts as [Tensor, Tensor, Tensor, Tensor | undefined];
    const { causal = true, window } = c;
    const out = attention(q, k, v, { sequenceOffsets: i32(offsetsOf(c.lengths)), causal, window, sinks });
    out.backward(tensor(sample(out.shape, 9, 'bf16').toArray(), out.shape, { dtype }));
    const gradients = ts.map((t) => {
      const values = t.grad!.toArray();
      t.grad!.dispose();
      return values;
    });
    return { out: out.toArray(), gradients };
  });
}

describe('attention in bf16', () => {
  it.each(cases.map((c) => [name(c), c] as const))('is near the definition: %s', (_, c) => {
    scope(() => {
      const [q, k, v] = inputs(c, 'bf16');
      const sinks = c.sinks ? sample([c.queryHeads], 4, 'bf16').toArray() : undefined;
      const { causal = true, window } = c;
      const expected = referenceAttention(q, k, v, {
        offsets: offsetsOf(c.lengths),
        causal,
        window,
        scale: 1 / Math.sqrt(c.width),
        sinks,
      });
      const found = run(c, 'bf16');
      expect(distance(found.out, expected)).toBeLessThan(6e-3);
      const exact = run(c, 'f64');
      expect(distance(exact.out, expected)).toBeLessThan(1e-13);
      found.gradients.forEach((gradient, i) => {
        expect(distance(gradient, exact.gradients[i]!), `gradient of input ${i}`).toBeLessThan(1.5e-2);
      });
    });
  });

  it('has the same bits wherever its inputs begin', () => {
    scope(() => {
      for (const c of [cases[1]!, cases[4]!]) {
        const sequenceOffsets = i32(offsetsOf(c.lengths));
        const aligned = inputs(c, 'bf16');
        const expected = attention(...aligned, { sequenceOffsets, window: c.window });
        for (const shift of [1, 2, 4]) {
          const moved = aligned.map((t) =>
            view(
              tensor([...Array<number>(shift).fill(0), ...t.toArray()], [shift + t.size], { dtype: 'bf16' }),
              t.shape,
              shift,
            ),
          ) as [Tensor, Tensor, Tensor];
          const out = attention(...moved, { sequenceOffsets, window: c.window });
          expect(sameBits(out.readSync(), expected.readSync()), `shift ${shift}`).toBe(true);
        }
      }
    });
  });

  it('is not disturbed by the next sequence', () => {
    scope(() => {
      // The first sequence ends within a tile of 64 keys; NaN in the next one must not show.
      const c: Case = { lengths: [70, 5], queryHeads: 2, heads: 1, width: 64 };
      const [q, k, v] = inputs(c, 'bf16');
      const sequenceOffsets = i32(offsetsOf(c.lengths));
      const expected = attention(q, k, v, { sequenceOffsets }).readSync();
      const spoilt = [k, v].map((t) => {
        const data = t.toArray();
        for (let i = 70 * 64; i < data.length; i += 1) data[i] = Number.NaN;
        return tensor(data, t.shape, { dtype: 'bf16' });
      }) as [Tensor, Tensor];
      const found = attention(q, ...spoilt, { sequenceOffsets }).readSync();
      expect(sameBits(found.slice(0, 70 * 128), expected.slice(0, 70 * 128))).toBe(true);
      expect(sameBits(found, expected)).toBe(false);
    });
  });
});
