import { compareCodePoints } from './bpe-merges.ts';
import { jsonNormalizer, type Normalization, wordMark } from './sentence-normalization.ts';
import { wordSplit } from './word-encoder.ts';

/** A piece that is not learned: control tokens are left out of decoded text, symbols are not, bytes spell unknown characters. */
export interface SpecialPiece {
  text: string;
  kind: 'control' | 'symbol' | 'byte';
}

/**
 * The content of a Hugging Face tokenizer.json that encodes as SentencePiece would: `pieces` by id, the first of them `special`,
 * `merged` those that are made of others.
 */
export function tokenizerJson(
  pieces: readonly string[],
  special: readonly SpecialPiece[],
  merged: readonly string[],
  settings: { normalization: Normalization; addDummyPrefix: boolean; byteFallback: boolean; unknown: string },
): Record<string, unknown> {
  const ids = new Map(pieces.map((piece, id) => [piece, id]));
  const merges: [string, string][] = [];
  for (const piece of merged) {
    // SentencePiece joins whatever gives the piece, so every way to make it gets a rule, ways of frequent parts first.
    const characters = Array.from(piece);
    const ways: [string, string][] = [];
    for (let cut = 1; cut < characters.length; ++cut) {
      const left = characters.slice(0, cut).join('');
      const right = characters.slice(cut).join('');
      if (ids.has(left) && ids.has(right)) ways.push([left, right]);
    }
    ways.sort((a, b) => ids.get(a[0])! - ids.get(b[0])! || compareCodePoints(a[1], b[1]));
    merges.push(...ways);
  }
  const decoder: Record<string, unknown>[] = [
    { type: 'Replace', pattern: { String: wordMark }, content: ' ' },
    ...(settings.byteFallback ? [{ type: 'ByteFallback' }] : []),
    { type: 'Fuse' },
  ];
  if (settings.addDummyPrefix) decoder.push({ type: 'Strip', content: ' ', start: 1, stop: 0 });
  return {
    version: '1.0',
    truncation: null,
    padding: null,
    added_tokens: special.flatMap((piece, id) =>
      piece.kind === 'byte'
        ? []
        : [
            {
              id,
              content: piece.text,
              single_word: false,
              lstrip: false,
              rstrip: false,
              normalized: false,
              special: piece.kind === 'control',
            },
          ],
    ),
    normalizer: jsonNormalizer(settings.normalization, settings.addDummyPrefix),
    pre_tokenizer: wordSplit,
    post_processor: null,
    decoder: { type: 'Sequence', decoders: decoder },
    model: {
      type: 'BPE',
      dropout: null,
      unk_token: settings.unknown,
      continuing_subword_prefix: null,
      end_of_word_suffix: null,
      fuse_unk: true,
      byte_fallback: settings.byteFallback,
      ignore_merges: false,
      vocab: Object.fromEntries(pieces.map((piece, id) => [piece, id])),
      merges,
    },
  };
}
