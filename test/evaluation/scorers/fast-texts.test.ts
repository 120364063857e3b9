import { describe, expect, it } from 'vitest';
import { MersenneTwister } from '../../../ts/evaluation/index.ts';
import { anls } from '../../../ts/evaluation/scorers/anls.ts';
import { type BleuCounts, bleuCounts } from '../../../ts/evaluation/scorers/caption-bleu.ts';
import { ciderD } from '../../../ts/evaluation/scorers/caption-cider.ts';
import { type CaptionPair, captionRougeL } from '../../../ts/evaluation/scorers/caption-ngram.ts';
import { captionTokens } from '../../../ts/evaluation/scorers/caption-tokens.ts';
import { levenshtein } from '../../../ts/evaluation/scorers/levenshtein.ts';

// The definitions, written down without a thought of time.

function plainLevenshtein(a: string, b: string): number {
  if (a === b) return 0;
  const x = [...a];
  const y = [...b];
  if (x.length === 0 || y.length === 0) return Math.max(x.length, y.length);
  const row = Uint32Array.from({ length: y.length + 1 }, (_, j) => j);
  for (let i = 1; i <= x.length; i++) {
    let diagonal = row[0]!;
    row[0] = i;
    const at = x[i - 1];
    for (let j = 1; j <= y.length; j++) {
      const above = row[j]!;
      const replaced = diagonal + (at === y[j - 1] ? 0 : 1);
      const shorter = Math.min(above, row[j - 1]!) + 1;
      row[j] = Math.min(replaced, shorter);
      diagonal = above;
    }
  }
  return row[y.length]!;
}

function ngrams(tokens: readonly string[]): Map<string, number>[] {
  return Array.from({ length: 4 }, (_, k) => {
    const counts = new Map<string, number>();
    for (let i = 0; i + k < tokens.length; i++) {
      const gram = k === 0 ? tokens[i]! : tokens.slice(i, i + k + 1).join('\u0000');
      counts.set(gram, (counts.get(gram) ?? 0) + 1);
    }
    return counts;
  });
}

function plainBleuCounts({ candidate, references }: CaptionPair): BleuCounts {
  const most = Array.from({ length: 4 }, () => new Map<string, number>());
  for (const reference of references)
    for (const [k, counts] of ngrams(reference).entries())
      for (const [gram, count] of counts) if (count > (most[k]!.get(gram) ?? 0)) most[k]!.set(gram, count);
  const own = ngrams(candidate);
  const lengths = references.map((reference) => reference.length);
  const closest = lengths.sort(
    (a, b) => Math.abs(a - candidate.length) - Math.abs(b - candidate.length) || a - b,
  )[0];
  return {
    length: candidate.length,
    referenceLength: closest ?? 0,
    guesses: own.map((_, k) => Math.max(0, candidate.length - k)),
    correct: own.map((counts, k) => {
      let sum = 0;
      for (const [gram, count] of counts) sum += Math.min(count, most[k]!.get(gram) ?? 0);
      return sum;
    }),
  };
}

function longestCommon(a: readonly string[], b: readonly string[]): number {
  const row = new Uint32Array(b.length + 1);
  for (const token of a) {
    let diagonal = 0;
    for (let j = 1; j <= b.length; j++) {
      const above = row[j]!;
      row[j] = token === b[j - 1] ? diagonal + 1 : Math.max(above, row[j - 1]!);
      diagonal = above;
    }
  }
  return row[b.length]!;
}

function plainRougeL({ candidate, references }: CaptionPair): number {
  let precision = 0;
  let recall = 0;
  for (const reference of references) {
    const common = longestCommon(candidate, reference);
    if (candidate.length > 0) precision = Math.max(precision, common / candidate.length);
    if (reference.length > 0) recall = Math.max(recall, common / reference.length);
  }
  const beta2 = 1.2 * 1.2;
  return precision === 0 || recall === 0
    ? 0
    : ((1 + beta2) * precision * recall) / (recall + beta2 * precision);
}

interface Weighted {
  weights: Map<string, number>[];
  norms: number[];
  length: number;
}

function plainCiderD(corpus: readonly CaptionPair[]): number[] {
  const frequency = new Map<string, number>();
  const grams = corpus.map(({ candidate, references }) => ({
    candidate: ngrams(candidate),
    references: references.map(ngrams),
  }));
  for (const { references } of grams) {
    const seen = new Set(references.flatMap((orders) => orders.flatMap((counts) => [...counts.keys()])));
    for (const gram of seen) frequency.set(gram, (frequency.get(gram) ?? 0) + 1);
  }
  const images = Math.log(corpus.length);
  const weigh = (orders: Map<string, number>[]): Weighted => {
    const weights = orders.map(
      (counts) =>
        new Map(
          [...counts].map(([gram, count]): [string, number] => [
            gram,
            count * (images - Math.log(Math.max(1, frequency.get(gram) ?? 0))),
          ]),
        ),
    );
    const norms = weights.map((map) => Math.sqrt([...map.values()].reduce((sum, w) => sum + w * w, 0)));
    // The original takes the number of bigrams for the length.
    return { weights, norms, length: [...orders[1]!.values()].reduce((sum, count) => sum + count, 0) };
  };
  return grams.map(({ candidate, references }) => {
    const own = weigh(candidate);
    let sum = 0;
    for (const reference of references.map(weigh)) {
      const penalty = Math.exp(-((own.length - reference.length) ** 2) / (2 * 6 ** 2));
      for (let k = 0; k < 4; k++) {
        let dot = 0;
        for (const [gram, weight] of own.weights[k]!) {
          const other = reference.weights[k]!.get(gram) ?? 0;
          dot += Math.min(weight, other) * other;
        }
        const norm = own.norms[k]! * reference.norms[k]!;
        sum += ((norm === 0 ? dot : dot / norm) * penalty) / 4;
      }
    }
    return references.length === 0 ? 0 : (10 * sum) / references.length;
  });
}

const SPLIT: Readonly<Record<string, readonly string[]>> = {
  cannot: ['can', 'not'],
  gonna: ['gon', 'na'],
  gotta: ['got', 'ta'],
  wanna: ['wan', 'na'],
  lemme: ['lem', 'me'],
  gimme: ['gim', 'me'],
};
const ABBREVIATION =
  /^(?:(?:\p{L}\.)+\p{L}?\.?|(?:mr|mrs|ms|dr|st|jr|sr|vs|prof|etc|no|inc|ltd|co|corp|ave|mt)\.)$/u;
// A number, a word with inner hyphens, periods, slashes or apostrophes, or any other character alone.
const PIECE =
  /[+-]?\p{Nd}+(?:[.,:/]\p{Nd}+)*(?:\p{L}[\p{L}\p{N}-]*)?|[\p{L}\p{N}_]+(?:[-./'&@][\p{L}\p{N}_]+)*\.?|\.{3}|-{2,}|'[\p{L}]+|\S/gu;
const FANCY = /[’‘“”–—…]/;
const CONTRACTION = /^(.+?)(n't|'(?:s|re|ve|ll|d|m))$/;
const PUNCTUATION = /^(?:''|'|``|`|"|[()[\]{}.?!,:;]|-+|\.\.\.)$/;

function plainTokens(text: string): string[] {
  const lower = text.toLowerCase();
  const plain = FANCY.test(lower)
    ? lower.replace(/[’‘]/g, "'").replace(/[“”]/g, '"').replace(/[–—]/g, '--').replaceAll('…', '...')
    : lower;
  const tokens: string[] = [];
  for (const [piece] of plain.matchAll(PIECE)) {
    if (PUNCTUATION.test(piece)) continue;
    const word = piece.endsWith('.') && !ABBREVIATION.test(piece) ? piece.replace(/\.+$/, '') : piece;
    if (word === '') continue;
    const known = Object.hasOwn(SPLIT, word) ? SPLIT[word] : undefined;
    const contraction = word.includes("'") ? CONTRACTION.exec(word) : null;
    if (known !== undefined) tokens.push(...known);
    else if (contraction !== null) tokens.push(contraction[1]!, contraction[2]!);
    else tokens.push(word);
  }
  return tokens;
}

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
  const words = (most: number): string[] =>
    Array.from({ length: random.below(most + 1) }, () => random.choice(vocabulary));
  const corpora = [1, 2, 17, 60].map((count) =>
    Array.from(
      { length: count },
      (): CaptionPair => ({
        candidate: words(random.random() < 0.2 ? 80 : 12),
        references: Array.from({ length: random.below(6) }, () => words(14)),
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
      const text = chunks.join(random.choice([' ', '\n', '\t ', '\u00a0', '\u2003', '\ufeff']));
      expect(captionTokens(text), text).toEqual(plainTokens(text));
    }
  });
});
