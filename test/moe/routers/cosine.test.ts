import { describe, expect, it } from 'vitest';
import { cosineTests, place, x } from './cosine-tests.ts';
import { checkRefusal } from './edges.ts';
import { made, read } from './routed.ts';

describe('cosine', () => {
  cosineTests('cosine', [0, 0]);

  it('cosine ignores the length of a token, perturbed-cosine does not', () => {
    const spread = (name: string) => {
      using router = made(name, place);
      const [a, b] = [1, 0.05].map((factor) => {
        const { weights } = read(
          router,
          x.map((v) => v * factor),
        );
        return weights;
      });
      return Math.max(...a!.map((w, i) => Math.abs(w - b![i]!)));
    };
    expect(spread('cosine')).toBeLessThan(1e-9);
    expect(spread('perturbed-cosine')).toBeGreaterThan(1e-2);
  });

  it('refuses what it does not have', () => {
    checkRefusal('cosine', ['original']);
    expect(() => made('cosine', place, { tokenConstant: 0.1 })).toThrow(/unknown key "tokenConstant"/);
  });
});
