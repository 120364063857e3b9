import { describe, expect, it } from 'vitest';
import { codeOf } from '../../ts/native/index.ts';
import { type Dtype, scope, tensor } from '../../ts/tensor/index.ts';
import {
  bernoulli,
  randn,
  randomPermutation,
  truncatedNormal,
  uniform,
  uniformRows,
} from '../../ts/tensor/random.ts';
import { withThreads } from './values.ts';

const caught = (fn: () => unknown): unknown => {
  try {
    fn();
  } catch (error) {
    return error;
  }
  return undefined;
};

function moments(x: readonly number[]) {
  const mean = x.reduce((a, b) => a + b, 0) / x.length;
  const central = (p: number) => x.reduce((a, v) => a + (v - mean) ** p, 0) / x.length;
  const variance = central(2);
  return { mean, variance, skew: central(3) / variance ** 1.5, kurtosis: central(4) / variance ** 2 };
}

/** The ten rounds of Philox4x32 from its definition, in BigInt: the oracle for the counter layout. */
function philox(seed: bigint, stream: bigint, counter: bigint): bigint[] {
  const low = (x: bigint) => x & 0xffffffffn;
  let c = [low(counter), counter >> 32n, low(stream), stream >> 32n];
  let key = [low(seed), seed >> 32n];
  for (let round = 0; round < 10; round += 1) {
    const p = 0xd2511f53n * c[0]!;
    const q = 0xcd9e8d57n * c[2]!;
    c = [(q >> 32n) ^ c[1]! ^ key[0]!, low(q), (p >> 32n) ^ c[3]! ^ key[1]!, low(p)];
    key = [low(key[0]! + 0x9e3779b9n), low(key[1]! + 0xbb67ae85n)];
  }
  return c;
}

describe('uniform', () => {
  it('is Philox: element i is word i mod 4 of counter i / 4', () => {
    scope(() => {
      const seed = 123456789012345;
      const x = uniform([1003], { seed, stream: 5 }).toArray();
      for (const i of [0, 1, 2, 3, 4, 255, 256, 1001]) {
        const word = philox(BigInt(seed), 5n, BigInt(Math.floor(i / 4)))[i % 4]!;
        expect(x[i]).toBe(Number(word >> 8n) * 2 ** -24);
      }
    });
  });

  it('stays in [low, high) and has its mean and variance', () => {
    scope(() => {
      for (const dtype of ['f32', 'f64'] as const) {
        const x = uniform([100_000], { seed: 1, low: -2, high: 3, dtype }).toArray();
        expect(Math.min(...x.slice(0, 50_000))).toBeGreaterThanOrEqual(-2);
        expect(Math.max(...x.slice(0, 50_000))).toBeLessThan(3);
        const m = moments(x);
        expect(Math.abs(m.mean - 0.5)).toBeLessThan(0.02);
        expect(Math.abs(m.variance - 25 / 12)).toBeLessThan(0.03);
      }
    });
  });

  it('never rounds up to high', () => {
    scope(() => {
      const x = uniform([100_000], { seed: 3, low: 1, high: 1 + 2 ** -22 }).toArray();
      expect(new Set(x).size).toBe(2);
      expect(x.every((v) => v < 1 + 2 ** -22)).toBe(true);
    });
  });
});

describe('uniformRows', () => {
  it('gives each row what uniform gives for its stream', () => {
    const ids = [7, 0, 31000, 7, 2 ** 31 - 1, 3];
    for (const dtype of ['f32', 'f64', 'bf16'] as const)
      for (const n of [1, 3, 8, 66, 300])
        scope(() => {
          const streams = tensor(Int32Array.from(ids));
          const seed = 2 ** 40 + 3;
          const got = uniformRows(streams, n, { seed, dtype, low: -1, high: 2 });
          expect(got.shape).toEqual([ids.length, n]);
          const each = ids.map((stream) => uniform([n], { seed, stream, dtype, low: -1, high: 2 }).toArray());
          expect(got.toArray()).toEqual(each.flat());
        });
  });

  it('takes no rows, and the number of a masked token', () => {
    scope(() => {
      expect(uniformRows(tensor(Int32Array.from([])), 4, { seed: 1 }).shape).toEqual([0, 4]);
      expect(
        uniformRows(tensor(Int32Array.from([-1])), 4, { seed: 1 })
          .toArray()
          .every(Number.isFinite),
      ).toBe(true);
      const wide = tensor([1, 2]);
      expect(codeOf(caught(() => uniformRows(wide, 4, { seed: 1 })))).toBe('ERR_LIBMOE_DTYPE');
    });
  });
});

describe('randn', () => {
  it.each(['f32', 'f64'] as const)('has the moments and tails of a normal distribution in %s', (dtype) => {
    scope(() => {
      const x = randn([200_001], { seed: 42, dtype }).toArray();
      const m = moments(x);
      expect(Math.abs(m.mean)).toBeLessThan(0.01);
      expect(Math.abs(m.variance - 1)).toBeLessThan(0.015);
      expect(Math.abs(m.skew)).toBeLessThan(0.025);
      expect(Math.abs(m.kurtosis - 3)).toBeLessThan(0.06);
      for (const [z, p] of [
        [1, 0.317311],
        [2, 0.0455],
        [3, 0.0027],
      ] as const)
        expect(Math.abs(x.filter((v) => Math.abs(v) > z).length / x.length - p)).toBeLessThan(
          0.15 * p + 0.0005,
        );
      // Neighbours come from one pair: they must not be correlated.
      const products = x.slice(1).reduce((a, v, i) => a + v * x[i]!, 0) / x.length;
      expect(Math.abs(products)).toBeLessThan(0.01);
    });
  });

  it('is Box and Muller on the Philox words', () => {
    scope(() => {
      const x = randn([1000], { seed: 7, stream: 2, dtype: 'f32' }).toArray();
      for (const pair of [0, 1, 130, 499]) {
        const words = philox(7n, 2n, BigInt(Math.floor(pair / 2)));
        const [a, b] = [Number(words[(pair % 2) * 2]!), Number(words[(pair % 2) * 2 + 1]!)];
        const radius = Math.sqrt(-2 * Math.log((a + 0.5) * 2 ** -32));
        const angle = 2 * Math.PI * Math.floor(b / 256) * 2 ** -24;
        expect(Math.abs(x[2 * pair]! - radius * Math.cos(angle))).toBeLessThan(2e-6);
        expect(Math.abs(x[2 * pair + 1]! - radius * Math.sin(angle))).toBeLessThan(2e-6);
      }
    });
  });

  it('depends on seed, stream and index only', () => {
    scope(() => {
      const make = (n: number) => randn([n], { seed: 9, mean: 1, std: 0.02 }).toArray();
      const long = withThreads(2, () => make(70_001));
      expect(withThreads(1, () => make(70_001))).toEqual(long);
      for (const n of [0, 1, 5, 255, 257]) expect(make(n)).toEqual(long.slice(0, n));
      expect(randn([7, 3], { seed: 9, mean: 1, std: 0.02 }).toArray()).toEqual(long.slice(0, 21));
      expect(randn([21], { seed: 9, stream: 1, mean: 1, std: 0.02 }).toArray()).not.toEqual(
        long.slice(0, 21),
      );
      expect(randn([21], { seed: 10, mean: 1, std: 0.02 }).toArray()).not.toEqual(long.slice(0, 21));
    });
  });

  it('bf16 is the rounded f32', () => {
    scope(() => {
      const wide = randn([333], { seed: 4 });
      const bits = new Uint32Array((wide.readSync() as Float32Array).buffer);
      expect(Array.from(randn([333], { seed: 4, dtype: 'bf16' }).readSync() as Uint16Array)).toEqual(
        Array.from(bits, (b) => (b + 0x7fff + ((b >>> 16) & 1)) >>> 16),
      );
    });
  });
});

describe('truncatedNormal', () => {
  it.each([
    [2, 0.7737],
    [0.5, 0.0806],
    [3, 0.9733],
  ])('stays within %d deviations with the variance of that distribution', (bound, variance) => {
    scope(() => {
      const x = truncatedNormal([100_000], { seed: 5, std: 0.02, bound }).toArray();
      expect(x.every((v) => Math.abs(v) <= 0.02 * bound * (1 + 1e-6))).toBe(true);
      const m = moments(x);
      expect(Math.abs(m.mean)).toBeLessThan(0.0003);
      expect(Math.abs(m.variance / 0.02 ** 2 - variance)).toBeLessThan(0.02);
    });
  });

  it('is normal when nothing is cut off', () => {
    scope(() => {
      const x = truncatedNormal([200_000], { seed: 5, bound: Infinity, dtype: 'f64' }).toArray();
      const m = moments(x);
      expect(Math.abs(m.variance - 1)).toBeLessThan(0.015);
      expect(Math.abs(m.kurtosis - 3)).toBeLessThan(0.06);
    });
  });
});

describe('bernoulli and randomPermutation', () => {
  it.each<Dtype>(['f32', 'bf16', 'f64', 'bool', 'u8'])('draws ones with probability p as %s', (dtype) => {
    scope(() => {
      const x = bernoulli([50_000], 0.3, { seed: 6, dtype }).toArray();
      expect(x.every((v) => v === 0 || v === 1)).toBe(true);
      expect(Math.abs(x.reduce((a, b) => a + b, 0) / x.length - 0.3)).toBeLessThan(0.01);
      expect(bernoulli([99], 0, { seed: 6, dtype }).toArray()).not.toContain(1);
      expect(bernoulli([99], 1, { seed: 6, dtype }).toArray()).not.toContain(0);
    });
  });

  it('permutes, repeatably and without favourites', () => {
    scope(() => {
      const draw = (n: number, seed: number) => randomPermutation(n, { seed }).toArray();
      expect(draw(1000, 1).toSorted((a, b) => a - b)).toEqual(Array.from({ length: 1000 }, (_, i) => i));
      expect(draw(1000, 1)).toEqual(draw(1000, 1));
      expect(draw(1000, 2)).not.toEqual(draw(1000, 1));
      expect(draw(0, 1)).toEqual([]);
      const firsts = new Array<number>(5).fill(0);
      for (let seed = 0; seed < 2000; seed += 1) firsts[draw(5, seed)[0]!]! += 1;
      for (const count of firsts) expect(Math.abs(count - 400)).toBeLessThan(80);
    });
  });
});

describe('bad arguments', () => {
  it('are refused', () => {
    for (const fn of [
      () => randn([2], { seed: -1 }),
      () => randn([2], { seed: 1.5 }),
      () => randn([2], { seed: 1, std: -1 }),
      () => uniform([2], { seed: 1, low: 2, high: 1 }),
      () => uniform([2], { seed: 1, low: Number.NaN }),
      () => truncatedNormal([2], { seed: 1, bound: 0 }),
      () => bernoulli([2], 1.5, { seed: 1 }),
      () => randomPermutation(-1, { seed: 1 }),
      () => randn([2], { seed: 1, stream: 2 ** 53 }),
    ])
      expect(codeOf(caught(fn))).toBe('ERR_LIBMOE_ARGUMENT');
    expect(codeOf(caught(() => randn([2], { seed: 1, dtype: 'i32' })))).toBe('ERR_LIBMOE_DTYPE');
  });
});
