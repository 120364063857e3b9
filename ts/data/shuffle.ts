/**
 * A permutation of 0…count−1 that depends on `seed` and `epoch` alone (Fisher–Yates over the generator sfc32 of PractRand).
 */
export function permutation(count: number, seed: number, epoch: number): Uint32Array {
  const order = Uint32Array.from({ length: count }, (_, i) => i);
  const random = sfc32(seed, epoch);
  for (let i = count - 1; i > 0; --i) {
    // 32 random bits scaled down: the bias is below count / 2^32.
    const j = Math.floor((random() / 0x1_0000_0000) * (i + 1));
    const held = order[i]!;
    order[i] = order[j]!;
    order[j] = held;
  }
  return order;
}

function sfc32(seed: number, epoch: number): () => number {
  let a = seed >>> 0;
  let b = Math.floor(seed / 0x1_0000_0000) >>> 0;
  let c = epoch >>> 0;
  let counter = 1;
  const next = (): number => {
    const sum = (a + b + counter) >>> 0;
    counter = (counter + 1) >>> 0;
    a = b ^ (b >>> 9);
    b = (c + (c << 3)) >>> 0;
    c = (((c << 21) | (c >>> 11)) + sum) >>> 0;
    return sum;
  };
  // Near seeds start near each other; a dozen turns part them.
  for (let i = 0; i < 12; ++i) next();
  return next;
}
