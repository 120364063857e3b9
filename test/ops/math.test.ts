import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { native } from '../../ts/native/index.ts';
import { type Dtype, emptyLike, scope, tensor } from '../../ts/tensor/index.ts';

type Name = 'exp' | 'log' | 'tanh' | 'erf';
const position: Record<Name, number> = { exp: 1, log: 2, tanh: 8, erf: 9 }; // in the enum of native/ops/elementwise.h
const file = new URL('../golden/math/values.json', import.meta.url);
const golden = JSON.parse(readFileSync(file, 'utf8')) as Record<
  Name,
  Record<'narrow' | 'wide', [number, number][]>
>;

const apply = (name: Name, x: readonly number[], dtype: Dtype): number[] =>
  scope(() => {
    const input = tensor(x, [x.length], { dtype });
    const output = emptyLike(input);
    native().unary(position[name], input.handle, output.handle);
    return output.toArray();
  });

/** Distance of neighbouring numbers at |x|: mantissa bits 24 or 53, smallest exponent −149 or −1074. */
function ulp(x: number, bits: number, smallest: number): number {
  return 2 ** Math.max(Math.floor(Math.log2(Math.abs(x))) - bits + 1, smallest);
}

describe('simd math', () => {
  for (const name of ['exp', 'log', 'tanh', 'erf'] as const) {
    it(`${name} keeps the error bounds that simd/math.h promises`, () => {
      const check = (pairs: [number, number][], dtype: 'f32' | 'f64', bound: number) => {
        const y = apply(
          name,
          pairs.map(([x]) => x),
          dtype,
        );
        pairs.forEach(([x, expected], i) => {
          const unit =
            expected === 0
              ? Number.MIN_VALUE
              : dtype === 'f32'
                ? ulp(expected, 24, -149)
                : ulp(expected, 53, -1074);
          const error = Math.abs(y[i]! - expected) / unit;
          expect(error, `${dtype} ${name}(${x}) = ${y[i]}, not ${expected}`).toBeLessThanOrEqual(bound);
        });
      };
      expect(golden[name].narrow.length).toBeGreaterThan(100);
      check(golden[name].narrow, 'f32', name === 'exp' || name === 'log' ? 2 : 4);
      check(golden[name].narrow, 'f64', 4);
      check(golden[name].wide, 'f64', 4);
    });
  }

  it('has the limits of the functions', () => {
    const { POSITIVE_INFINITY: inf, NaN: nan } = Number;
    for (const dtype of ['f32', 'f64'] as const) {
      expect(apply('exp', [inf, -inf, 1e4, -1e4, nan, 0], dtype)).toEqual([inf, 0, inf, 0, nan, 1]);
      expect(apply('log', [inf, 0, -1, 1, nan], dtype)).toEqual([inf, -inf, nan, 0, nan]);
      expect(apply('tanh', [inf, -inf, 50, -50, nan, 0], dtype)).toEqual([1, -1, 1, -1, nan, 0]);
      expect(apply('erf', [inf, -inf, 50, -50, nan, 0], dtype)).toEqual([1, -1, 1, -1, nan, 0]);
    }
  });

  it('gives a value the same bits in every lane and tail', () => {
    for (const name of ['exp', 'log', 'tanh', 'erf'] as const) {
      const x = Array.from({ length: 37 }, () => 0.7853);
      expect(new Set(apply(name, x, 'f32')).size).toBe(1);
      expect(new Set(apply(name, x, 'f64')).size).toBe(1);
    }
  });
});
