import { Buffer } from 'node:buffer';
import { dirname, join } from 'node:path';
import { fail } from '../native/index.ts';
import { writeFileAtomically } from '../storage/atomic.ts';
import { type CountedWord, learnMerges } from './bpe-merges.ts';
import { pauses } from './pause.ts';
import { type Normalization, normalizedWords, wordMark } from './sentence-normalization.ts';
import { type SpecialPiece, tokenizerJson } from './tokenizer-json.ts';
import { quoted } from './word-encoder.ts';

/** Options of {@link trainTokenizer}; the defaults are SentencePiece's, with digits split as LibMoE does. */
export interface TokenizerTrainingOptions {
  /** Number of ids, special tokens and characters included. */
  vocabularySize: number;
  /** Every digit is a token of its own (default true). */
  splitDigits?: boolean;
  /** Share of the text's characters that must be in the vocabulary; rarer ones are unknown (default 0.9995). */
  characterCoverage?: number;
  /** Adds the 256 byte tokens, into which unknown characters are spelt (default false: they become `<unk>`). */
  byteFallback?: boolean;
  /** Further control tokens, never produced from training text, after `<unk>` 0, `<s>` 1, `</s>` 2. */
  specialTokens?: readonly string[];
  /** Texts that are always one token. */
  userDefinedSymbols?: readonly string[];
  normalization?: Normalization;
  /** A text is encoded as if a space stood before it (default true). */
  addDummyPrefix?: boolean;
  /** Longest piece in code points (default 16). */
  maxPieceLength?: number;
  /** A piece holds letters of one Unicode script (default true). */
  splitByUnicodeScript?: boolean;
  /** A sentence is a line (default) or a whole text. Sentences matter only for `maxSentenceBytes`. */
  sentences?: 'lines' | 'texts';
  /** Longer sentences are left out (default Infinity: none; SentencePiece and LibMoE 4192). */
  maxSentenceBytes?: number;
  /** Ends the training; nothing is written. */
  signal?: AbortSignal;
}

/** What training saw and did. */
export interface TokenizerTrainingStatistics {
  sentences: number;
  /** Left out because of `maxSentenceBytes` or the reserved character U+2585. */
  skippedSentences: number;
  distinctWords: number;
  characters: number;
  alphabet: number;
  seconds: number;
}

/** A trained vocabulary and its Hugging Face form. */
export interface TrainedTokenizer {
  /** Piece by id. */
  pieces: string[];
  /** Content of tokenizer.json. */
  json: Record<string, unknown>;
  /** Content of tokenizer_config.json. */
  config: Record<string, unknown>;
  statistics: TokenizerTrainingStatistics;
}

const unknownMark = '\u2585';
const unknown = '<unk>';
const begin = '<s>';
const end = '</s>';
const barrier = -1;

/**
 * Trains a byte-pair-encoding vocabulary as SentencePiece does (spec/algorithms.md §4.3): special tokens first, then the merged pieces in
 * the order of their making, then the characters by frequency. The event loop turns while it works.
 * @throws ERR_LIBMOE_ARGUMENT for options out of range, ERR_LIBMOE_TOKENIZER when the text is empty or cannot give that many pieces,
 * ERR_LIBMOE_STOPPED when the signal was aborted.
 */
export async function trainTokenizer(
  texts: Iterable<string> | AsyncIterable<string>,
  options: TokenizerTrainingOptions,
): Promise<TrainedTokenizer> {
  const started = performance.now();
  const settings = checked(options);
  const special = specialPieces(settings);
  const counts = new Map<string, number>();
  const statistics = { sentences: 0, skippedSentences: 0 };
  const pause = pauses('training a tokenizer', options.signal);
  for await (const text of texts) {
    if (typeof text !== 'string') {
      fail('ERR_LIBMOE_ARGUMENT', `training texts must be strings, got ${typeof text}`);
    }
    for (const sentence of settings.sentences === 'lines' ? text.split('\n') : [text]) {
      const pausing = pause();
      if (pausing) await pausing;
      if (Buffer.byteLength(sentence) > settings.maxSentenceBytes || sentence.includes(unknownMark)) {
        statistics.skippedSentences += 1;
        continue;
      }
      let first = true;
      for (const word of normalizedWords(sentence, settings.normalization)) {
        const marked = first && !settings.addDummyPrefix ? word : wordMark + word;
        counts.set(marked, (counts.get(marked) ?? 0) + 1);
        first = false;
      }
      if (!first) statistics.sentences += 1;
    }
  }
  const reserved = [...special.map((piece) => piece.text), ...settings.userDefinedSymbols];
  const words = splitReserved(counts, reserved);
  if (words.length === 0) {
    fail(
      'ERR_LIBMOE_TOKENIZER',
      `no training text is left (${statistics.skippedSentences} sentences were longer than ${settings.maxSentenceBytes} bytes): ` +
        'give more text, or raise maxSentenceBytes',
    );
  }
  const { alphabet, characters } = requiredCharacters(words, settings.characterCoverage);
  const fixed = special.length + alphabet.length;
  if (fixed >= settings.vocabularySize) {
    fail(
      'ERR_LIBMOE_TOKENIZER',
      `vocabularySize must be above ${fixed} (special tokens and ${alphabet.length} characters), got ${settings.vocabularySize}: ` +
        'raise it or lower characterCoverage',
    );
  }
  const inAlphabet = new Set(alphabet);
  for (const word of words) {
    word.codePoints = word.codePoints.map((point) => (inAlphabet.has(point) ? point : barrier));
  }
  const wanted = settings.vocabularySize - fixed;
  const rules = {
    maxLength: settings.maxPieceLength,
    splitDigits: settings.splitDigits,
    splitScripts: settings.splitByUnicodeScript,
  };
  const merged = await learnMerges(words, wanted, rules, pause);
  if (merged.length < wanted) {
    fail(
      'ERR_LIBMOE_TOKENIZER',
      `the text gives at most ${fixed + merged.length} tokens, vocabularySize is ${settings.vocabularySize}: lower it or give more text`,
    );
  }
  const pieces = [
    ...special.map((piece) => piece.text),
    ...merged,
    ...alphabet.map((point) => String.fromCodePoint(point)),
  ];
  return {
    pieces,
    json: tokenizerJson(pieces, special, merged, { ...settings, unknown }),
    config: {
      tokenizer_class: 'PreTrainedTokenizerFast',
      bos_token: begin,
      eos_token: end,
      unk_token: unknown,
      clean_up_tokenization_spaces: false,
      add_bos_token: false,
      add_eos_token: false,
    },
    statistics: {
      ...statistics,
      distinctWords: counts.size,
      characters,
      alphabet: alphabet.length,
      seconds: (performance.now() - started) / 1000,
    },
  };
}

/**
 * Writes tokenizer.json (to `path` itself when it ends in .json, else into the folder `path`) and tokenizer_config.json beside it.
 * Returns the path of tokenizer.json.
 */
export function writeTokenizer(path: string, trained: Pick<TrainedTokenizer, 'json' | 'config'>): string {
  const file = path.endsWith('.json') ? path : join(path, 'tokenizer.json');
  writeFileAtomically(
    join(dirname(file), 'tokenizer_config.json'),
    `${JSON.stringify(trained.config, null, 2)}\n`,
  );
  writeFileAtomically(file, `${JSON.stringify(trained.json, null, 1)}\n`);
  return file;
}

type Settings = Required<Omit<TokenizerTrainingOptions, 'signal'>>;

function checked(options: TokenizerTrainingOptions): Settings {
  const settings: Settings = {
    vocabularySize: options.vocabularySize,
    splitDigits: options.splitDigits ?? true,
    characterCoverage: options.characterCoverage ?? 0.9995,
    byteFallback: options.byteFallback ?? false,
    specialTokens: options.specialTokens ?? [],
    userDefinedSymbols: options.userDefinedSymbols ?? [],
    normalization: options.normalization ?? 'nmt_nfkc',
    addDummyPrefix: options.addDummyPrefix ?? true,
    maxPieceLength: options.maxPieceLength ?? 16,
    splitByUnicodeScript: options.splitByUnicodeScript ?? true,
    sentences: options.sentences ?? 'lines',
    maxSentenceBytes: options.maxSentenceBytes ?? Number.POSITIVE_INFINITY,
  };
  const { vocabularySize, characterCoverage, maxPieceLength } = settings;
  if (!Number.isInteger(vocabularySize) || vocabularySize < 4 || vocabularySize > 1_000_000) {
    fail(
      'ERR_LIBMOE_ARGUMENT',
      `vocabularySize must be a whole number from 4 to 1000000, got ${vocabularySize}`,
    );
  }
  if (!(characterCoverage >= 0.98 && characterCoverage <= 1)) {
    fail('ERR_LIBMOE_ARGUMENT', `characterCoverage must lie between 0.98 and 1, got ${characterCoverage}`);
  }
  if (!Number.isInteger(maxPieceLength) || maxPieceLength < 1 || maxPieceLength > 512) {
    fail('ERR_LIBMOE_ARGUMENT', `maxPieceLength must be a whole number from 1 to 512, got ${maxPieceLength}`);
  }
  if (settings.normalization !== 'nmt_nfkc' && settings.normalization !== 'none') {
    fail(
      'ERR_LIBMOE_ARGUMENT',
      `normalization must be "nmt_nfkc" or "none", got "${String(settings.normalization)}"`,
    );
  }
  return settings;
}

function specialPieces(settings: Settings): SpecialPiece[] {
  const pieces: SpecialPiece[] = [unknown, begin, end, ...settings.specialTokens].map((text) => ({
    text,
    kind: 'control',
  }));
  for (const text of settings.userDefinedSymbols) pieces.push({ text, kind: 'symbol' });
  for (let byte = 0; settings.byteFallback && byte < 256; ++byte) {
    pieces.push({ text: `<0x${byte.toString(16).toUpperCase().padStart(2, '0')}>`, kind: 'byte' });
  }
  const seen = new Set<string>();
  for (const { text } of pieces) {
    if (text === '' || seen.has(text)) {
      fail(
        'ERR_LIBMOE_ARGUMENT',
        `special tokens and user-defined symbols must be non-empty and distinct, got "${text}" twice`,
      );
    }
    seen.add(text);
  }
  return pieces;
}

/** Words as code points; texts that are tokens of their own become barriers, so that no piece is learned from them. */
function splitReserved(counts: ReadonlyMap<string, number>, reserved: readonly string[]): CountedWord[] {
  const longestFirst = [...reserved].sort((a, b) => b.length - a.length);
  const pattern = new RegExp(longestFirst.map(quoted).join('|'), 'gu');
  const words: CountedWord[] = [];
  for (const [word, count] of counts) {
    const codePoints: number[] = [];
    let from = 0;
    for (const match of word.matchAll(pattern)) {
      for (const character of word.slice(from, match.index)) codePoints.push(character.codePointAt(0)!);
      codePoints.push(barrier);
      from = match.index + match[0].length;
    }
    for (const character of word.slice(from)) codePoints.push(character.codePointAt(0)!);
    words.push({ codePoints, count });
  }
  return words;
}

/** The most frequent characters that together reach the coverage, most frequent first, ties by code point. */
function requiredCharacters(
  words: readonly CountedWord[],
  coverage: number,
): { alphabet: number[]; characters: number } {
  const counts = new Map<number, number>();
  let characters = 0;
  for (const { codePoints, count } of words) {
    for (const point of codePoints) {
      if (point <= 0 || point === 0x09) continue;
      counts.set(point, (counts.get(point) ?? 0) + count);
      characters += count;
    }
  }
  const sorted = [...counts].sort((a, b) => b[1] - a[1] || a[0] - b[0]);
  const alphabet: number[] = [];
  let covered = 0;
  for (const [point, count] of sorted) {
    // The comparison is made in single precision there, which decides about the last character now and then.
    if (Math.fround(covered / characters) >= Math.fround(coverage)) break;
    covered += count;
    alphabet.push(point);
  }
  return { alphabet, characters };
}
