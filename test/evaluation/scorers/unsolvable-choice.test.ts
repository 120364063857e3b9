import { describe, expect, it } from 'vitest';
import { scored } from './scoring.ts';

const options = { A: 'cat', B: 'red fox', C: 'owl', D: 'nan', E: null };
const read = (
  block: { kind: string; instruction?: boolean },
  response: string,
  doc: object,
  target: string,
  mode: 'libmoe' | 'fixed' = 'libmoe',
) => {
  const { values, parsed } = scored(
    { use: 'unsolvable_choice', ...block },
    response,
    { doc: { ...options, type: 'upd', ...doc } as never, target },
    mode,
  );
  return [values.acc, parsed];
};

describe('MM-UPD without its judge', () => {
  const aad = { kind: 'aad' };
  it.each([
    ['B', 'B'],
    ['B. red fox', 'B'],
    ['(B) red fox', 'B'],
    ['B, I think', 'B'],
    ['B) or so', 'B'],
    ['B red fox', null],
    ['b', null],
    ['It is B', null],
    ['(A) or (B)', null],
    ['B. It is not A.', null],
    ['B. It is not A at all', 'B'],
    ['G', null],
    ['', null],
  ])('reads a letter that leads: %s', (response, letter) => {
    expect(read(aad, response, { type: 'standard' }, 'B')).toEqual([Number(letter === 'B'), letter]);
  });

  it('takes letters that are not offered for the hidden answer and for a refusal, in unsolvable rows', () => {
    // A, B and C are there: D is the hidden answer, E the refusal.
    expect(['A', 'D', 'E', 'F', 'G'].map((letter) => read(aad, letter, {}, 'F')[0])).toEqual([0, 1, 1, 0, 0]);
    expect(['D', 'E'].map((letter) => read(aad, letter, { type: 'standard' }, 'B')[0])).toEqual([0, 0]);
    expect(['D', 'E'].map((letter) => read({ kind: 'ivqd' }, letter, {}, 'F')[0])).toEqual([1, 0]);
    // An option of its own for refusing.
    expect(read(aad, 'D. None of the above', { D: 'None of the above' }, 'D')).toEqual([1, 'D']);
    expect(read(aad, 'C', { D: 'None of the above' }, 'D')).toEqual([0, 'C']);
  });

  it('knows F when the prompt offers it', () => {
    for (const kind of ['aad', 'iasd', 'ivqd']) {
      const block = { kind, instruction: true };
      expect(read(block, 'F. None of the above', {}, 'F')).toEqual([1, 'F']);
      expect(read(block, 'F', { type: 'standard' }, 'B')).toEqual([0, 'F']);
      expect(read({ kind }, 'F', {}, 'F')[0]).toBe(0);
    }
    // With four options E is the hidden answer; F and G are refusals.
    const four = { D: 'hen' };
    const iasd = { kind: 'iasd', instruction: true };
    expect(['E', 'F', 'G'].map((letter) => read(iasd, letter, four, 'F')[0])).toEqual([1, 1, 1]);
    expect(read({ kind: 'aad', instruction: true }, 'G', four, 'F')[0]).toBe(0);
  });

  it('reads freely with fixed scores', () => {
    expect(read(aad, 'The answer is B', { type: 'standard' }, 'B', 'fixed')).toEqual([1, 'B']);
    expect(read(aad, 'a red fox', { type: 'standard' }, 'B', 'fixed')).toEqual([1, 'B']);
    expect(read({ kind: 'aad', instruction: true }, 'The answer is F', {}, 'F', 'fixed')).toEqual([1, 'F']);
    expect(read(aad, 'None of them', {}, 'F', 'fixed')).toEqual([0, null]);
  });

  it('needs the column type', () => {
    expect(() =>
      scored({ use: 'unsolvable_choice', kind: 'aad' }, 'D', { doc: { A: 'x' }, target: 'F' }),
    ).toThrow('column "type" is missing');
    expect(() => scored({ use: 'unsolvable_choice' }, 'D', {})).toThrow('kind');
  });
});
