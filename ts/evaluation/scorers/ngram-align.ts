import { z } from 'zod';
import { exactSum } from '../statistics.ts';
import { textsColumn } from './columns.ts';
import { registerScorer } from './scorer.ts';
import { sequenceRatio } from './sequence-matcher.ts';

const options = z.strictObject({
  language: z.enum(['en', 'zh']).default('en'),
  /** The column with the covered texts. */
  texts: z.string().default('crossed_text'),
});

/** Names the rules below in results; the original takes spaCy's words. */
export const alignTokenizer = { en: 'libmoe-words-1', zh: 'libmoe-characters-1' } as const;

const ENGLISH =
  /\p{N}+(?:[.,:]\p{N}+)*|\p{L}+(?=n['’]t(?!\p{L}))|n['’]t(?!\p{L})|['’](?:s|re|ve|ll|d|m)(?!\p{L})|[\p{L}\p{M}\p{N}_]+|\S/giu;

/** Words and marks of English, characters of Chinese. */
export function alignTokens(text: string, language: 'en' | 'zh'): string[] {
  if (language === 'en') return text.match(ENGLISH) ?? [];
  return text.match(/[a-zA-Z]+|\p{N}+(?:\.\p{N}+)*|\S/gu) ?? [];
}

/** The part of a response that is most like a covered text, and how much of it is right. */
export interface Alignment {
  text: string;
  similarity: number;
  exact: number;
  jaccard: number;
}

/** VCR (Zhang et al. 2024, arXiv 2406.06462): of all n-grams as long as the covered text that share a token with it, the most similar. */
export function align(response: readonly string[], covered: string, language: 'en' | 'zh'): Alignment {
  const wanted = alignTokens(covered, language);
  const wantedSet = new Set(wanted);
  let best: readonly string[] = [];
  let found: Alignment = { text: '', similarity: 0, exact: 0, jaccard: 0 };
  for (let i = 0; i + wanted.length <= response.length; i++) {
    const gram = response.slice(i, i + wanted.length);
    if (!gram.some((token) => wantedSet.has(token))) continue;
    const text = gram.join(language === 'en' ? ' ' : '');
    const similarity = text === covered ? 1 : sequenceRatio(text, covered);
    if (similarity > found.similarity) [found, best] = [{ ...found, text, similarity }, gram];
    if (similarity === 1) break;
  }
  if (best.length === 0) return found;
  const said = new Set(best);
  const shared = [...said].filter((token) => wantedSet.has(token)).length;
  return {
    ...found,
    exact: Number(best.every((token, i) => token === wanted[i])),
    jaccard: shared / (said.size + wantedSet.size - shared),
  };
}

const refuses = (response: string): boolean =>
  response.includes("I can't") ||
  response.includes('I cannot') ||
  response.toLowerCase().includes('sorry') ||
  response.includes('无法') ||
  response.includes('抱歉');

/**
 * Covered texts read again. `exact_match` and `jaccard` are means over the document's blanks; the mean over all blanks is
 * the ratio of `exact_matches` (or `jaccards`) over `blanks`.
 */
registerScorer('ngram_align', {
  options,
  score: (response, { doc }, { language, texts }) => {
    const covered = textsColumn(doc, texts);
    const refused = refuses(response);
    const tokens = refused ? [] : alignTokens(response, language);
    const all = covered.map((text) => align(tokens, text, language));
    const sum = (of: (alignment: Alignment) => number): number => exactSum(all.map(of));
    const [exact, jaccard] = [sum((a) => a.exact), sum((a) => a.jaccard)];
    return {
      values: {
        exact_match: exact / all.length,
        jaccard: jaccard / all.length,
        similarity: sum((a) => a.similarity) / all.length,
        exact_matches: exact,
        jaccards: jaccard,
        blanks: all.length,
      },
      parsed: all.every(({ text }) => text === '') ? null : all.map(({ text }) => text).join(' | '),
      detail: { tokenizer: alignTokenizer[language], refused },
    };
  },
});
