/** How text is cleaned before it is cut into pieces. `nmt_nfkc` is SentencePiece's default, `none` its `identity`. */
export type Normalization = 'nmt_nfkc' | 'none';

/** What SentencePiece writes for a space inside a piece. */
export const wordMark = '\u2581';

// nmt_nfkc is NFKC with three exceptions, read off the behaviour of SentencePiece's normaliser over every code point:
// some controls vanish, white and zero-width characters become a space, and the full-width tilde stays.
const vanishing = '[\u0001-\u0008\u000b\u000e-\u001f\u007f\u008f\u009f]';
const whitening = '[\u0009\u000a\u000c\u000d\u1680\u200b\u200c\u200e\u200f\u2028\u2029\u2581\ufeff\ufffd]';
const fullWidthTilde = '\uff5e';
// A private-use character carries the tilde across NFKC, which would make it an ASCII one.
const tildeCarrier = '\uf8f6';

/** Text that nmt_nfkc changes only at its white space. */
const plainText = /^[\t\n\f\r\x20-\x7e]*$/;
const vanishingPattern = new RegExp(vanishing, 'gu');
const whiteningPattern = new RegExp(whitening, 'gu');

function clean(text: string, normalization: Normalization): string {
  if (normalization === 'none') return text;
  return text
    .replace(vanishingPattern, '')
    .replace(whiteningPattern, ' ')
    .replaceAll(fullWidthTilde, tildeCarrier)
    .normalize('NFKC')
    .replaceAll(tildeCarrier, fullWidthTilde);
}

/** The words of a sentence after normalisation, without their word marks; runs of spaces count once, outer ones not at all. */
export function normalizedWords(sentence: string, normalization: Normalization): string[] {
  if (normalization === 'nmt_nfkc' && plainText.test(sentence)) {
    return sentence.split(/[\t\n\f\r ]+/).filter((word) => word !== '');
  }
  const words = clean(sentence, normalization).split(normalization === 'none' ? /[ \u2581]+/ : / +/);
  return words.filter((word) => word !== '');
}

interface JsonNormalizer {
  type: string;
  [key: string]: unknown;
}

const replaceRegex = (pattern: string, content: string): JsonNormalizer => ({
  type: 'Replace',
  pattern: { Regex: pattern },
  content,
});
const replaceText = (pattern: string, content: string): JsonNormalizer => ({
  type: 'Replace',
  pattern: { String: pattern },
  content,
});

/**
 * The same normalisation as the `normalizer` of a tokenizer.json. Text boundaries are written as look-arounds because `^` and `$`
 * mean line boundaries to one of the two libraries that read the file and text boundaries to the other.
 */
export function jsonNormalizer(normalization: Normalization, addDummyPrefix: boolean): JsonNormalizer {
  const steps: JsonNormalizer[] = [];
  if (normalization === 'nmt_nfkc') {
    steps.push(
      replaceRegex(vanishing, ''),
      replaceRegex(whitening, ' '),
      replaceText(fullWidthTilde, tildeCarrier),
      { type: 'NFKC' },
      replaceText(tildeCarrier, fullWidthTilde),
    );
  }
  steps.push(replaceRegex(`[ ${wordMark}]+`, wordMark), replaceRegex(`${wordMark}(?![\\s\\S])`, ''));
  if (addDummyPrefix) {
    // Prepending to an empty text differs between the libraries, hence the step that takes a lone mark away again.
    steps.push(
      { type: 'Prepend', prepend: wordMark },
      replaceRegex(`(?<![\\s\\S])${wordMark}(?![\\s\\S])`, ''),
      replaceRegex(`(?<![\\s\\S])${wordMark}${wordMark}`, wordMark),
    );
  } else {
    steps.push(replaceRegex(`(?<![\\s\\S])${wordMark}`, ''));
  }
  return { type: 'Sequence', normalizers: steps };
}
