import { z } from 'zod';
import { captionTokenizer, captionTokens } from './caption-tokens.ts';
import { textsColumn } from './columns.ts';
import { registerScorer, targetTexts } from './scorer.ts';

/** One image's caption and its references as words. */
export interface CaptionPair {
  candidate: readonly string[];
  references: readonly (readonly string[])[];
}

/**
 * Lengths of the longest common subsequences of a text with others: 32 rows of the table are the bits of a word (Hyyrö 2004), a 0 where a row is one more
 * than the row above it.
 */
function longestCommon(own: readonly string[], others: readonly (readonly string[])[]): number[] {
  const blocks = Math.ceil(own.length / 32);
  // The rows in which each word of the text stands.
  const numbers = new Map<string, number>();
  const rows = new Int32Array(own.length * blocks);
  for (let i = 0; i < own.length; i++) {
    const token = own[i]!;
    let number = numbers.get(token);
    if (number === undefined) {
      number = numbers.size;
      numbers.set(token, number);
    }
    rows[number * blocks + (i >>> 5)]! |= 1 << (i & 31);
  }
  const open = new Int32Array(blocks);
  return others.map((other) => {
    open.fill(-1);
    for (let j = 0; j < other.length; j++) {
      const number = numbers.get(other[j]!);
      if (number === undefined) continue;
      let carry = 0;
      for (let b = 0; b < blocks; b++) {
        const before = open[b]!;
        const matched = before & rows[number * blocks + b]!;
        const sum = (before >>> 0) + (matched >>> 0) + carry;
        carry = sum > 0xffffffff ? 1 : 0;
        open[b] = sum | (before - matched);
      }
    }
    let common = 0;
    for (let i = 0; i < own.length; i++) common += 1 - ((open[i >>> 5]! >>> (i & 31)) & 1);
    return common;
  });
}

/** ROUGE-L of one caption (Lin 2004) as COCO's tools have it: best precision and best recall over the references apart, β = 1.2. */
export function captionRougeL({ candidate, references }: CaptionPair): number {
  let precision = 0;
  let recall = 0;
  const all = longestCommon(candidate, references);
  for (const [i, reference] of references.entries()) {
    const common = all[i]!;
    if (candidate.length > 0) precision = Math.max(precision, common / candidate.length);
    if (reference.length > 0) recall = Math.max(recall, common / reference.length);
  }
  const beta2 = 1.2 * 1.2;
  return precision === 0 || recall === 0
    ? 0
    : ((1 + beta2) * precision * recall) / (recall + beta2 * precision);
}

const options = z.strictObject({
  /** The column with the reference captions; default: the target. */
  references: z.string().optional(),
  /** Characters beyond ASCII become spaces in caption and references (YouCook2). */
  ascii: z.boolean().default(false),
});

/** Captions. Metric `rouge_l` per document; `use: caption` of a report makes BLEU and CIDEr of the whole corpus. */
registerScorer('caption_ngram', {
  options,
  score: (response, { doc, target }, { references, ascii }) => {
    const tokens = (text: string): string[] =>
      captionTokens(ascii ? text.replace(/[^\0-\x7f]/gu, ' ') : text);
    const texts = references === undefined ? targetTexts(target) : textsColumn(doc, references);
    const pair: CaptionPair = {
      candidate: tokens(response),
      references: texts.map(tokens),
    };
    return {
      values: { rouge_l: captionRougeL(pair) },
      parsed: pair.candidate.length === 0 ? null : pair.candidate.join(' '),
      detail: { caption: pair, tokenizer: captionTokenizer },
    };
  },
});
