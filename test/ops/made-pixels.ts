/** The bytes of `pixels` in test/golden/image/make_resize.py. */
export function madePixels(size: number, seed: number): Uint8Array {
  let state = seed;
  return Uint8Array.from({ length: size }, (_, i) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    const value = state >>> 24;
    if (i % 8 >= 4) return value;
    return value < 128 ? 0 : 255;
  });
}
