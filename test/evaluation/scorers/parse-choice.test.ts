import { describe, expect, it } from 'vitest';
import { parseRobustChoice } from '../../../ts/evaluation/scorers/choice-robust.ts';
import type { ScorerQuestion } from '../../../ts/evaluation/scorers/index.ts';
import { scored } from './scoring.ts';

const animals = ['cat', 'dog', 'red fox', 'owl'];
const robust = (response: string, texts: readonly string[] = animals) =>
  parseRobustChoice(
    response,
    texts.map((_, i) => 'ABCDEFGH'[i]!),
    texts,
  );

describe('the robust reader of letters', () => {
  it.each([
    ['B', 'B'],
    ['b', 'B'],
    ['(b)', 'B'],
    ['[B].', 'B'],
    ['**B**', 'B'],
    [' B: ', 'B'],
    ['The answer is A', 'A'],
    ['The answer is: **C**.', 'C'],
    ['the answer is (c)', 'C'],
    ['The correct answer is b.', 'B'],
    ['Answer: D', 'D'],
    ['答案是B', 'B'],
    ['so we get \\boxed{C}', 'C'],
    ['\\boxed{\\text{C}}', 'C'],
    ['I choose option B because it barks', 'B'],
    ['First I thought the answer is A, but the answer is C', 'C'],
    ['B. dog', 'B'],
    ['B) dog, not A) cat', 'B'],
    ['C, since A is wrong', 'C'],
    ['B\nbecause it barks', 'B'],
    ['It cannot be (A), so it must be (C)', 'C'],
    ['A dog is what I see', 'B'],
    ['I pick D here', 'D'],
    ['dog', 'B'],
    ['A red fox.', 'C'],
    ['It is a dog', 'B'],
    ['<think>The answer is A. No: B.</think> C', 'C'],
    ['<think>The answer is A', null],
    ['', null],
    ['The answer is a mystery', null],
    ['a cat and a dog', null],
    ['The answer is A because it purrs', 'A'],
    ['THE ANSWER IS B', 'B'],
    ['I think A is right', 'A'],
    ['A or B', null],
    ['E', null],
    ['I do not know', null],
  ])('%j → %j', (response, letter) => expect(robust(response)).toBe(letter));

  it('takes the longer of two texts, one inside the other, and whole words only', () => {
    expect(robust('a red fox', ['fox', 'red fox'])).toBe('B');
    expect(robust('category', ['cat', 'dog'])).toBeNull();
    expect(robust('12', ['1', '12'])).toBe('B');
  });
});

const profile = (name: string, more: Record<string, unknown> = {}) => ({
  use: 'parse_choice',
  profile: name,
  ...more,
});
const acc = (
  name: string,
  response: string,
  question: Partial<ScorerQuestion>,
  more: Record<string, unknown> = {},
) => {
  const { values, parsed } = scored(profile(name, more), response, question);
  return [values.acc, parsed];
};
const options = { choices: animals };

describe('profiles of parse_choice', () => {
  it('lead_dot reads the letter of an index target; unread text is unparsed', () => {
    expect(acc('lead_dot', 'B. stem', { ...options, target: '1' })).toEqual([1, 'B']);
    expect(acc('lead_dot', 'The answer is B', { ...options, target: 1 })).toEqual([0, null]);
  });
  it('first_char', () => {
    expect(acc('first_char', 'bench', { ...options, target: 'B' })).toEqual([1, 'B']);
    expect(acc('first_char', 'bench', { ...options, target: 'B' }, { case_sensitive: true })).toEqual([
      0,
      null,
    ]);
    expect(acc('first_char', '', { ...options, target: 'B' })).toEqual([0, null]);
  });
  it('letter_exact', () => {
    const target = { target: 'B' };
    expect(acc('letter_exact', 'B', target, { letters: 'A-C' })).toEqual([1, 'B']);
    expect(acc('letter_exact', 'B.', target, { letters: 'A-C' })).toEqual([0, null]);
  });
  it('interleave cleans both sides', () => {
    expect(acc('interleave', 'b. the dog', { target: 'B' })).toEqual([1, 'B']);
    expect(acc('interleave', 'It is (C)', { target: 'C. fox' })).toEqual([1, 'C']);
    expect(acc('interleave', 'It is a dog', { target: 'A' })).toEqual([1, 'A']);
    expect(acc('interleave', 'fox!', { target: 'fox' })).toEqual([1, null]);
  });
  it('after_prefix_AD takes the first letter, even inside a word; fused phrases stay', () => {
    expect(acc('after_prefix_AD', 'The answer is: C', { target: 'C' })).toEqual([1, 'C']);
    expect(acc('after_prefix_AD', 'The best option is C', { target: 'C' })).toEqual([1, 'C']);
    expect(acc('after_prefix_AD', 'Best answer: C', { target: 'B' })).toEqual([1, 'B']);
    expect(acc('after_prefix_AD', 'none', { target: 'C' })).toEqual([0, null]);
  });
  it('after_prefix_AE falls back to the markers', () => {
    expect(acc('after_prefix_AE', 'Best answer: E', { target: 'E' })).toEqual([1, 'E']);
    expect(acc('after_prefix_AE', '(c)', { target: 'C' })).toEqual([1, 'C']);
    expect(acc('after_prefix_AE', '', { target: 'A' })).toEqual([1, 'A']);
  });
  it('before_paren', () => {
    expect(acc('before_paren', '(B) dog', { ...options, target: 'B' })).toEqual([1, 'B']);
    expect(acc('before_paren', 'B', { ...options, target: 'B' })).toEqual([1, 'B']);
    expect(acc('before_paren', 'dog', { ...options, target: 'B' })).toEqual([0, null]);
  });
  it('option_or_letter', () => {
    for (const response of ['B. dog', 'dog', 'B'])
      expect(acc('option_or_letter', response, { ...options, target: 'B' })).toEqual([1, 'B']);
    expect(acc('option_or_letter', 'b', { ...options, target: 'B' })).toEqual([0, null]);
  });
  it('ii_bench takes the letter named most often, of equals the last', () => {
    const read = (response: string) => acc('ii_bench', response, { ...options, target: 'B' });
    expect(read('(B) rather than (A), (B)')).toEqual([1, 'B']);
    expect(read('(A) or (B)')).toEqual([1, 'B']);
    expect(read('A A B, so (C)')).toEqual([0, 'C']);
    expect(read('A A B')).toEqual([0, 'A']);
    expect(read('Absolutely a dog')).toEqual([1, 'B']);
    expect(read('?')).toEqual([0, null]);
  });
  it('cmmmu takes the letters named most often', () => {
    expect(acc('cmmmu', '(A) (C) (A) (C) (B)', { ...options, target: 'AC' })).toEqual([1, 'AC']);
    expect(acc('cmmmu', '答案是D。', { ...options, target: 'D' })).toEqual([1, 'D']);
    expect(acc('cmmmu', 'the dog', { ...options, target: 'B' })).toEqual([1, 'B']);
    expect(acc('cmmmu', '?', { ...options, target: 'B' })).toEqual([0, null]);
    // Also with fixed scores: several letters can be right.
    expect(scored(profile('cmmmu'), '(A)(C)', { ...options, target: 'AC' }, 'fixed').values.acc).toBe(1);
  });
  it('tempcompass compares with the gold text or its letter', () => {
    const target = { target: 'B. cooking' };
    for (const response of ['B. cooking', 'B', 'B) frying', 'B. x'])
      expect(acc('tempcompass', response, target)).toEqual([1, 'B']);
    expect(acc('tempcompass', 'cooking', target)).toEqual([0, null]);
    expect(acc('tempcompass', 'A', target)).toEqual([0, 'A']);
  });
  it('caption_matching knows an option by its line, its text, its name and its letter', () => {
    const doc = { question: 'Which?\nOption 1: A man runs.\nOption 2: A man walks.' };
    const question = { doc, target: 'Option 2: A man walks.' };
    for (const [response, read] of [
      ['Option 2: A man walks.', 'Option 2: A man walks.'],
      ['A man walks.', 'A man walks.'],
      ['(2) A man walks.', 'A man walks.'],
      ['Option 2.', 'Option 2'],
      ['2', '2'],
    ] as const)
      expect(acc('caption_matching', response, question)).toEqual([1, read]);
    expect(acc('caption_matching', '1.', question)).toEqual([0, '1']);
    expect(acc('caption_matching', 'A man runs.', question)).toEqual([0, 'A man runs.']);
    expect(acc('caption_matching', 'He walks', question)).toEqual([0, null]);
    expect(scored(profile('caption_matching'), '2', question, 'fixed').values.acc).toBe(1);
  });
  it('vitatecs can never grant (A); fixed scores can', () => {
    const question = { choices: ['A man runs.', 'A man walks.'], target: '(A) A man runs.' };
    expect(acc('vitatecs', 'I see: a man runs', question)).toEqual([1, 'A']);
    expect(acc('vitatecs', 'A) yes', question)).toEqual([1, 'A']);
    expect(acc('vitatecs', 'B', question)).toEqual([0, 'B']);
    expect(acc('vitatecs', '(A) he runs', question)).toEqual([0, 'A']);
    expect(scored(profile('vitatecs'), '(A) he runs', question, 'fixed').values.acc).toBe(1);
  });
  it('realworldqa finds options in the question', () => {
    const question = { doc: { question: 'Which?\nA. Left lane\nB. Right lane\nC. 2' }, target: 'B' };
    expect(acc('realworldqa', 'Right lane!', question)).toEqual([1, 'B']);
    expect(acc('realworldqa', 'B.', question)).toEqual([1, 'B']);
    expect(acc('realworldqa', 'right lane', question)).toEqual([0, 'right lane']);
    expect(acc('realworldqa', 'Yes', { doc: { question: 'Is it?' }, target: 'yes' })).toEqual([1, 'Yes']);
  });
  it('mmbench leaves out missing options and keeps their letters', () => {
    const doc = { A: 'cat', B: 'nan', C: 'fox', D: null };
    const more = { columns: ['A', 'B', 'C', 'D'], skip_missing: true };
    expect(acc('mmbench', 'the fox', { doc, target: 'C' }, more)).toEqual([1, 'C']);
    expect(acc('mmbench', 'nan', { doc, target: 'C' }, more)).toEqual([0, null]);
    expect(scored(profile('mmbench', more), 'The answer is A', { doc, target: 'A' }).values.acc).toBe(0);
    expect(
      scored(profile('mmbench', more), 'The answer is A', { doc, target: 'A' }, 'fixed').values.acc,
    ).toBe(1);
  });
  it('mmmu reads its options from the text of a Python list', () => {
    const doc = { options: "['cat', \"it's a dog\", 'red \\'fox\\'']" };
    const more = { options: 'options' };
    const long = "what the picture shows here is: it's a dog";
    expect(acc('mmmu', long, { doc, target: 'B' }, more)).toEqual([1, 'B']);
    expect(acc('mmmu', 'B', { doc, target: 'B' }, more)).toEqual([1, 'B']);
  });
  it('mmstar grades "Answer: C" as A, fixed scores as C', () => {
    const block = profile('mmstar', { letters: 'A-D' });
    expect(scored(block, 'Answer: C', { target: 'A' })).toMatchObject({ values: { acc: 1 }, parsed: 'A' });
    expect(scored(block, 'Answer: C', { target: 'C' }).values.acc).toBe(0);
    expect(scored(block, 'Answer: C', { target: 'C' }, 'fixed')).toMatchObject({
      values: { acc: 1 },
      parsed: 'C',
    });
    expect(scored(block, 'xyz', { target: 'A' }).parsed).toBeNull();
  });
  it('says what is wrong with a record', () => {
    expect(() =>
      scored(profile('mmmu', { options: 'opts' }), 'B', { doc: { options: '[]' }, target: 'B' }),
    ).toThrow(/ERR_LIBMOE_DATA: task test, document 0: column "opts" is missing; the record has options/);
    expect(() =>
      scored(profile('mmmu', { options: 'o' }), 'B', { doc: { o: 'no list' }, target: 'B' }),
    ).toThrow(/column "o" must hold a list of options, got "no list"/);
    expect(() => scored(profile('robust', { gold: 'index' }), 'B', { ...options, target: '7' })).toThrow(
      /index of one of 4 options, got 7/,
    );
  });
});
