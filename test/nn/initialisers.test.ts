import { describe, expect, it } from 'vitest';
import {
  initialise,
  kaimingUniform,
  Linear,
  Module,
  normal,
  rescaledTruncatedNormal,
} from '../../ts/nn/index.ts';
import { type Tensor, zeros } from '../../ts/tensor/index.ts';

function moments(values: readonly number[]): { mean: number; std: number; most: number } {
  const mean = values.reduce((a, b) => a + b, 0) / values.length;
  const std = Math.sqrt(values.reduce((a, b) => a + (b - mean) ** 2, 0) / (values.length - 1));
  return { mean, std, most: values.reduce((a, b) => Math.max(a, Math.abs(b)), 0) };
}
const drawn = (shape: number[], fill: (t: Tensor) => void): number[] => {
  using t = zeros(shape);
  fill(t);
  return t.toArray();
};

describe('initialisers', () => {
  it('normal and Kaiming uniform have the moments they say', () => {
    const gaussian = moments(drawn([200, 100], (t) => normal(0.3, 1)(t, { seed: 7, name: 'a' })));
    expect(gaussian.mean).toBeCloseTo(1, 1);
    expect(Math.abs(gaussian.std - 0.3)).toBeLessThan(0.01);
    const uniform = moments(drawn([200, 100], (t) => kaimingUniform()(t, { seed: 7, name: 'a' })));
    expect(uniform.most).toBeLessThanOrEqual(0.1);
    expect(Math.abs(uniform.std - 0.1 / Math.sqrt(3))).toBeLessThan(0.002);
  });

  it('the rescaled truncated normal has exactly its standard deviation and no tail', () => {
    const { std, most } = moments(
      drawn([64, 33], (t) => rescaledTruncatedNormal(0.125)(t, { seed: 1, name: 'x' })),
    );
    expect(Math.abs(std - 0.125)).toBeLessThan(1e-8);
    // cut at 2 of a normal whose cut std is 0.8796
    expect(most).toBeLessThan((0.125 * 2) / 0.86);
  });

  it('a value depends on seed and name alone', () => {
    const values = (seed: number, name: string): number[] =>
      drawn([4, 4], (t) => normal(1)(t, { seed, name }));
    expect(values(1, 'a')).toEqual(values(1, 'a'));
    expect(values(1, 'a')).not.toEqual(values(2, 'a'));
    expect(values(1, 'a')).not.toEqual(values(1, 'b'));
    class Two extends Module {
      readonly x = new Linear(2, 2);
      readonly y = new Linear(3, 3);
    }
    class One extends Module {
      readonly y = new Linear(3, 3);
    }
    using two = new Two();
    using one = new One();
    for (const module of [two, one]) initialise(module, 9, () => normal(1));
    expect(two.y.weight.toArray()).toEqual(one.y.weight.toArray());
    expect(() => initialise(one, -1, () => normal(1))).toThrow(/ERR_LIBMOE_ARGUMENT.*seed/);
  });
});
