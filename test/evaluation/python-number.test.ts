import { readFileSync } from 'node:fs';
import path from 'node:path';
import { describe, expect, it } from 'vitest';
import { pyFloat, pyFloatStr, pyInt, pyRound, pyTruncateStr } from '../../ts/evaluation/python-number.ts';
import {
  capitalize,
  punctuation,
  pythonClasses,
  splitWords,
  strip,
  stripOf,
} from '../../ts/evaluation/python-text.ts';

// Written by Python itself: test/golden/python/make.py.
const golden = JSON.parse(
  readFileSync(path.join(import.meta.dirname, '../golden/python/python.json'), 'utf8'),
) as {
  float: [string, string | null][];
  int: [string, string | null][];
  round: [number, number, string][];
  str: [number, string][];
  capitalize: [string, string][];
  split: [string, string[]][];
};

describe("Python's numbers", () => {
  it.each(golden.float)('float(%j)', (text, expected) => {
    const value = pyFloat(text);
    expect(value === null ? null : pyFloatStr(value)).toBe(expected);
  });
  it.each(golden.int)('int(%j)', (text, expected) => {
    expect(pyInt(text)?.toString() ?? null).toBe(expected);
  });
  it(`rounds ${golden.round.length} values as Python does`, () => {
    const wrong = golden.round.filter(([value, digits, text]) => pyFloatStr(pyRound(value, digits)) !== text);
    expect(wrong).toEqual([]);
  });
  it('writes floats as Python does', () => {
    expect(golden.str.map(([value]) => pyFloatStr(value))).toEqual(golden.str.map(([, text]) => text));
    expect([Number.NaN, Number.NEGATIVE_INFINITY, -0].map(pyFloatStr)).toEqual(['nan', '-inf', '-0.0']);
  });
  it('truncates to whole numbers of any size', () => {
    expect([14.9, -3.7, -0.5, 1e22, Number.NaN, Number.POSITIVE_INFINITY].map(pyTruncateStr)).toEqual([
      '14',
      '-3',
      '0',
      '10000000000000000000000',
      null,
      null,
    ]);
  });
});

describe("Python's text", () => {
  it.each(golden.capitalize)('capitalize(%j)', (text, expected) => expect(capitalize(text)).toBe(expected));
  it.each(golden.split)('split(%j)', (text, expected) => expect(splitWords(text)).toEqual(expected));
  it('strips its own white space, and any characters', () => {
    expect(strip('\x1c\x85 a \u3000')).toBe('a');
    expect(strip('\ufeffa')).toBe('\ufeffa');
    expect(stripOf('..a.b,', '.')).toBe('a.b,');
    expect(stripOf('...', '.')).toBe('');
  });
  it('has 32 marks of punctuation', () => {
    const marks = Array.from({ length: 0x250 }, (_, i) => String.fromCharCode(i)).filter((c) =>
      c.match(punctuation),
    );
    expect(marks.join('')).toBe('!"#$%&\'()*+,-./:;<=>?@[\\]^_`{|}~');
  });
  it('knows words and their ends in every script', () => {
    const { word, boundary, digit } = pythonClasses;
    expect('über,straße'.match(new RegExp(`${word}+`, 'gu'))).toEqual(['über', 'straße']);
    expect('ä5 5'.replace(new RegExp(`${boundary}5${boundary}`, 'gu'), '#')).toBe('ä5 #');
    expect(new RegExp(`^${digit}$`, 'u').test('٣')).toBe(true);
  });
});
