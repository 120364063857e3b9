import { describe, expect, it } from 'vitest';
import { parseJudgement } from '../../../ts/evaluation/scorers/open-answer.ts';
import { vqaV2Accuracy } from '../../../ts/evaluation/scorers/vqa-accuracy.ts';
import { contractions } from '../../../ts/evaluation/scorers/vqa-normalise.ts';
import { parseWords } from '../../../ts/evaluation/scorers/yes-no.ts';
import { scored } from './scoring.ts';

describe('exact_match', () => {
  const value = (flags: Record<string, unknown>, response: string, target: string | string[]) =>
    scored({ use: 'exact_match', ...flags }, response, { target }).values.exact_match;
  it('compares as it stands, or without what the flags name', () => {
    expect(value({}, ' Table ', 'Table')).toBe(1);
    expect(value({}, 'table', 'Table')).toBe(0);
    const gqa = { ignore_case: true, ignore_punctuation: true };
    expect(value(gqa, 'Table.', 'table')).toBe(1);
    expect(value(gqa, 'the table', 'table')).toBe(0);
    expect(value({ ignore_numbers: true }, 'a1', 'a2')).toBe(1);
    expect(value({ regexes_to_ignore: [',', '\\$'] }, '$1,000', '1000')).toBe(1);
    expect(value({}, 'b', ['a', 'b'])).toBe(1);
  });
  it('rejects flags that are none', () => {
    expect(() => value({ ignore_cas: true }, 'a', 'a')).toThrow(
      /unknown key "ignore_cas", did you mean "ignore_case"/,
    );
    expect(() => value({ regexes_to_ignore: ['('] }, 'a', 'a')).toThrow(/must be a regular expression/);
  });
});

describe('yes_no', () => {
  const answer = (profile: string, response: string, mode: 'libmoe' | 'fixed' = 'libmoe') =>
    scored({ use: 'yes_no', profile }, response, { target: 'Yes' }, mode).detail?.answer;
  it('reads as each benchmark does', () => {
    expect(['Yes.', 'YES ', 'yes', 'maybe'].map((r) => answer('pope', r))).toEqual([
      'other',
      'yes',
      'yes',
      'other',
    ]);
    expect(['Yesterday', 'no', ''].map((r) => answer('contains_yes', r))).toEqual(['yes', 'no', 'no']);
    expect(['yes, it', 'Nothing', 'It is'].map((r) => answer('startswith', r))).toEqual([
      'yes',
      'no',
      'other',
    ]);
    expect(['y', 'y.es', 'n\no', 'Yes'].map((r) => answer('conbench', r))).toEqual([
      'other',
      'other',
      'no',
      'yes',
    ]);
  });
  it.each([
    ['Yes', 'yes'],
    ['No, it is not', 'no'],
    ['**No**', 'no'],
    ['y', 'yes'],
    ['The answer is yes.', 'yes'],
    ['There is no dog.', 'no'],
    ['I am not sure', 'other'],
    ['It is unclear whether yes or no', 'other'],
    ['yes or no', 'yes'],
    ['Nobody knows', 'other'],
    ['unknown', 'other'],
    ['<think>yes</think>no', 'no'],
    ['', 'other'],
  ])('fixed scores read words: %j → %s', (response, said) => expect(parseWords(response)).toBe(said));
  it('the quirks of MME go with fixed scores', () => {
    expect(answer('mme', 'The answer is yes')).toBe('other');
    expect(answer('mme', 'knows')).toBe('no');
    expect(answer('mme', 'The answer is yes', 'fixed')).toBe('yes');
    expect(answer('mme', 'knows', 'fixed')).toBe('other');
  });
  it('an uncertain answer is right where the figure is missing, with fixed scores', () => {
    const block = {
      use: 'yes_no',
      profile: 'contains_yes',
      uncertain_right: { category: 'VS', figure_id: '0' },
    };
    const at = (figure: string, mode: 'libmoe' | 'fixed') =>
      scored(block, 'I cannot tell', { doc: { category: 'VS', figure_id: figure }, target: '1' }, mode).values
        .acc;
    expect([at('0', 'libmoe'), at('0', 'fixed'), at('1', 'fixed')]).toEqual([0, 1, 0]);
  });
  it('needs a target that is yes or no', () => {
    expect(() => scored({ use: 'yes_no', profile: 'mme' }, 'yes', { target: 'B' })).toThrow(
      /document 0: the target must be yes or no, got "B"/,
    );
  });
});

describe('vqa_accuracy', () => {
  it('has the 120 contractions', () => {
    expect(contractions.size).toBe(120);
    expect(contractions.get("'ows'at")).toBe("'ow's'at");
    expect(contractions.get("'ow'sat")).toBe("'ow's'at");
  });
  it('VQAv2 leaves answers alone that are all alike, and equal records are one annotator', () => {
    const answers = (texts: string[]) => texts.map((answer, i) => ({ answer, answer_id: i }));
    expect(vqaV2Accuracy('The Dog', answers(Array(10).fill('the dog')))).toBe(0);
    expect(vqaV2Accuracy('dog', answers(Array(10).fill('dog')))).toBe(1);
    expect(vqaV2Accuracy('The Dog', answers(['the dog', ...Array(9).fill('dog')]))).toBe(1);
    expect(vqaV2Accuracy('dog', answers(['dog', 'dog', ...Array(8).fill('cat')]))).toBeCloseTo(0.6, 12);
    expect(
      vqaV2Accuracy(
        'dog',
        [...Array(5)].map(() => ({ answer: 'dog' })),
      ),
    ).toBe(0);
  });
  it('names the column it misses', () => {
    expect(() => scored({ use: 'vqa_accuracy' }, 'a', { doc: { question: 'q' } })).toThrow(
      /column "answers" is missing/,
    );
    expect(() => scored({ use: 'vqa_accuracy' }, 'a', { doc: { answers: [] } })).toThrow(
      /list of the annotators' answers, got \[\]/,
    );
  });
});

describe('relaxed_accuracy', () => {
  const value = (response: string, target: string, mode: 'libmoe' | 'fixed') =>
    scored({ use: 'relaxed_accuracy' }, response, { target }, mode).values.relaxed;
  it.each([
    ['1,000', '1000'],
    ['$5', '5'],
    ['€1,234.5', '1234.5'],
    ['blue.', 'blue'],
    ['12 million', '12'],
    ['45 percent', '0.45'],
    ['45 %', '45%'],
  ])('fixed scores read %j as %j', (response, target) => expect(value(response, target, 'fixed')).toBe(1));
  it('fixed scores keep what differs apart', () => {
    expect(value('45%', '45', 'fixed')).toBe(0);
    expect(value('1,00', '100', 'fixed')).toBe(0);
    expect(value('$5', '5', 'libmoe')).toBe(0);
    expect(value('10.51', '10', 'fixed')).toBe(0);
  });
  it('takes another tolerance', () => {
    expect(scored({ use: 'relaxed_accuracy', tolerance: 0.1 }, '10.9', { target: '10' }).values.relaxed).toBe(
      1,
    );
  });
});

describe('open_answer', () => {
  const value = (response: string, target: string, mode: 'libmoe' | 'fixed') =>
    scored({ use: 'open_answer' }, response, { target }, mode).values.acc;
  it('a list of golds written as a text is one text, with fixed scores a list', () => {
    expect(value('the value is 3.429', "['24/7', '3.43']", 'libmoe')).toBe(0);
    expect(value('the value is 3.429', "['24/7', '3.43']", 'fixed')).toBe(1);
  });
  it('reads Chinese answers', () => {
    const block = { use: 'open_answer', profile: 'cmmmu' };
    const acc = (response: string, target: string) => scored(block, response, { target }).values.acc;
    expect(acc('所以答案是12.5。', '12.5')).toBe(1);
    expect(acc('因此结果为1，234', '1234')).toBe(0);
    expect(acc('所以最后选择北京。', '北京')).toBe(1);
    expect(acc('上海', '北京')).toBe(0);
  });
  it('reads judgements', () => {
    expect(['正确', '这个说法是错误的', '对。', '是否正确', '不知道'].map(parseJudgement)).toEqual([
      '对',
      '错',
      '对',
      null,
      null,
    ]);
  });
});

describe('typed_answer', () => {
  const math = (kind: Record<string, unknown>, response: string, target: string) =>
    scored({ use: 'typed_answer' }, response, {
      doc: { choices: null, precision: null, question_type: 'free_form', ...kind },
      target,
    });
  it('takes numbers as they stand', () => {
    expect(math({ answer_type: 'integer' }, '14', '14').values.acc).toBe(1);
    expect(math({ answer_type: 'float', precision: 1 }, '1.25', '1.2').values.acc).toBe(1);
    expect(math({ answer_type: 'float', precision: 2 }, '2.675', '2.67').parsed).toBe('2.67');
  });
  it('finds answers in sentences without a judge', () => {
    expect(
      math({ answer_type: 'integer' }, 'There are 3 and 4, so the answer is 1,207.', '1207').values.acc,
    ).toBe(1);
    expect(math({ answer_type: 'integer' }, 'We get \\boxed{42} by 7 steps', '42').values.acc).toBe(1);
    expect(math({ answer_type: 'float', precision: 2 }, 'about 3.14159 m', '3.14').values.acc).toBe(1);
    expect(math({ answer_type: 'list' }, 'so [1, 2] then **[3, 4]**', '[3, 4]').values.acc).toBe(1);
    expect(math({ answer_type: 'text' }, 'The answer is yes.', 'yes').values.acc).toBe(1);
    expect(math({ answer_type: 'integer' }, 'no idea', '1')).toMatchObject({
      values: { acc: 0 },
      parsed: null,
    });
    expect(math({ answer_type: 'integer' }, '', '1').parsed).toBeNull();
  });
  it('picks choices by letter, text or nearness', () => {
    const kind = { question_type: 'multi_choice', answer_type: 'text', choices: ['3/11', '8/11', '6/11'] };
    for (const response of ['8/11', 'B', 'The answer is (B)', 'Answer: B. 8/11'])
      expect(math(kind, response, '8/11').values.acc).toBe(1);
    expect(math(kind, 'The answer is B', '3/11').values.acc).toBe(0);
  });
  it('names a missing column', () => {
    expect(() =>
      scored({ use: 'typed_answer' }, '1', { doc: { question_type: 'free_form' }, target: '1' }),
    ).toThrow(/column "answer_type" is missing/);
  });
});

describe('by_column', () => {
  const block = {
    use: 'by_column',
    column: 'question_type',
    cases: {
      'multiple-choice': { use: 'parse_choice', profile: 'mmmu', options: 'options' },
      open: { use: 'open_answer' },
    },
  };
  it('sends each document to its scorer', () => {
    const doc = { question_type: 'multiple-choice', options: "['a', 'b']" };
    expect(scored(block, 'B', { doc, target: 'B' }).values.acc).toBe(1);
    expect(scored(block, 'it is 7', { doc: { question_type: 'open' }, target: '7' }).values.acc).toBe(1);
  });
  it('says which kinds it knows, and checks the scorers of all', () => {
    expect(() => scored(block, 'B', { doc: { question_type: 'essay' }, target: 'B' })).toThrow(
      /column "question_type" is "essay", the task knows multiple-choice, open/,
    );
    expect(() => scored({ ...block, otherwise: { use: 'open_anser' } }, 'B', {})).toThrow(
      /did you mean "open_answer"/,
    );
  });
});
