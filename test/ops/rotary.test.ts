import { describe, expect, it } from 'vitest';
import { codeOf } from '../../ts/native/index.ts';
import { scope, synchronise, tensor } from '../../ts/tensor/index.ts';
import { rotary, rotaryTable } from '../../ts/tensor/rotary.ts';
import { gradientCheck } from './gradient-check.ts';
import { distance, sameBits, sample, withThreads } from './values.ts';

interface Case {
  shape: readonly [number, number, number];
  dims: number;
  interleaved: boolean;
  at: readonly number[];
}

function reference(x: readonly number[], { shape, dims, interleaved, at }: Case, base = 10000): number[] {
  const [tokens, heads, width] = shape;
  const y = [...x];
  for (let t = 0; t < tokens; t += 1) {
    for (let h = 0; h < heads; h += 1) {
      const row = (t * heads + h) * width;
      for (let j = 0; j < dims / 2; j += 1) {
        const a = row + (interleaved ? 2 * j : j);
        const b = row + (interleaved ? 2 * j + 1 : j + dims / 2);
        const angle = at[t]! * base ** ((-2 * j) / dims);
        y[a] = x[a]! * Math.cos(angle) - x[b]! * Math.sin(angle);
        y[b] = x[b]! * Math.cos(angle) + x[a]! * Math.sin(angle);
      }
    }
  }
  return y;
}

describe('rotary', () => {
  const at = [0, 5, 1, 31, 5];
  for (const [dtype, tolerance] of [
    ['f64', 1e-14],
    ['f32', 1e-6],
    ['bf16', 6e-3],
  ] as const) {
    it(`turns pairs by the angle of the position in ${dtype}`, () => {
      for (const interleaved of [false, true]) {
        for (const [width, dims] of [
          [82, 40],
          [64, 64],
          [8, 2],
          [192, 64],
        ] as const) {
          scope(() => {
            const shape = [5, 3, width] as const;
            const x = sample(shape, 1, dtype);
            const table = rotaryTable({ dims, positions: 32, dtype: dtype === 'f64' ? 'f64' : 'f32' });
            const y = rotary(x, table, tensor(Int32Array.from(at)), { interleaved });
            expect(y.dtype).toBe(dtype);
            const expected = reference(x.toArray(), { shape, dims, interleaved, at });
            expect(distance(y.toArray(), expected)).toBeLessThan(tolerance);
          });
        }
      }
    });
  }

  it('takes frequencies of a context extension instead of the powers of the base', () => {
    scope(() => {
      const table = rotaryTable({ dims: 4, positions: 8, inverseFrequencies: [0.5, 0.25], dtype: 'f64' });
      expect(table.sin.toArray().slice(6, 8)).toEqual([Math.sin(1.5), Math.sin(0.75)]);
      expect(rotaryTable({ dims: 4, positions: 8, base: 500000 }).cos.shape).toEqual([8, 2]);
    });
  });

  it('has the gradient of the definition: the turn back', () => {
    scope(() => {
      const table = rotaryTable({ dims: 4, positions: 8, dtype: 'f64' });
      const positions = tensor(Int32Array.of(3, 0, 7));
      for (const interleaved of [false, true]) {
        gradientCheck(
          (x) => rotary(x!, table, positions, { interleaved }),
          [sample([3, 2, 6], 1, 'f64', true)],
        );
      }
    });
  });

  it('gives a token the same bits in any batch and with any number of threads', () => {
    scope(() => {
      const table = rotaryTable({ dims: 40, positions: 300 });
      const positions = Int32Array.from({ length: 300 }, (_, i) => i);
      const x = sample([300, 2, 82], 1, 'f32');
      const run = () => rotary(x, table, tensor(positions)).readSync();
      const one = withThreads(1, run);
      expect(sameBits(withThreads(2, run), one)).toBe(true);
      const alone = tensor(x.toArray().slice(77 * 164, 78 * 164), [1, 2, 82]);
      expect(rotary(alone, table, tensor(Int32Array.of(77))).readSync()).toEqual(
        (one as Float32Array).slice(77 * 164, 78 * 164),
      );
    });
  });

  it('refuses wrong input', () => {
    const code = (fn: () => unknown) => {
      try {
        scope(() => void fn());
        synchronise(); // a device learns of a bad position when it is waited for
      } catch (e) {
        return codeOf(e);
      }
      return undefined;
    };
    const call = (width: number, dims: number, position: number[], dtype: 'f32' | 'f64' = 'f32') =>
      code(() =>
        rotary(
          sample([2, 1, width], 1, 'f32'),
          rotaryTable({ dims, positions: 4, dtype }),
          tensor(Int32Array.from(position)),
        ),
      );
    expect(call(8, 4, [0, 3])).toBe(undefined);
    expect(call(8, 4, [0, 4])).toBe('ERR_LIBMOE_ARGUMENT');
    expect(call(8, 4, [-1, 0])).toBe('ERR_LIBMOE_ARGUMENT');
    expect(call(8, 16, [0, 0])).toBe('ERR_LIBMOE_SHAPE');
    expect(call(8, 4, [0])).toBe('ERR_LIBMOE_SHAPE');
    expect(call(8, 4, [0, 0], 'f64')).toBe('ERR_LIBMOE_DTYPE');
    expect(code(() => rotaryTable({ dims: 5, positions: 4 }))).toBe('ERR_LIBMOE_ARGUMENT');
    expect(code(() => rotaryTable({ dims: 4, positions: 0 }))).toBe('ERR_LIBMOE_ARGUMENT');
    expect(code(() => rotaryTable({ dims: 4, positions: 4, inverseFrequencies: [1] }))).toBe(
      'ERR_LIBMOE_ARGUMENT',
    );
  });
});
