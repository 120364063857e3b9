import { readFileSync } from 'node:fs';
import path from 'node:path';
import { describe, expect, it } from 'vitest';
import { captionTokens } from '../../../ts/evaluation/scorers/caption-tokens.ts';
import { scorerNames, submissionText } from '../../../ts/evaluation/scorers/index.ts';
import { latexNumber } from '../../../ts/evaluation/scorers/latex-number.ts';
import { levenshtein } from '../../../ts/evaluation/scorers/levenshtein.ts';
import { mathEqual } from '../../../ts/evaluation/scorers/math-equal.ts';
import { alignTokens } from '../../../ts/evaluation/scorers/ngram-align.ts';
import { readPythonList } from '../../../ts/evaluation/scorers/python-literal.ts';
import { rougeLF } from '../../../ts/evaluation/scorers/rouge-l.ts';
import { sequenceRatio } from '../../../ts/evaluation/scorers/sequence-matcher.ts';
import { tokenF1 } from '../../../ts/evaluation/scorers/word-overlap.ts';
import { scored } from './scoring.ts';

const golden = JSON.parse(
  readFileSync(path.join(import.meta.dirname, '../../golden/python/python.json'), 'utf8'),
) as { ratio: [string, string, number][] };

describe('distances', () => {
  it(`difflib's ratio of ${golden.ratio.length} pairs, long ones too`, () => {
    expect(golden.ratio.map(([a, b]) => sequenceRatio(a, b))).toEqual(
      golden.ratio.map(([, , ratio]) => ratio),
    );
  });
  it('counts code points', () => {
    expect(levenshtein('kitten', 'sitting')).toBe(3);
    expect(levenshtein('😀a', '😃a')).toBe(1);
    expect(levenshtein('', '😀')).toBe(1);
  });
});

describe('python lists', () => {
  it.each([
    ["['a', \"b's\", 'c\\'d', 1.5, -2, None, True]", ['a', "b's", "c'd", 1.5, -2, null, true]],
    ["['x\\u00e9\\n', ['y'],]", ['xé\n', ['y']]],
    ["['\\\\frac{1}{2}', '\\d']", ['\\frac{1}{2}', '\\d']],
    ['[]', []],
  ] as [string, unknown][])('%s', (source, list) => expect(readPythonList(source)).toEqual(list));
  it.each(['', "'a'", "['a'", "['a' 'b']", '[a]', "['a'] x", '[__import__("os")]'])('not %s', (source) =>
    expect(readPythonList(source)).toBeUndefined(),
  );
});

describe('words', () => {
  it('of captions, like the Penn Treebank and without punctuation', () => {
    expect(captionTokens("A man's dog, isn't it? (Well-known!)").join(' ')).toBe(
      "a man 's dog is n't it well-known",
    );
    expect(captionTokens('It costs $5.50 or 50% at 3:30 p.m. -- cheap...').join(' ')).toBe(
      'it costs $ 5.50 or 50 % at 3:30 p.m. cheap',
    );
    expect(captionTokens("“I cannot” — they'll say; you're; I'd've").join(' ')).toBe(
      "i can not they 'll say you 're i'd 've",
    );
    expect(captionTokens('Mr. Smith sat.\nTwo cats.').join(' ')).toBe('mr. smith sat two cats');
    expect(captionTokens('')).toEqual([]);
  });
  it('of covered texts', () => {
    expect(alignTokens("It isn't 3.5 km, he's sure", 'en')).toEqual([
      'It',
      'is',
      "n't",
      '3.5',
      'km',
      ',',
      'he',
      "'s",
      'sure',
    ]);
    expect(alignTokens('多层 2.5 GPU。', 'zh')).toEqual(['多', '层', '2.5', 'GPU', '。']);
  });
});

describe('scorers of texts', () => {
  it("anls with ConBench's threshold; MP-DocVQA keeps inner spaces", () => {
    expect(
      scored({ use: 'anls', threshold: 0.05, right_from: 0.4 }, 'abcd', { target: 'abxy' }).values,
    ).toEqual({
      anls: 0.5,
      exact_match: 0,
      acc: 1,
    });
    expect(
      scored({ use: 'anls', threshold: 0.05, right_from: 0.4 }, 'zzzz', { target: 'abxy' }).values.acc,
    ).toBe(0);
    expect(scored({ use: 'anls' }, 'Doc  VQA', { target: ['doc vqa'] }).values).toEqual({
      anls: 1,
      exact_match: 0,
    });
    expect(
      scored({ use: 'anls', normalise: 'trimmed' }, 'Doc  VQA', { target: ['doc vqa'] }).values.anls,
    ).toBe(0.875);
  });
  it('ngram_align finds the covered words', () => {
    const doc = { crossed_text: ['the river bank', 'was flooded'] };
    const { values, parsed } = scored({ use: 'ngram_align' }, 'I think the river banks was flooded.', {
      doc,
    });
    expect(parsed).toBe('the river banks | was flooded');
    expect(values).toMatchObject({ exact_matches: 1, blanks: 2, exact_match: 0.5, jaccard: (2 / 4 + 1) / 2 });
    expect(scored({ use: 'ngram_align' }, 'Sorry, the river bank', { doc })).toMatchObject({
      values: { exact_match: 0, jaccard: 0, similarity: 0 },
      parsed: null,
    });
    const chinese = scored({ use: 'ngram_align', language: 'zh' }, '答案：河岸', {
      doc: { crossed_text: ['河岸'] },
    });
    expect(chinese.values).toMatchObject({ exact_match: 1, jaccard: 1 });
  });
  it('contains, and the case of formulas', () => {
    const block = { use: 'contains', formula: { dataset: 'HME100k' } };
    const at = (dataset: string, response: string, target: string | string[], mode?: 'fixed') =>
      scored(block, response, { doc: { dataset }, target }, mode).values.contains;
    expect(at('IIIT5K', 'The word is CENTRE.', 'centre')).toBe(1);
    expect(at('IIIT5K', 'a\nb', ['x', 'A B'])).toBe(1);
    expect(at('HME100k', 'x ^ 2 = y', 'x^2=y')).toBe(1);
    expect(at('HME100k', 'X + 1', 'X+1')).toBe(0);
    expect(at('HME100k', 'X + 1', 'X+1', 'fixed')).toBe(1);
  });
  it('token_f1', () => {
    expect(tokenF1('the Red car', 'red car!')).toBeCloseTo(2 / 3, 12);
    expect(tokenF1('', 'x')).toBe(0);
    expect(scored({ use: 'token_f1' }, '$5', { target: '$ 5' }).values.token_f1).toBe(1);
  });
  it('rouge_l_f on sets of words', () => {
    expect(rougeLF('the cat sat', 'the cat sat')).toBeCloseTo(1, 7);
    // Common words the, cat of three and four.
    expect(rougeLF('the cat ran', 'the old cat sat')).toBeCloseTo(
      (2 * (2 / 3) * (2 / 4)) / (2 / 3 + 2 / 4),
      7,
    );
    // b of the first sentences, a and c of the others.
    expect(rougeLF('b a. a c', 'a b. c')).toBeCloseTo(1, 7);
    expect(rougeLF('', 'x')).toBe(0);
    const long = `${'x '.repeat(256)}answer`;
    expect(scored({ use: 'rouge_l_f' }, long, { target: 'answer' }).values.rouge_l).toBe(0);
  });
  it('box_iou', () => {
    const doc = { bbox: [0, 0, 2, 2] };
    const { values } = scored({ use: 'box_iou' }, 'It is [1, 0, 3, 2].', { doc });
    expect(values.iou).toBeCloseTo(1 / 3, 12);
    expect(values).toMatchObject({ 'acc_0.1': 1, 'acc_0.3': 1, 'acc_0.5': 0, center: 1 });
    expect(scored({ use: 'box_iou' }, 'nowhere', { doc })).toMatchObject({
      values: { iou: 0, center: 1 },
      parsed: null,
    });
    expect(scored({ use: 'box_iou' }, '[0,0,0,0]', { doc: { bbox: [1, 1, 1, 1] } }).values.iou).toBe(0);
    expect(() => scored({ use: 'box_iou' }, '', { doc: { bbox: [1] } })).toThrow(
      /column "bbox" must hold four numbers, got \[1\]/,
    );
  });
  it('edit_similarity', () => {
    const value = (response: string) =>
      scored({ use: 'edit_similarity' }, response, { target: 'hello' }).values.edit_similarity;
    expect(
      ['hello', 'hallo', '<s_text_sequence>hello</s_text_sequence>', '', 'something else entirely'].map(
        value,
      ),
    ).toEqual([1, 0.8, 1, 0, 0]);
    // As the original scores SynthDoG: lower-cased, the field's name an edit of six.
    const block = { use: 'edit_similarity', profile: 'synthdog' };
    const renamed = (response: string, target: string, mode: 'libmoe' | 'fixed' = 'libmoe') =>
      scored(block, response, { target }, mode).values.edit_similarity;
    expect(renamed('hallo', 'hello')).toBeCloseTo(1 - 2 / 6, 12);
    expect(renamed('Hello', 'Hello')).toBeCloseTo(1 - 2 / 6, 12);
    expect([renamed('', 'hello'), renamed('something else entirely', 'hello'), renamed('', '')]).toEqual([
      0, 0, 1,
    ]);
    expect([renamed('Hello', 'Hello', 'fixed'), renamed('hallo', 'hello', 'fixed')]).toEqual([1, 0.8]);
  });
});

describe('letter_list', () => {
  const read = (response: string, mode: 'libmoe' | 'fixed' = 'libmoe') => {
    const { values, parsed } = scored({ use: 'letter_list' }, response, { target: "['B', 'A']" }, mode);
    return [values.right, values.asked, parsed];
  };
  it('compares capitals that stand alone in their order', () => {
    expect(read('B A')).toEqual([2, 2, 'BA']);
    expect(read('No: 1\nAnswer: B\nNo: 2\nAnswer: C')).toEqual([1, 2, 'BC']);
    expect(read('A, then B')).toEqual([0, 2, 'AB']);
    expect(read('B A C')).toEqual([2, 2, 'BA']);
    expect(read('Both')).toEqual([0, 2, null]);
    expect(read('I say\nanswer: (B)\nAnswer:A')).toEqual([0, 2, 'IB']);
    expect(read('I say\nanswer: (B)\nAnswer:A', 'fixed')).toEqual([2, 2, 'BA']);
    expect(read('B A', 'fixed')).toEqual([2, 2, 'BA']);
  });
  it('needs a list', () => {
    for (const target of ['B', '[]', ''])
      expect(() => scored({ use: 'letter_list' }, 'B', { target })).toThrow('must be a list of letters');
  });
});

describe('submission', () => {
  it('gives the index of an option where a scorer reads letters', () => {
    const block = {
      use: 'submission',
      fields: { video: 'video', answer: 'index' },
      format: 'map',
      parse: { use: 'parse_choice', profile: 'letter_exact' },
    };
    const said = (response: string, video: string) => ({
      score: scored(block, response, { doc: { video }, choices: ['x', 'y', 'z'] }),
    });
    const documents = [said('C', 'v1'), said('A', 'v2'), said('none', 'v3')];
    expect(JSON.parse(submissionText(documents))).toEqual({ v1: 2, v2: 0, v3: -1 });
    expect(documents.map(({ score }) => score.parsed)).toEqual(['C', 'A', null]);
  });
  const lines = (format: string) =>
    [1, 2].map((id) => ({
      score: scored({ use: 'submission', format }, `said, "${id}"`, { doc: { question_id: id } }),
    }));
  it('writes what servers want', () => {
    expect(JSON.parse(submissionText(lines('json')))).toEqual([
      { question_id: 1, answer: 'said, "1"' },
      { question_id: 2, answer: 'said, "2"' },
    ]);
    expect(submissionText(lines('jsonl')).split('\n')[1]).toBe('{"question_id":2,"answer":"said, \\"2\\""}');
    const parse = { use: 'parse_choice', profile: 'first_char', letters: 'A-D', gold: 'letter' };
    const read = (response: string) =>
      scored(
        { use: 'submission', fields: { id: 'id', letter: 'parsed', text: 'response' }, parse },
        response,
        {
          doc: { id: 7 },
        },
      );
    expect(JSON.parse(submissionText([{ score: read('b?') }, { score: read('?') }]))).toEqual([
      { id: 7, letter: 'B', text: 'b?' },
      { id: 7, letter: null, text: '?' },
    ]);
    expect(read('?').parsed).toBe(null);
    expect(() => scored({ use: 'submission', parse: { use: 'parse_choise' } }, '')).toThrow(
      'did you mean "parse_choice"',
    );
    expect(submissionText(lines('csv'))).toBe('question_id,answer\n1,"said, ""1"""\n2,"said, ""2"""\n');
    expect(JSON.parse(submissionText(lines('map')))).toEqual({ 1: 'said, "1"', 2: 'said, "2"' });
  });
  it('gives no number, and needs its columns', () => {
    expect(lines('json')[0]!.score.values).toEqual({ submission: null });
    expect(() => scored({ use: 'submission' }, 'x', { doc: { id: 1 } })).toThrow(
      /column "question_id" is missing; the record has id/,
    );
    expect(() => submissionText([{ score: { values: {}, parsed: null } }])).toThrow(
      /needs a task with score: \{ use: submission \}/,
    );
  });
});

describe('math_equal', () => {
  it.each([
    ['So \\boxed{12}', '12', true],
    ['The answer is $\\frac{1}{2}$', '0.5', true],
    ['$\\dfrac{3}{4}$', '\\frac{3}{4}', true],
    ['\\boxed{2\\sqrt{3}}', '$\\sqrt{12}$', true],
    ['\\boxed{\\pi/4}', '\\frac{\\pi}{4}', true],
    ['\\boxed{3, 1}', '1, 3', true],
    ['\\boxed{1,-1}', '\\pm 1', true],
    ['\\boxed{50%}', '0.5', true],
    ['\\boxed{2^{10}}', '1024', true],
    ['$x = 7$', '7', true],
    ['\\boxed{1}', '1,2', false],
    ['\\boxed{3.1}', '3', false],
    ['\\boxed{x+1}', '1+x', undefined],
    ['\\boxed{(1,2)}', '(1,2)', true],
    ['\\boxed{1', '1', false],
  ] as [string, string, boolean | undefined][])('%s ~ %s → %s', (response, gold, verdict) =>
    expect(mathEqual(response, gold)).toBe(verdict),
  );
  it('allows the error of the record, and says for how many documents it could decide', () => {
    const block = { use: 'math_equal', precision: 'error' };
    expect(scored(block, '3.14', { doc: { error: '1e-2' }, target: '3.1416' }).values).toEqual({
      acc: 1,
      decided: 1,
    });
    expect(scored(block, '3.14', { doc: { error: null }, target: '3.1416' }).values).toEqual({
      acc: 0,
      decided: 1,
    });
    expect(scored(block, 'x+1', { target: '1+x' }).values).toEqual({ acc: 0, decided: 0 });
  });
  it.each([
    ['1,234.5', 1234.5],
    ['-2^2', -4],
    ['\\sqrt[3]{8}', 2],
    ['2 \\times 3 + 4', 10],
    ['(1+2)(3)', 9],
    ['1/0', undefined],
    ['2x', undefined],
    ['', undefined],
    ['1 2', undefined],
    ['(1', undefined],
  ])('%s is %s', (source, value) => {
    const read = latexNumber(source);
    if (value === undefined) expect(read).toBeUndefined();
    else expect(read).toBeCloseTo(value, 12);
  });
});

describe('the registry', () => {
  it('has the components of the specification', () => {
    expect(scorerNames()).toEqual(
      (
        'anls box_iou by_column caption_ngram contains edit_similarity exact_match letter_list llm_judge math_equal ngram_align ' +
        'open_answer parse_choice relaxed_accuracy rouge_l_f several submission token_f1 typed_answer unsolvable_choice vqa_accuracy yes_no'
      ).split(' '),
    );
  });
  it('suggests the nearest scorer and option', () => {
    expect(() => scored({ use: 'relaxed_acuracy' }, '')).toThrow(
      /ERR_LIBMOE_CONFIG: no scorer "relaxed_acuracy", did you mean "relaxed_accuracy"/,
    );
    expect(() => scored({ use: 'relaxed_accuracy', tolerence: 1 }, '')).toThrow(
      /task test: score: unknown key "tolerence", did you mean "tolerance"/,
    );
  });
});
