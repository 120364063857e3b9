import { describe, expect, it } from 'vitest';
import { compileTemplate } from '../../ts/evaluation/template.ts';

const row = {
  goal: '  Bake a cake ',
  sol1: 'oven',
  sol2: 'fridge',
  label: 1,
  choices: { text: ['x', 'y'], label: ['A', 'B'] },
  answerKey: 'B',
  written: '{"a": ["x \\"y\\"", "ü"], "b": null}',
};

describe('templates', () => {
  it.each<[string, unknown]>([
    ['Question: {{goal}}\nAnswer:', 'Question:   Bake a cake \nAnswer:'],
    ['{{goal.strip()}}!', 'Bake a cake!'],
    ['{{ goal | trim | upper }}', 'BAKE A CAKE'],
    ['{{[sol1, sol2]}}', ['oven', 'fridge']],
    ['{{choices.text}}', ['x', 'y']],
    ['{{choices.label.index(answerKey)}}', 1],
    ['{{choices["text"][0]}} {{choices.text[-1]}}', 'x y'],
    ['{{label}}', 1],
    ['{{label - 1}}', 0],
    ['{{"a" + sol1 + \'\\n\'}}', 'aoven\n'],
    ['{{", ".join(choices.text)}}', 'x, y'],
    ['{{goal.strip().split(" ")[1].capitalize()}}', 'A'],
    ['{{(sol1 + sol2)|length}}', 10],
    ['x{{choices.text}}', "x['x', 'y']"],
    ['{{goal.split("a", 1)}}', ['  B', 'ke a cake ']],
    ['{{goal.rsplit("a", 1)}}', ['  Bake a c', 'ke ']],
    ['{{sol1.rsplit("a", 1) + sol1.split("o", 5)}}', ['oven', '', 'ven']],
    ['{{label.fixed(2)}} {{(label - 2).fixed(1)}}', '1.00 -1.0'],
    ["{{' '.join(['<image>'].times((choices.text | length) + 1))}}", '<image> <image> <image>'],
    ['{{choices.text.times(-1)}}', []],
    ['{{(written | from_json).a[1]}}', 'ü'],
    ['{{sol1 | json_text}}', 'oven'],
    ['{{(written | from_json) | json_text}}', '{"a": ["x \\"y\\"", "\\u00fc"], "b": null}'],
    ['{{goal if sol1 == "oven" else missing}}', '  Bake a cake '],
    ['{{"a" if not goal or sol1 != "oven" else "b" if "x" in choices.text and label else "c"}}', 'b'],
    ['{{"yes" if "ove" in sol1 else "no"}}', 'yes'],
    ['{{ [doc.get("sol1"), doc.get("hint")] }}', ['oven', null]],
    ['{{ [sol1, none, sol2].without(none) }}', ['oven', 'fridge']],
    ['{{ doc["sol1"] }}', 'oven'],
    ['{{ [sol1, none, sol2] | lettered }}', 'A. oven\nC. fridge'],
    ['{{ [sol1, "nan", sol2] | known | bracketed }}', '(A) oven\n(C) fridge'],
    [`{{ "['it', 'is']" | literal_list }}`, ['it', 'is']],
    ['{{ "<image 2> beside <image 1>".marked(["p", "q", "r"]) }}', ['p', 'q']],
    ['plain { text }', 'plain { text }'],
    ['', ''],
  ])('%s', (source, expected) => {
    expect(compileTemplate(source)(row)).toEqual(expected);
  });

  it.each([
    ['{{missing}}', 'ERR_LIBMOE_DATA', 'has no "missing"; it has goal, sol1'],
    ['{{choices.text[7]}}', 'ERR_LIBMOE_DATA', 'has no 7'],
    ['{{constructor}}', 'ERR_LIBMOE_DATA', 'has no "constructor"'],
    ['{{goal.__proto__}}', 'ERR_LIBMOE_DATA', 'has no "__proto__"'],
    ['{{choices.label.index("Z")}}', 'ERR_LIBMOE_DATA', '"Z" is not in'],
    ['x{{choices}}', 'ERR_LIBMOE_DATA', 'mixes text with'],
  ])('%s fails for the document', (source, code, message) => {
    const template = compileTemplate(source);
    expect(() => template(row)).toThrow(code);
    expect(() => template(row)).toThrow(message);
  });

  it.each([
    ['{% if x %}', 'no {% statements %}'],
    ['{{goal', 'without "}}"'],
    ['{{goal.constructor()}}', 'no method "constructor"'],
    ['{{goal|safe}}', 'no filter "safe"'],
    ['{{goal goal}}', 'unexpected "goal"'],
    ['{{a ? b}}', 'cannot read'],
    ['{{}}', 'ends too early'],
    ['{{[a, b}}', '"]" expected'],
  ])('%s is refused when compiled', (source, message) => {
    expect(() => compileTemplate(source)).toThrow('ERR_LIBMOE_CONFIG');
    expect(() => compileTemplate(source)).toThrow(message);
  });
});
