import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { parseJson, readJson } from '../../ts/storage/json.ts';

describe('parseJson', () => {
  it.each([
    ['{"a": 1,}', 'file:1:9', 'a string'],
    ['{"a": 1\n "b": 2}', 'file:2:2', '"," or "}"'],
    ['[1, 2', 'file:1:6', 'the end of the text'],
    ['', 'file:1:1', 'a value'],
    ['{"a": tru}', 'file:1:7', 'a value'],
    ['[01]', 'file:1:3', '"," or "]"'],
    ['{"a": "x\ny"}', 'file:1:7', 'control character'],
    ['1 2', 'file:1:3', 'the end of the text'],
    ['{\n  "a": {\n    b: 1\n  }\n}', 'file:3:5', 'a string'],
  ])('points at the mistake of %j', (text, where, what) => {
    expect(() => parseJson(text, 'file')).toThrow(where);
    expect(() => parseJson(text, 'file')).toThrow(what);
  });

  it('accepts what JSON.parse accepts and refuses the rest with a position', () => {
    fc.assert(
      fc.property(fc.json(), fc.nat(), (text, at) => {
        expect(parseJson(text, 'f')).toEqual(JSON.parse(text));
        const broken = `${text.slice(0, at % (text.length + 1))}~${text.slice(at % (text.length + 1))}`;
        if (broken.includes('"~') || /"[^"]*~/.test(broken)) return; // inside a string a tilde is no mistake
        expect(() => parseJson(broken, 'f')).toThrow(/f:1:\d+ is not valid JSON: expected/);
      }),
    );
  });

  it('names a missing file', () => {
    expect(() => readJson('/nowhere/at.json')).toThrow(
      'ERR_LIBMOE_FILE: cannot read /nowhere/at.json (no such file)',
    );
  });
});
