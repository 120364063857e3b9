import { z } from 'zod';
import { mean } from '../statistics.ts';
import { type GramCounts, GramTable, gramOrders } from './caption-grams.ts';
import { captionTokenizer, captionTokens } from './caption-tokens.ts';
import { textsColumn } from './columns.ts';
import { registerScorer, targetTexts } from './scorer.ts';

/** One image's caption and its references as words. */
export interface CaptionPair {
  candidate: readonly string[];
  references: readonly (readonly string[])[];
}

/** What a caption adds to the sums of BLEU. */
export interface BleuCounts {
  length: number;
  referenceLength: number;
  guesses: number[];
  correct: number[];
}

/** Counts of one caption; the reference length is the closest one, the shorter of two. */
export function bleuCounts({ candidate, references }: CaptionPair): BleuCounts {
  const words = references.reduce((sum, { length }) => sum + length, candidate.length);
  const table = new GramTable(gramOrders * words);
  const counted = references.map((reference) => table.count(reference));
  const own = table.count(candidate);
  const most = new Int32Array(table.size + 1);
  for (const orders of counted)
    for (const { ids, counts } of orders)
      for (let i = 0; i < ids.length; i++) if (counts[i]! > most[ids[i]!]!) most[ids[i]!] = counts[i]!;
  const lengths = references.map((reference) => reference.length);
  const closest = lengths.sort(
    (a, b) => Math.abs(a - candidate.length) - Math.abs(b - candidate.length) || a - b,
  )[0];
  return {
    length: candidate.length,
    referenceLength: closest ?? 0,
    guesses: own.map((_, k) => Math.max(0, candidate.length - k)),
    correct: own.map(({ ids, counts }) =>
      ids.reduce((sum, id, i) => sum + Math.min(counts[i]!, most[id]!), 0),
    ),
  };
}

/** Corpus BLEU-1 to BLEU-4 (Papineni et al. 2002) with the smoothing of COCO's tools. */
export function bleu(corpus: Iterable<BleuCounts>): number[] {
  let length = 0;
  let referenceLength = 0;
  const guesses = [0, 0, 0, 0];
  const correct = [0, 0, 0, 0];
  for (const counts of corpus) {
    length += counts.length;
    referenceLength += counts.referenceLength;
    for (let k = 0; k < gramOrders; k++) {
      guesses[k]! += counts.guesses[k]!;
      correct[k]! += counts.correct[k]!;
    }
  }
  const ratio = (length + 1e-15) / (referenceLength + 1e-9);
  const brevity = ratio < 1 ? Math.exp(1 - 1 / ratio) : 1;
  let product = 1;
  return guesses.map((guess, k) => {
    product *= (correct[k]! + 1e-15) / (guess + 1e-9);
    return product ** (1 / (k + 1)) * brevity;
  });
}

/** Lengths of the longest common subsequences of a text with others: up to 32 rows of the table are the bits of a word (Hyyrö 2004). */
function longestCommon(own: readonly string[], others: readonly (readonly string[])[]): number[] {
  if (own.length > 32) return others.map((other) => longCommon(own, other));
  const places = new Map<string, number>();
  for (const [i, token] of own.entries()) places.set(token, (places.get(token) ?? 0) | (1 << i));
  return others.map((other) => {
    let open = -1;
    for (const token of other) {
      const matched = open & (places.get(token) ?? 0);
      open = (open + matched) | (open - matched);
    }
    let common = 0;
    for (let i = 0; i < own.length; i++) common += 1 - ((open >>> i) & 1);
    return common;
  });
}

function longCommon(a: readonly string[], b: readonly string[]): number {
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

/** N-grams of a text with their weights. */
interface Weighted {
  orders: { ids: readonly number[]; weights: Float64Array; norm: number }[];
  length: number;
}

/**
 * CIDEr-D of every caption (Vedantam et al. 2015, arXiv 1411.5726). Weights come from all images given here, so the
 * number of a part of a data set is no estimate of the whole; of one image it is 0.
 */
export function ciderD(corpus: readonly CaptionPair[]): number[] {
  const words = corpus.reduce(
    (sum, { candidate, references }) => sum + candidate.length * (1 + references.length),
    0,
  );
  const table = new GramTable(2 * words);
  const grams = corpus.map(({ candidate, references }) => ({
    candidate: table.count(candidate),
    references: references.map((reference) => table.count(reference)),
  }));
  // Of how many images the references have an n-gram, and of which image they had it last.
  const frequency = new Int32Array(table.size + 1);
  const latest = new Int32Array(table.size + 1);
  for (const [image, { references }] of grams.entries())
    for (const orders of references)
      for (const { ids } of orders)
        for (const id of ids)
          if (latest[id] !== image + 1) {
            latest[id] = image + 1;
            frequency[id]! += 1;
          }
  const images = Math.log(corpus.length);
  const rarity = Float64Array.from(frequency, (count) => images - Math.log(Math.max(1, count)));
  const weigh = (orders: readonly GramCounts[]): Weighted => ({
    orders: orders.map(({ ids, counts }) => {
      const weights = new Float64Array(ids.length);
      let sum = 0;
      for (let i = 0; i < ids.length; i++) {
        const weight = counts[i]! * rarity[ids[i]!]!;
        weights[i] = weight;
        sum += weight * weight;
      }
      return { ids, weights, norm: Math.sqrt(sum) };
    }),
    // The original takes the number of bigrams for the length.
    length: orders[1]!.counts.reduce((sum, count) => sum + count, 0),
  });
  const weightOf = new Float64Array(table.size + 1);
  return grams.map(({ candidate, references }) => {
    const own = weigh(candidate);
    let sum = 0;
    for (const reference of references.map(weigh)) {
      const penalty = Math.exp(-((own.length - reference.length) ** 2) / (2 * 6 ** 2));
      for (let k = 0; k < gramOrders; k++) {
        const [mine, theirs] = [own.orders[k]!, reference.orders[k]!];
        for (let i = 0; i < theirs.ids.length; i++) weightOf[theirs.ids[i]!] = theirs.weights[i]!;
        let dot = 0;
        for (let i = 0; i < mine.ids.length; i++) {
          const other = weightOf[mine.ids[i]!]!;
          dot += Math.min(mine.weights[i]!, other) * other;
        }
        for (let i = 0; i < theirs.ids.length; i++) weightOf[theirs.ids[i]!] = 0;
        const norm = mine.norm * theirs.norm;
        sum += ((norm === 0 ? dot : dot / norm) * penalty) / gramOrders;
      }
    }
    return references.length === 0 ? 0 : (10 * sum) / references.length;
  });
}

/** Mean CIDEr-D over the images. */
export const cider = (corpus: readonly CaptionPair[]): number => mean(ciderD(corpus));

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
