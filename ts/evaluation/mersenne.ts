import { fail } from '../native/index.ts';

const N = 624;
const M = 397;

/**
 * MT19937 with CPython's seeding, so that few-shot samples, seeded fallbacks and bootstraps draw what the original
 * harnesses draw (Matsumoto & Nishimura 1998, seeded as CPython seeds it).
 */
export class MersenneTwister {
  private readonly state = new Uint32Array(N);
  private index = N;

  /** @param seed an integer; its sign is ignored, as in `random.seed(n)`. */
  constructor(seed: number | bigint) {
    if (typeof seed === 'number' && !Number.isSafeInteger(seed))
      fail('ERR_LIBMOE_ARGUMENT', `a seed is an integer below 2^53 (or a bigint), got ${seed}`);
    let rest = BigInt(seed) < 0n ? -BigInt(seed) : BigInt(seed);
    const key: number[] = [];
    do {
      key.push(Number(rest & 0xffffffffn));
      rest >>= 32n;
    } while (rest > 0n);
    this.seedByArray(key);
  }

  private seedByArray(key: readonly number[]): void {
    const mt = this.state;
    mt[0] = 19650218;
    for (let i = 1; i < N; i++) mt[i] = Math.imul(1812433253, mt[i - 1]! ^ (mt[i - 1]! >>> 30)) + i;
    let i = 1;
    let j = 0;
    for (let k = Math.max(N, key.length); k > 0; k--) {
      mt[i] = (mt[i]! ^ Math.imul(mt[i - 1]! ^ (mt[i - 1]! >>> 30), 1664525)) + key[j]! + j;
      if (++i >= N) {
        mt[0] = mt[N - 1]!;
        i = 1;
      }
      if (++j >= key.length) j = 0;
    }
    for (let k = N - 1; k > 0; k--) {
      mt[i] = (mt[i]! ^ Math.imul(mt[i - 1]! ^ (mt[i - 1]! >>> 30), 1566083941)) - i;
      if (++i >= N) {
        mt[0] = mt[N - 1]!;
        i = 1;
      }
    }
    mt[0] = 0x80000000;
  }

  private refill(): void {
    const mt = this.state;
    for (let i = 0; i < N; i++) {
      const y = (mt[i]! & 0x80000000) | (mt[(i + 1) % N]! & 0x7fffffff);
      mt[i] = mt[(i + M) % N]! ^ (y >>> 1) ^ (y & 1 ? 0x9908b0df : 0);
    }
    this.index = 0;
  }

  /** 32 random bits as an unsigned number. */
  next32(): number {
    if (this.index >= N) this.refill();
    let y = this.state[this.index++]!;
    y ^= y >>> 11;
    y ^= (y << 7) & 0x9d2c5680;
    y ^= (y << 15) & 0xefc60000;
    return (y ^ (y >>> 18)) >>> 0;
  }

  /** `random.random()`: 53 random bits in [0, 1). */
  random(): number {
    const high = this.next32() >>> 5;
    const low = this.next32() >>> 6;
    return (high * 67108864 + low) / 9007199254740992;
  }

  /** `random.getrandbits(bits)` for 1 ≤ bits ≤ 32. */
  bits(bits: number): number {
    if (!Number.isInteger(bits) || bits < 1 || bits > 32)
      fail('ERR_LIBMOE_ARGUMENT', `bits() gives 1 to 32 bits, asked for ${bits}`);
    return this.next32() >>> (32 - bits);
  }

  /** A uniform integer in [0, n), by rejection as CPython does it. */
  below(n: number): number {
    if (!Number.isInteger(n) || n < 1 || n > 0xffffffff)
      fail('ERR_LIBMOE_ARGUMENT', `below(n) needs an integer 1 <= n < 2^32, got ${n}`);
    const width = 32 - Math.clz32(n);
    let value = this.bits(width);
    while (value >= n) value = this.bits(width);
    return value;
  }

  /** `random.choice(items)` */
  choice<T>(items: readonly T[]): T {
    return items[this.below(items.length)]!;
  }

  /** `random.choices(items, k=k)`: with replacement. */
  choices<T>(items: readonly T[], k: number): T[] {
    if (items.length === 0) fail('ERR_LIBMOE_ARGUMENT', 'cannot draw from an empty list');
    return Array.from({ length: k }, () => items[Math.floor(this.random() * items.length)]!);
  }

  /** `random.shuffle(items)`, in place. */
  shuffle<T>(items: T[]): T[] {
    for (let i = items.length - 1; i > 0; i--) {
      const j = this.below(i + 1);
      const kept = items[i]!;
      items[i] = items[j]!;
      items[j] = kept;
    }
    return items;
  }

  /** `random.sample(items, k)`: without replacement. */
  sample<T>(items: readonly T[], k: number): T[] {
    const n = items.length;
    if (!Number.isInteger(k) || k < 0 || k > n)
      fail('ERR_LIBMOE_ARGUMENT', `cannot draw ${k} different items from ${n}`);
    // CPython copies the list when that is smaller than a set of the drawn positions; the two draw differently.
    const setSize = 21 + (k > 5 ? 4 ** Math.ceil(Math.log(k * 3) / Math.log(4)) : 0);
    if (n <= setSize) {
      const pool = [...items];
      return Array.from({ length: k }, (_, i) => {
        const j = this.below(n - i);
        const drawn = pool[j]!;
        pool[j] = pool[n - i - 1]!;
        return drawn;
      });
    }
    const taken = new Set<number>();
    return Array.from({ length: k }, () => {
      let j = this.below(n);
      while (taken.has(j)) j = this.below(n);
      taken.add(j);
      return items[j]!;
    });
  }
}
