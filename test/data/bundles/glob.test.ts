import { describe, expect, it } from 'vitest';
import { globMatcher } from '../../../ts/data/bundles/glob.ts';

describe('a pattern of files', () => {
  it('tells configurations and splits, and counts each once', () => {
    const match = globMatcher('**/{config}/{split}-[0-9]*.parquet');
    expect(match('data/en/test-0.parquet')).toEqual({ config: 'en', split: 'test' });
    expect(match('data/en/test-x.parquet')).toBeUndefined();
    expect(globMatcher('{split}/{split}.csv')('a/b.csv')).toBeUndefined();
  });
  it('or says what it is to be', () => {
    expect(() => globMatcher('data/[z-a].csv')).toThrow(
      'ERR_LIBMOE_ARGUMENT: "data/[z-a].csv" is no pattern of files',
    );
  });
});
