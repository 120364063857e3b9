import { describe, expect, it } from 'vitest';
import { codeOf } from '../../ts/native/index.ts';
import { scope, tensor } from '../../ts/tensor/index.ts';
import { logSoftmax, softmax } from '../../ts/tensor/softmax.ts';
import { gradientCheck } from './gradient-check.ts';
import { distance, sameBits, sample, withThreads } from './values.ts';

function reference(x: readonly number[], width: number): { p: number[]; log: number[] } {
  const log = x.map((v, i) => {
    const row = x.slice(i - (i % width), i - (i % width) + width);
    const top = Math.max(...row);
    return v - top - Math.log(row.reduce((s, u) => s + Math.exp(u - top), 0));
  });
  return { p: log.map(Math.exp), log };
}

describe('softmax', () => {
  for (const [dtype, tolerance] of [
    ['f64', 1e-14],
    ['f32', 1e-6],
    ['bf16', 6e-3],
  ] as const) {
    it(`matches the definition in ${dtype}, for widths that are no multiple of a vector`, () => {
      for (const width of [1, 2, 15, 16, 33, 82, 1000]) {
        scope(() => {
          const x = sample([2, 2, width], 3, dtype);
          const expected = reference(x.toArray(), width);
          const p = softmax(x);
          expect(p.shape).toEqual([2, 2, width]);
          expect(p.dtype).toBe(dtype);
          expect(distance(p.toArray(), expected.p)).toBeLessThan(tolerance);
          expect(distance(logSoftmax(x).toArray(), expected.log)).toBeLessThan(tolerance);
        });
      }
    });
  }

  it('survives large, small and masked values', () => {
    scope(() => {
      const x = tensor([1e4, 1e4 - 1, Number.NEGATIVE_INFINITY, -1e4], [1, 4]);
      const expected = 1 / (1 + Math.exp(-1));
      expect(distance(softmax(x).toArray(), [expected, 1 - expected, 0, 0])).toBeLessThan(1e-6);
      expect(softmax(tensor([Number.NaN, 1], [1, 2])).toArray()).toEqual([Number.NaN, Number.NaN]);
    });
  });

  it('has the gradients of the definition', () => {
    scope(() => {
      const x = sample([3, 7], 1, 'f64', true);
      gradientCheck((t) => softmax(t!), [x]);
      gradientCheck((t) => logSoftmax(t!), [x]);
    });
  });

  it('gives a row the same bits alone, in a batch and with any number of threads', () => {
    scope(() => {
      const width = 1003;
      const x = sample([64, width], 1, 'f32');
      const one = withThreads(1, () => [softmax(x).readSync(), logSoftmax(x).readSync()]);
      const two = withThreads(2, () => [softmax(x).readSync(), logSoftmax(x).readSync()]);
      expect(two.map((t, i) => sameBits(t, one[i]!))).toEqual([true, true]);
      const alone = tensor(x.toArray().slice(5 * width, 6 * width), [width]);
      expect(Array.from(one[0] as Float32Array).slice(5 * width, 6 * width)).toEqual(
        softmax(alone).toArray(),
      );
    });
  });

  it('accepts empty shapes and refuses scalars and integers', () => {
    const code = (fn: () => unknown) => {
      try {
        scope(() => void fn());
      } catch (e) {
        return codeOf(e);
      }
      return undefined;
    };
    scope(() => {
      expect(softmax(sample([0, 4])).size).toBe(0);
      expect(softmax(sample([4, 0])).size).toBe(0);
    });
    expect(code(() => softmax(tensor(1)))).toBe('ERR_LIBMOE_SHAPE');
    expect(code(() => softmax(tensor(Int32Array.of(1, 2))))).toBe('ERR_LIBMOE_DTYPE');
  });
});
