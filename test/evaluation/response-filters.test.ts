import { describe, expect, it } from 'vitest';
import { findAll, pythonRegex } from '../../ts/evaluation/python-regex.ts';
import { filterListSchema, responseFilters } from '../../ts/evaluation/response-filters.ts';

const run = (filter: object[], responses: string[], choices: string[] = []): string[] =>
  responseFilters(filterListSchema.parse([{ name: 'x', filter }]), 'toy')[0]!.apply(responses, choices);
const regex = (pattern: string, more: object = {}) => ({
  function: 'regex',
  regex_pattern: pattern,
  ...more,
});

describe('filters of responses', () => {
  it.each<[string, object[], string[], string[]]>([
    ['take the first', [{ function: 'take_first' }], ['a', 'b'], ['a']],
    ['take some', [{ function: 'take_first_k', k: 2 }], ['a', 'b', 'c'], ['a', 'b']],
    ['vote; the first of equals', [{ function: 'majority_vote' }], ['b', 'a', 'c', 'a', 'c'], ['a']],
    ['vote; of equals no nothing', [{ function: 'majority_vote' }], ['a', ''], ['a']],
    ['vote for nothing', [{ function: 'majority_vote' }], ['', '', 'a'], ['']],
    ['remove one space', [{ function: 'remove_whitespace' }], ['  a ', 'b', '\ta'], [' a ', 'b', '\ta']],
    ['change case', [{ function: 'lowercase' }], ['AbÄ'], ['abä']],
    ['change case the other way', [{ function: 'uppercase' }], ['ab'], ['AB']],
    ['remove thoughts', [{ function: 'remove_thinking' }], ['<think>a\nb</think>c', 'a<think>b'], ['c', 'a']],
    ['map', [{ function: 'map', mapping_dict: { a: '1' } }], ['a', 'b'], ['1', '[invalid]']],
    ['map to a default', [{ function: 'map', mapping_dict: {}, default_value: '' }], ['b'], ['']],
    ['find a match', [regex('#### (\\-?[0-9\\.\\,]+)')], ['#### 1,234.', 'none'], ['1,234.', '[invalid]']],
    [
      'find the last match',
      [regex('(-?[$0-9.,]{2,})|(-?[0-9]+)', { group_select: -1 })],
      ['1 and 22 and 3'],
      ['3'],
    ],
    ['strip what is found', [regex('is(.*)')], ['it is  so '], ['so']],
    ['fall back', [regex('x', { fallback: 'y' })], ['a'], ['y']],
    ['find nothing in all groups', [regex('(a)?(b)?c')], ['c'], ['[invalid]']],
  ])('%s', (_, filter, responses, wanted) => {
    expect(run(filter, responses)).toEqual(wanted);
  });

  it('look for an answer among lettered choices', () => {
    const filter = [{ function: 'multi_choice_regex', regex_pattern: '(\\([A-Z]\\))', ignore_case: true }];
    const choices = ['Guilty', 'Guilty of Romance', 'No (B)'];
    expect(
      run(filter, ['So (B) it is', 'guilty of romance!', 'it is guilty', 'answer: C', 'who knows'], choices),
    ).toEqual(['(B)', '(B)', '(A)', '(C)', '[invalid]']);
    expect(() => run(filter, ['a'])).toThrow('set doc_to_choice');
    const clothes = ['Hat', 'T-shirt (v1.0)'];
    expect(run(filter, ['a t-shirt (v1.0)', 'a t-shirt (v1x0)'], clothes)).toEqual(['(B)', '[invalid]']);
  });

  it('need as many responses as they take', () => {
    expect(() => run([{ function: 'take_first_k', k: 3 }], ['a'])).toThrow('set repeats');
  });
});

// What Python 3.11 gives: re.findall(pattern, text).
describe('patterns mean what they mean in Python', () => {
  it.each<[string, string, (string | string[])[]]>([
    ['\\d+', '１２ 34', ['１２', '34']],
    ['\\w+', 'naïve déjà_vu', ['naïve', 'déjà_vu']],
    ['\\bé\\w*', 'été é', ['été', 'é']],
    [
      '(?P<first>a)(b)?',
      'ab a',
      [
        ['a', 'b'],
        ['a', ''],
      ],
    ],
    ['(?i)yes|no', 'YES No', ['YES', 'No']],
    ['[\\w\\-]+', 'a-b c', ['a-b', 'c']],
    ['[^\\d]', '1a', ['a']],
    ['\\,|\\%|\\"', 'a,b%"', [',', '%', '"']],
    ['{x}|a{2}', '{x} aa', ['{x}', 'aa']],
    ['[[]a]', '[a] [a', ['[a]']],
    ['[]a]+', ']a', [']a']],
    ['(?s)a.b', 'a\nb', ['a\nb']],
    ['a$', 'a', ['a']],
    ['a$', 'a\n', ['a']],
    ['a$', 'a\nb', []],
    ['x$', 'x\r', []],
    ['(?m)^b$', 'a\rb\nb\n', ['b']],
    ['(?m)a$', 'a\r\na', ['a']],
    ['.+', 'a\r\u2028b\nc', ['a\r\u2028b', 'c']],
    ['(\\w)\\1', 'aabb', ['a', 'b']],
    ['\\s', 'a\u0085b\ufeffc', ['\u0085']],
    ['\\AB', 'BB', ['B']],
    ['(?P<q>[\'"]).*?(?P=q)', "'a\"'", ["'"]],
    ['\\S+', 'a\u001cb', ['a', 'b']],
    ['.', '😀', ['😀']],
  ])('%s', (pattern, text, wanted) => {
    expect(findAll(pythonRegex(pattern), text)).toEqual(wanted);
  });
  it('or are refused', () => {
    expect(() => pythonRegex('(a')).toThrow('ERR_LIBMOE_CONFIG');
    expect(() => pythonRegex('[\\W]')).toThrow('write it out');
    expect(() => pythonRegex('(?ix)a b')).toThrow('flag x');
  });
});
