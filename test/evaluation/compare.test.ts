import { describe, expect, it } from 'vitest';
import {
  bitsPerByteInterval,
  comparePaired,
  type DocumentValue,
  MersenneTwister,
  verdict,
} from '../../ts/evaluation/index.ts';

const random = new MersenneTwister(11);
const documents = Array.from({ length: 30 }, (_, docId) => ({
  docId,
  docHash: `h${docId}`,
  bytes: 1000 + random.below(4000),
  rate: 1 + random.random(),
}));
/** Documents differ a lot, the two runs by a little: what pairing is for. */
function run(shift: number, noise: number): DocumentValue[] {
  return documents.map(({ docId, docHash, bytes, rate }) => ({
    docId,
    docHash,
    value: [-(rate + shift + noise * (random.random() - 0.5)) * bytes * Math.LN2, bytes],
  }));
}

describe('paired bootstrap over documents', () => {
  const base = run(0, 0);
  it('finds a small common gain that the two intervals alone do not show', () => {
    const better = run(-0.02, 0.02);
    const comparison = comparePaired('bits_per_byte', better, base);
    expect(comparison.winner).toBe('a');
    expect(comparison.difference.value).toBeCloseTo(-0.02, 2);
    expect(comparison.difference.high).toBeLessThan(0);
    const [a, b] = [bitsPerByteInterval(better), bitsPerByteInterval(base)];
    expect(a.high).toBeGreaterThan(b.low); // unpaired, they overlap
    expect(verdict(comparison, 'MoE', 'dense')).toMatch(
      /^MoE is better than dense: 1\.\d{4} against 1\.\d{4} bits per byte, difference −0\.02/,
    );
    expect(verdict(comparePaired('bits_per_byte', base, better), 'dense', 'MoE')).toMatch(
      /^MoE is better than dense: .*difference −0\.02/,
    );
  });
  it('names no winner when there is none', () => {
    const comparison = comparePaired('bits_per_byte', run(0, 0.1), base);
    expect(comparison.winner).toBeUndefined();
    expect(verdict(comparison, 'MoE', 'dense')).toMatch(/^No winner between MoE and dense: .* includes 0\.$/);
  });
  it('is seeded, and a run against itself is exactly 0', () => {
    const other = run(0.01, 0.1);
    expect(comparePaired('bits_per_byte', other, base)).toEqual(comparePaired('bits_per_byte', other, base));
    expect(comparePaired('bits_per_byte', base, base).difference).toEqual({ value: 0, low: 0, high: 0 });
  });
  it('pairs by document, not by order; higher is better for accuracy', () => {
    const a = documents.map(({ docId, docHash }) => ({ docId, docHash, value: Number(docId % 10 !== 0) }));
    const b = documents
      .map(({ docId, docHash }) => ({ docId, docHash, value: Number(docId % 2 === 0) }))
      .toReversed();
    const comparison = comparePaired('acc', a, b);
    expect(comparison.a).toBeCloseTo(0.9, 12);
    expect(comparison.winner).toBe('a');
    // differences by hand: +1 on 15 odd documents, −1 on 0, 10, 20; mean .4
    expect(comparison.difference.value).toBeCloseTo(0.4, 12);
    expect(comparison.t).toBeCloseTo(0.4 / Math.sqrt((18 - 30 * 0.16) / 29 / 30), 10);
  });
  it('resamples any other metric by its own aggregate', () => {
    expect(comparePaired('byte_perplexity', run(-0.05, 0), base, { resamples: 200 }).winner).toBe('a');
  });
  it('refuses runs over different documents', () => {
    expect(() => comparePaired('bits_per_byte', base, base.slice(1))).toThrow('ERR_LIBMOE_DATA');
    const changed = base.map((document, i) => (i === 3 ? { ...document, docHash: 'other' } : document));
    expect(() => comparePaired('bits_per_byte', base, changed)).toThrow('of which 29 agree');
    expect(() => comparePaired('bits_per_byte', [], [])).toThrow('ERR_LIBMOE_DATA');
  });
});
