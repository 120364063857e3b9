import { describe, expect, it } from 'vitest';
import { MersenneTwister } from '../../../ts/evaluation/index.ts';
import { anls } from '../../../ts/evaluation/scorers/anls.ts';
import { bleuCounts } from '../../../ts/evaluation/scorers/caption-bleu.ts';
import { ciderD } from '../../../ts/evaluation/scorers/caption-cider.ts';
import { type CaptionPair, captionRougeL } from '../../../ts/evaluation/scorers/caption-ngram.ts';
import { captionTokens } from '../../../ts/evaluation/scorers/caption-tokens.ts';
import { levenshtein } from '../../../ts/evaluation/scorers/levenshtein.ts';
import { rougeLF } from '../../../ts/evaluation/scorers/rouge-l.ts';
import {
  plainBleuCounts,
  plainCiderD,
  plainLevenshtein,
  plainRougeL,
  plainRougeLF,
  plainTokens,
} from './plain-texts.ts';

const random = new MersenneTwister(7);
const textOf = (letters: readonly string[], length: number): string =>
  Array.from({ length }, () => random.choice(letters)).join('');

describe('the fast ways of texts are the plain ones', () => {
  it('edit distance, of any length and any characters', () => {
    const alphabets = ['ab', 'abcdefgh ', 'aé中😀\u{10ffff}', '0x\ud800y\udc00'].map((all) => [...all]);
    const lengths = [0, 1, 2, 7, 31, 32, 33, 63, 64, 65, 96, 97, 140];
    for (const letters of alphabets)
      for (const n of lengths)
        for (const m of lengths) {
          const a = textOf(letters, n);
          const near = [...a].map((c) => (random.random() < 0.2 ? random.choice(letters) : c)).join('');
          for (const b of [textOf(letters, m), near, near.slice(0, m)])
            expect(levenshtein(a, b), `${a} and ${b}`).toBe(plainLevenshtein(a, b));
        }
    // Longer ones with parts taken out, put in and moved, which only the middle of the table may not do for.
    for (const letters of alphabets)
      for (let i = 0; i < 150; i++) {
        const a = textOf(letters, 60 + random.below(300));
        let b = a;
        for (let edits = random.below(5); edits > 0; edits--) {
          const at = random.below(b.length + 1);
          const part = random.choice([textOf(letters, 1 + random.below(60)), b.slice(0, random.below(60))]);
          b = b.slice(0, at) + part + b.slice(at + random.below(1 + random.below(60)));
        }
        const c = [...b].map((c) => (random.random() < 0.1 ? random.choice(letters) : c)).join('');
        for (const other of [b, c])
          expect(levenshtein(a, other), `${a} and ${other}`).toBe(plainLevenshtein(a, other));
      }
    expect(anls('Nokia 3310', ['nokia  3310', 'x'])).toBe(1);
  });

  const vocabulary = ['a', 'the', 'cat', 'dog', 'on', 'mat', 'red', "it's", '5.5', 'constructor'];
  // Some words stand only once in a corpus.
  const wordOf = (): string =>
    random.random() < 0.8 ? random.choice(vocabulary) : textOf([...'xyz'], 1 + random.below(6));
  const words = (most: number): string[] => Array.from({ length: random.below(most + 1) }, wordOf);
  const lengthOf = (): number => (random.random() < 0.2 ? 80 : 14);
  const corpora = [1, 2, 3, 17, 60, 200].map((count) =>
    Array.from(
      { length: count },
      (): CaptionPair => ({
        candidate: words(lengthOf()),
        references: Array.from({ length: random.below(6) }, () => words(lengthOf())),
      }),
    ),
  );

  it('BLEU and ROUGE-L of captions, to the last bit', () => {
    for (const pair of corpora.flat()) {
      expect(bleuCounts(pair)).toEqual(plainBleuCounts(pair));
      expect(captionRougeL(pair)).toBe(plainRougeL(pair));
    }
  });

  it('CIDEr-D, to the last bit', () => {
    for (const corpus of corpora) expect(ciderD(corpus)).toEqual(plainCiderD(corpus));
  });

  it('ROUGE-L on sets of words, to the last bit', () => {
    const blanks = [' ', ' ', ' ', '. ', '.', '..', '\n', '\u00a0', '\ufeff', '\u0085', ' . '];
    const textOfWords = (): string =>
      Array.from({ length: random.below(40) }, () => wordOf() + random.choice(blanks)).join('');
    for (let i = 0; i < 500; i++) {
      const [response, gold] = [textOfWords(), textOfWords()];
      expect(rougeLF(response, gold), `${response} and ${gold}`).toBe(plainRougeLF(response, gold));
    }
  });

  it('words of captions, which no rule joins over white space', () => {
    expect(captionTokens('The constructor cannot\u00a0wait. a. Mr. Fox\'s e-mail, "3,000" o’clock…')).toEqual(
      [
        ...[
          'the',
          'constructor',
          'can',
          'not',
          'wait',
          'a.',
          'mr.',
          'fox',
          "'s",
          'e-mail',
          '3,000',
          "o'clock",
        ],
      ],
    );
    const words = [
      'cat',
      'Dog',
      'cannot',
      'Gonna',
      'no',
      'Mr',
      'a',
      'U.S',
      'e-mail',
      '5',
      '5.5',
      '3:30',
      'Ä',
      '_',
    ];
    const marks = [
      '',
      '',
      '.',
      '.',
      ',',
      '!',
      '?',
      ';',
      ':',
      '...',
      '-',
      '--',
      '(',
      '"',
      "'",
      "''",
      '\u2019',
      '…',
      '/',
      '&',
    ];
    const ends = [
      "n't",
      "'s",
      "'re",
      "'",
      '$',
      '%',
      '😀',
      '\ud800',
      '\0',
      '\x1f',
      '\u0085',
      '\u200b',
      'İ',
      'ı',
    ];
    for (let i = 0; i < 4000; i++) {
      const chunks = Array.from({ length: random.below(8) }, () =>
        Array.from({ length: 1 + random.below(3) }, () =>
          random.choice(random.random() < 0.5 ? words : random.random() < 0.7 ? marks : ends),
        ).join(''),
      );
      const text = chunks.join(
        random.choice([' ', '\n', '\t ', '\u00a0', '\u2003', '\u3000', '\v', '\u2028', '\ufeff']),
      );
      expect(captionTokens(text), text).toEqual(plainTokens(text));
    }
  });
});
