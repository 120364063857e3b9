import { describe, expect, it } from 'vitest';
import { codeOf } from '../../ts/native/index.ts';
import { noGrad, scope, type Tensor, tensor } from '../../ts/tensor/index.ts';
import { layerNorm, rmsNorm } from '../../ts/tensor/norm.ts';
import { gradientCheck } from './gradient-check.ts';
import { distance, sameBits, sample, withThreads } from './values.ts';

function reference(x: Tensor, w: Tensor, b: Tensor | undefined, epsilon: number, centred: boolean): number[] {
  const [xs, ws, bs] = [x.toArray(), w.toArray(), b?.toArray()];
  const width = ws.length;
  return xs.map((v, i) => {
    const row = xs.slice(i - (i % width), i - (i % width) + width);
    const mean = centred ? row.reduce((s, u) => s + u, 0) / width : 0;
    const variance = row.reduce((s, u) => s + (u - mean) ** 2, 0) / width;
    return ((v - mean) / Math.sqrt(variance + epsilon)) * ws[i % width]! + (bs?.[i % width] ?? 0);
  });
}
const code = (fn: () => unknown): string | undefined => {
  try {
    scope(() => void fn());
  } catch (e) {
    return codeOf(e);
  }
  return undefined;
};

describe('norm', () => {
  for (const [dtype, tolerance] of [
    ['f64', 1e-14],
    ['f32', 2e-6],
    ['bf16', 8e-3],
  ] as const) {
    it(`matches the definition in ${dtype}, for widths that are no multiple of a vector`, () => {
      for (const width of [1, 3, 16, 31, 82, 512, 515]) {
        scope(() => {
          const x = sample([2, 3, width], 1, dtype);
          const w = sample([width], 2, dtype);
          const b = sample([width], 3, dtype);
          const layer = layerNorm(x, w, b, 1e-5);
          expect(layer.shape).toEqual([2, 3, width]);
          expect(layer.dtype).toBe(dtype);
          expect(distance(layer.toArray(), reference(x, w, b, 1e-5, true))).toBeLessThan(tolerance);
          expect(distance(layerNorm(x, w).toArray(), reference(x, w, undefined, 1e-5, true))).toBeLessThan(
            tolerance,
          );
          expect(
            distance(rmsNorm(x, w, 1e-6).toArray(), reference(x, w, undefined, 1e-6, false)),
          ).toBeLessThan(tolerance);
        });
      }
    });
  }

  it('keeps the variance of values far from zero', () => {
    scope(() => {
      const x = tensor([1000.25, 1000.5, 1000.75, 1001], [1, 4]);
      const w = tensor([1, 1, 1, 1]);
      expect(distance(layerNorm(x, w).toArray(), reference(x, w, undefined, 1e-5, true))).toBeLessThan(1e-5);
    });
  });

  it('has the gradients of the definition', () => {
    scope(() => {
      const inputs = [
        sample([3, 7], 1, 'f64', true),
        sample([7], 2, 'f64', true),
        sample([7], 3, 'f64', true),
      ];
      gradientCheck((x, w, b) => layerNorm(x!, w!, b, 1e-5), inputs);
      gradientCheck((x, w) => layerNorm(x!, w!, undefined, 1e-5), inputs.slice(0, 2));
      gradientCheck((x, w) => rmsNorm(x!, w!, 1e-6), inputs.slice(0, 2));
      // Only some of the gradients wanted.
      gradientCheck((w) => rmsNorm(sample([3, 7], 5), w!, 1e-6), inputs.slice(1, 2));
      for (const t of inputs) t.grad?.dispose();
    });
  });

  it('adds weight gradients of several uses and sums more rows than one chunk', () => {
    scope(() => {
      const w = sample([5], 2, 'f64', true);
      const b = sample([5], 3, 'f64', true);
      const x = sample([150, 5], 1);
      const once = layerNorm(x, w, b);
      once.backward(sample([150, 5], 4));
      const first = w.grad!.toArray();
      const firstBias = b.grad!.toArray();
      const dy = sample([150, 5], 4).toArray();
      const expected = [0, 1, 2, 3, 4].map((c) => dy.reduce((s, g, i) => (i % 5 === c ? s + g : s), 0));
      expect(distance(firstBias, expected)).toBeLessThan(1e-13);
      layerNorm(x, w, b).backward(sample([150, 5], 4));
      expect(w.grad!.toArray()).toEqual(first.map((v) => v + v));
      expect(b.grad!.toArray()).toEqual(firstBias.map((v) => v + v));
      w.grad!.dispose();
      b.grad!.dispose();
    });
  });

  it('gives a row the same bits alone, in a batch and with any number of threads', () => {
    scope(() => {
      const width = 83;
      const rows = 200;
      const x = sample([rows, width], 1, 'f32', true);
      const w = sample([width], 2, 'f32', true);
      const run = () => {
        const y = layerNorm(x, w);
        y.backward(sample([rows, width], 5, 'f32'));
        const result = [y.readSync(), x.grad!.readSync(), w.grad!.readSync()];
        for (const t of [x, w]) {
          t.grad!.dispose();
          t.grad = undefined;
        }
        return result;
      };
      const one = withThreads(1, run);
      expect(withThreads(2, run).map((t, i) => sameBits(t, one[i]!))).toEqual([true, true, true]);
      noGrad(() => {
        const all = layerNorm(x, w).toArray();
        const alone = tensor(x.toArray().slice(17 * width, 18 * width), [1, width]);
        expect(layerNorm(alone, w).toArray()).toEqual(all.slice(17 * width, 18 * width));
      });
    });
  });

  it('accepts no rows and refuses wrong input', () => {
    scope(() => {
      const w = sample([4], 1, 'f32');
      expect(layerNorm(sample([0, 4], 1, 'f32'), w).shape).toEqual([0, 4]);
      expect(code(() => layerNorm(sample([2, 5], 1, 'f32'), w))).toBe('ERR_LIBMOE_SHAPE');
      expect(code(() => layerNorm(sample([2, 4], 1, 'f32'), w, sample([3], 1, 'f32')))).toBe(
        'ERR_LIBMOE_SHAPE',
      );
      expect(code(() => layerNorm(sample([2, 4], 1, 'bf16'), w))).toBe('ERR_LIBMOE_DTYPE');
      expect(code(() => rmsNorm(sample([2, 4], 1, 'f32'), w, -1))).toBe('ERR_LIBMOE_ARGUMENT');
      expect(code(() => rmsNorm(tensor(1), w))).toBe('ERR_LIBMOE_SHAPE');
    });
  });
});
