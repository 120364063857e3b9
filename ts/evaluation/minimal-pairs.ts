import { readFileSync } from 'node:fs';
import { z } from 'zod';
import { fail } from '../native/index.ts';
import { registerDataset } from './dataset.ts';
import { MersenneTwister } from './mersenne.ts';

/** A sentence against the same sentence with two adjacent words swapped. */
export interface WordOrderPair {
  [column: string]: unknown;
  sentence_good: string;
  sentence_bad: string;
  /** Index of the document it comes from. */
  document: number;
  /** Index of the first of the two swapped words. */
  position: number;
}

/** How many pairs are made, and of which sentences. */
export interface WordOrderOptions {
  /** Pairs wanted at most. */
  pairs: number;
  seed?: number;
  /** Words of a sentence that is taken, at least and at most. */
  minWords?: number;
  maxWords?: number;
}

/**
 * Minimal pairs from any text, in the manner of BLiMP (Warstadt et al. 2020, arXiv 1912.00582) but home-made: a model that knows
 * the order of words finds the original sentence likelier. Both sentences have the same words, so neither length nor
 * vocabulary gives the answer away; the swapped words are two different plain lower-case words inside the sentence, so
 * capitals and punctuation stay where they belong. Deterministic: same texts and seed, same pairs. Sentences are taken in
 * turn from a shuffled order over all documents.
 * @throws ERR_LIBMOE_ARGUMENT for impossible options, ERR_LIBMOE_DATA when no sentence fits
 */
export function wordOrderPairs(documents: readonly string[], options: WordOrderOptions): WordOrderPair[] {
  const { pairs, seed = 1234, minWords = 6, maxWords = 25 } = options;
  if (!Number.isInteger(pairs) || pairs < 1)
    fail('ERR_LIBMOE_ARGUMENT', `pairs must be a positive integer, got ${pairs}`);
  if (!(minWords >= 4 && maxWords >= minWords))
    fail(
      'ERR_LIBMOE_ARGUMENT',
      `a swap inside a sentence needs 4 <= minWords <= maxWords, got ${minWords} and ${maxWords}`,
    );
  const candidates: { sentence: string[]; document: number; places: number[] }[] = [];
  const seen = new Set<string>();
  for (const [document, text] of documents.entries())
    for (const sentence of sentences(text)) {
      const words = sentence.split(' ');
      if (words.length < minWords || words.length > maxWords || seen.has(sentence)) continue;
      seen.add(sentence);
      const places = swappable(words);
      if (places.length > 0) candidates.push({ sentence: words, document, places });
    }
  if (candidates.length === 0)
    fail(
      'ERR_LIBMOE_DATA',
      `no sentence of ${minWords} to ${maxWords} words with two plain words to swap in ${documents.length} documents`,
    );
  const random = new MersenneTwister(seed);
  random.shuffle(candidates);
  return candidates.slice(0, pairs).map(({ sentence, document, places }) => {
    const position = random.choice(places);
    const swapped = [...sentence];
    swapped[position] = sentence[position + 1]!;
    swapped[position + 1] = sentence[position]!;
    return { sentence_good: sentence.join(' '), sentence_bad: swapped.join(' '), document, position };
  });
}

/** Sentences of a text, white space collapsed; a sentence ends at . ! ? before a space and a capital or a quote. */
function sentences(text: string): string[] {
  return text
    .split(/\n\s*\n/)
    .flatMap((paragraph) =>
      paragraph
        .replace(/\s+/g, ' ')
        .trim()
        .split(/(?<=[.!?]["”’']?) (?=["“‘']?\p{Lu})/u),
    )
    .filter((sentence) => /^["“‘']?\p{Lu}.*[.!?]["”’']?$/u.test(sentence));
}

/** Positions of two neighbours that may be swapped: both plain lower-case words, different, not at an end. */
function swappable(words: readonly string[]): number[] {
  const plain = (word: string): boolean => /^\p{Ll}+$/u.test(word);
  const places: number[] = [];
  for (let i = 1; i + 2 < words.length; i++)
    if (plain(words[i]!) && plain(words[i + 1]!) && words[i] !== words[i + 1]) places.push(i);
  return places;
}

registerDataset('word-order', {
  options: z.strictObject({
    documents: z.array(z.string()).min(1).optional(),
    data_files: z.union([z.string(), z.array(z.string())]).optional(),
    pairs: z.int().positive().default(500),
    seed: z.int().default(1234),
    min_words: z.int().default(6),
    max_words: z.int().default(25),
  }),
  load: (
    { documents, data_files: files, pairs, seed, min_words: minWords, max_words: maxWords },
    context,
  ) => {
    if ((documents === undefined) === (files === undefined))
      fail(
        'ERR_LIBMOE_CONFIG',
        'data set word-order takes either documents (texts) or data_files (text files)',
      );
    const texts =
      documents ??
      (Array.isArray(files) ? files : [files as string]).map((file) =>
        readFileSync(context.find(file), 'utf8'),
      );
    return wordOrderPairs(texts, { pairs, seed, minWords, maxWords });
  },
});
