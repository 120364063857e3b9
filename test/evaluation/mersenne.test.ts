import { describe, expect, it } from 'vitest';
import { MersenneTwister } from '../../ts/evaluation/index.ts';

const range = (n: number): number[] => Array.from({ length: n }, (_, i) => i);

describe('MersenneTwister draws what CPython draws (evaluation specification §1.16)', () => {
  it('random()', () => {
    const random = new MersenneTwister(1234);
    expect([random.random(), random.random(), random.random()]).toEqual([
      0.9664535356921388, 0.4407325991753527, 0.007491470058587191,
    ]);
  });
  it('sample(), from a pool and from a set', () => {
    expect(new MersenneTwister(1234).sample(range(100), 5)).toEqual([99, 56, 14, 0, 11]);
    expect(new MersenneTwister(1234).sample(range(10), 5)).toEqual([7, 1, 0, 9, 4]);
    const random = new MersenneTwister(1234);
    expect(random.sample(range(1000), 3)).toEqual([989, 796, 451]);
    expect(random.sample(range(1000), 3)).toEqual([119, 7, 92]);
  });
  it('choices() and choice()', () => {
    expect(new MersenneTwister(0).choices(range(10), 10)).toEqual([8, 7, 4, 2, 5, 4, 7, 3, 4, 5]);
    const random = new MersenneTwister(0);
    expect(
      range(8)
        .map(() => random.choice([...'ABCD']))
        .join(''),
    ).toBe('DDACDDCD');
  });
  it('getrandbits(), randint() and shuffle()', () => {
    const random = new MersenneTwister(42);
    expect([random.bits(32), random.bits(32), random.bits(32)]).toEqual([2746317213, 478163327, 107420369]);
    expect(range(6).map(() => random.below(5))).toEqual([2, 1, 1, 1, 0, 4]);
    expect(new MersenneTwister(1234).shuffle(range(10))).toEqual([2, 8, 3, 5, 6, 4, 9, 0, 1, 7]);
  });
  it('takes big and negative seeds as Python does', () => {
    expect(new MersenneTwister(-7).random()).toBe(new MersenneTwister(7).random());
    // Python: random.Random(2**40 + 5).random()
    expect(new MersenneTwister(2n ** 40n + 5n).random()).toBe(0.5043802970418443);
  });
  it.each([
    [() => new MersenneTwister(0.5), 'integer'],
    [() => new MersenneTwister(1).below(0), 'below'],
    [() => new MersenneTwister(1).bits(33), '33'],
    [() => new MersenneTwister(1).sample([1, 2], 3), '3 different items from 2'],
    [() => new MersenneTwister(1).choices([], 1), 'empty'],
  ])('refuses nonsense (%#)', (call, message) => {
    expect(call).toThrow(message);
    expect(call).toThrow('ERR_LIBMOE_ARGUMENT');
  });
});
