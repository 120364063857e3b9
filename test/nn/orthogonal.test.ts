import { describe, expect, it } from 'vitest';
import { orthogonal } from '../../ts/nn/orthogonal.ts';
import { zeros } from '../../ts/tensor/index.ts';

describe('orthogonal', () => {
  it.each([
    [3, 7],
    [7, 3],
    [4, 4],
  ])('%i rows of %i have the smaller side orthonormal, times the gain', (rows, width) => {
    using x = zeros([rows, width], { dtype: 'f64' });
    orthogonal(2)(x, { seed: 1, name: 'x' });
    const v = x.toArray();
    const at = (r: number, c: number) => v[r * width + c]!;
    const small = Math.min(rows, width);
    for (let a = 0; a < small; a += 1)
      for (let b = 0; b < small; b += 1) {
        let product = 0;
        for (let i = 0; i < Math.max(rows, width); i += 1)
          product += rows <= width ? at(a, i) * at(b, i) : at(i, a) * at(i, b);
        expect(product).toBeCloseTo(a === b ? 4 : 0, 12);
      }
  });

  it('depends on seed and name alone', () => {
    const draw = (seed: number, name: string) => {
      using x = zeros([2, 3]);
      orthogonal()(x, { seed, name });
      return x.toArray();
    };
    expect(draw(1, 'a')).toEqual(draw(1, 'a'));
    expect(draw(1, 'a')).not.toEqual(draw(1, 'b'));
    expect(draw(1, 'a')).not.toEqual(draw(2, 'a'));
  });
});
