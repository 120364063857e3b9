import { isDeepStrictEqual } from 'node:util';
import { jsonNormalizer, type Normalization, normalizedWords, wordMark } from './sentence-normalization.ts';

/** The pre-tokenizer that {@link trainTokenizer} writes: one word at a time, its mark included. */
export const wordSplit = {
  type: 'Split',
  pattern: { Regex: `${wordMark}[^${wordMark}]*|[^${wordMark}]+` },
  behavior: 'Isolated',
  invert: false,
};

/**
 * A pre-tokenizer for a tokenizer.json of SentencePiece's kind that has none, so that words are merged one by one and remembered instead of a
 * text as one long word: where no token of the vocabulary reaches from one word into the next, none can be made that does, and the ids stay
 * the same. Undefined where that is not so.
 */
export function impliedWordSplit(json: Record<string, unknown>): object | undefined {
  const { type, vocab } = json.model as { type?: string; vocab: Record<string, number> };
  const before = json.pre_tokenizer as { type?: string; replacement?: string } | null | undefined;
  const metaspace = before?.type === 'Metaspace' && before.replacement === wordMark;
  if (type !== 'BPE' || !(metaspace || before === null) || Array.isArray(vocab) || !(wordMark in vocab))
    return undefined;
  const crosses = new RegExp(`[^${wordMark}]${wordMark}`);
  for (const token in vocab) if (crosses.test(token)) return undefined;
  const split = { ...wordSplit, pattern: { Regex: `${wordMark}+[^${wordMark}]*|[^${wordMark}]+` } };
  return metaspace ? { type: 'Sequence', pretokenizers: [before, split] } : split;
}

interface AddedToken {
  id: number;
  content: string;
  normalized?: boolean;
  lstrip?: boolean;
  rstrip?: boolean;
  single_word?: boolean;
}

/** Cached words at most; natural text has far fewer, and a cache that overflows starts anew. */
const cacheLimit = 500_000;

/**
 * A fast way through tokenizers that {@link trainTokenizer} made: normalises with our own code and remembers the ids of every word.
 * Undefined for any other tokenizer. `encodeWord` gives the ids of one word with its mark.
 */
export function wordEncoder(
  json: Record<string, unknown>,
  encodeWord: (word: string) => number[],
): ((text: string) => number[]) | undefined {
  if (!isDeepStrictEqual(json.pre_tokenizer, wordSplit) || json.post_processor !== null) return undefined;
  const kinds = (['nmt_nfkc', 'none'] as const).flatMap((normalization) =>
    [true, false].map((dummyPrefix) => ({ normalization, dummyPrefix })),
  );
  const kind = kinds.find((k) =>
    isDeepStrictEqual(json.normalizer, jsonNormalizer(k.normalization, k.dummyPrefix)),
  );
  const added = json.added_tokens as AddedToken[];
  if (
    kind === undefined ||
    added.some((token) => token.normalized || token.lstrip || token.rstrip || token.single_word)
  ) {
    return undefined;
  }
  const reserved = new Map(added.map((token) => [token.content, token.id]));
  const longestFirst = [...reserved.keys()].sort((a, b) => b.length - a.length).map(quoted);
  const splitter = longestFirst.length > 0 ? new RegExp(`(${longestFirst.join('|')})`, 'u') : undefined;
  const cache = new Map<string, number[]>();
  const merge = merger(json.model as MergeModel);
  const encodeSection = (section: string, normalization: Normalization, out: number[]): void => {
    let prefix = kind.dummyPrefix ? wordMark : '';
    for (const word of normalizedWords(section, normalization)) {
      const marked = prefix + word;
      let ids = cache.get(marked);
      if (ids === undefined) {
        ids = merge(marked) ?? encodeWord(marked);
        if (cache.size >= cacheLimit) cache.clear();
        cache.set(marked, ids);
      }
      for (const id of ids) out.push(id);
      prefix = wordMark;
    }
  };
  return (text) => {
    const out: number[] = [];
    const sections = splitter?.test(text) ? text.split(splitter) : [text];
    sections.forEach((section, i) => {
      if (i % 2 === 1) out.push(reserved.get(section)!);
      else if (section !== '') encodeSection(section, kind.normalization, out);
    });
    return out;
  };
}

interface MergeModel {
  vocab: Record<string, number>;
  merges: [string, string][];
}

/** Applies the merge rules to a word, lowest rule first, leftmost first; undefined when a character is not in the vocabulary. */
function merger(model: MergeModel): (word: string) => number[] | undefined {
  const ids = new Map(Object.entries(model.vocab));
  const ranks = new Map(model.merges.map(([left, right], rank) => [`${left} ${right}`, rank]));
  return (word) => {
    const parts = Array.from(word);
    if (!parts.every((part) => ids.has(part))) return undefined;
    // Rank of each part with its right neighbour; words are short, so a scan beats a heap.
    const rankAt = (i: number): number =>
      i + 1 < parts.length
        ? (ranks.get(`${parts[i]} ${parts[i + 1]}`) ?? Number.POSITIVE_INFINITY)
        : Number.POSITIVE_INFINITY;
    const rank = parts.map((_, i) => rankAt(i));
    for (;;) {
      let best = 0;
      for (let i = 1; i < rank.length; ++i) if (rank[i]! < rank[best]!) best = i;
      if (!(rank[best]! < Number.POSITIVE_INFINITY)) break;
      parts.splice(best, 2, parts[best]! + parts[best + 1]!);
      rank.splice(best + 1, 1);
      rank[best] = rankAt(best);
      if (best > 0) rank[best - 1] = rankAt(best - 1);
    }
    return parts.map((part) => ids.get(part)!);
  };
}

/** A text as a regular expression that matches exactly it. */
export function quoted(text: string): string {
  return text.replace(/[\\^$.*+?()[\]{}|/]/g, '\\$&');
}
