import { describe, expect, it } from 'vitest';
import { wordOrderPairs } from '../../ts/evaluation/index.ts';

const text = `Fellow citizens of the Senate and of the House. I come before you to speak of the great affairs of our country. The
harvest was good this year, and the people are content with their lot! "We shall keep the peace with all nations of the
earth." See the 12 reports.

This Chapter Has Only Capital Words Everywhere Here. It is well that we are here today for the sake of peace.`;

describe('word-order minimal pairs', () => {
  const pairs = wordOrderPairs([text, text.replaceAll('peace', 'freedom')], { pairs: 100, seed: 3 });

  it('swap two adjacent plain words and nothing else', () => {
    expect(pairs.length).toBeGreaterThanOrEqual(5);
    for (const { sentence_good: good, sentence_bad: bad, position } of pairs) {
      const [a, b] = [good.split(' '), bad.split(' ')];
      expect(bad).not.toBe(good);
      expect(b.toSorted()).toEqual(a.toSorted());
      expect(a.flatMap((word, i) => (word === b[i] ? [] : [i]))).toEqual([position, position + 1]);
      expect(a[position]).toMatch(/^[a-z]+$/);
      expect(position).toBeGreaterThan(0);
      expect(position + 1).toBeLessThan(a.length - 1);
    }
  });
  it('take whole sentences, each once', () => {
    const goods = pairs.map((pair) => pair.sentence_good);
    expect(new Set(goods).size).toBe(goods.length);
    expect(goods).toContain('"We shall keep the peace with all nations of the earth."');
    expect(goods.some((sentence) => sentence.includes('Capital'))).toBe(false);
    expect(goods.some((sentence) => sentence.includes('\n'))).toBe(false);
  });
  it('are the same for the same seed', () => {
    expect(wordOrderPairs([text], { pairs: 3, seed: 5 })).toEqual(
      wordOrderPairs([text], { pairs: 3, seed: 5 }),
    );
    expect(wordOrderPairs([text], { pairs: 3, seed: 6 })).not.toEqual(
      wordOrderPairs([text], { pairs: 3, seed: 5 }),
    );
    expect(wordOrderPairs([text], { pairs: 2, seed: 5 })).toHaveLength(2);
  });
  it('refuse what cannot be', () => {
    expect(() => wordOrderPairs([text], { pairs: 0 })).toThrow('ERR_LIBMOE_ARGUMENT');
    expect(() => wordOrderPairs([text], { pairs: 1, minWords: 2 })).toThrow('minWords');
    expect(() => wordOrderPairs(['Too short.'], { pairs: 1 })).toThrow('ERR_LIBMOE_DATA');
  });
});
