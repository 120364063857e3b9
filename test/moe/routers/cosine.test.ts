import { describe, expect, it } from 'vitest';
import { checkRefusal, routed, routerFor } from './checks.ts';
import { cosineTests, place, x } from './cosine-tests.ts';

describe('cosine', () => {
  cosineTests('cosine', [0, 0]);

  it('cosine ignores the length of a token, perturbed-cosine does not', () => {
    const spread = (name: string) => {
      using router = routerFor(name, place);
      const [a, b] = [1, 0.05].map(
        (s) =>
          routed(
            router,
            x.map((v) => v * s),
            6,
          ).weights,
      );
      return Math.max(...a!.map((w, i) => Math.abs(w - b![i]!)));
    };
    expect(spread('cosine')).toBeLessThan(1e-9);
    expect(spread('perturbed-cosine')).toBeGreaterThan(1e-2);
  });

  it('refuses what it does not have', () => {
    checkRefusal('cosine', ['original']);
    expect(() => routerFor('cosine', place, { tokenConstant: 0.1 })).toThrow(/unknown key "tokenConstant"/);
  });
});
