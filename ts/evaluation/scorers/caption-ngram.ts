import { z } from 'zod';
import { mean } from '../statistics.ts';
import { captionTokenizer, captionTokens } from './caption-tokens.ts';
import { textsColumn } from './columns.ts';
import { registerScorer, targetTexts } from './scorer.ts';

/** One image's caption and its references as words. */
export interface CaptionPair {
  candidate: readonly string[];
  references: readonly (readonly string[])[];
}

const ORDERS = 4;

function ngrams(tokens: readonly string[]): Map<string, number>[] {
  return Array.from({ length: ORDERS }, (_, k) => {
    const counts = new Map<string, number>();
    for (let i = 0; i + k < tokens.length; i++) {
      const gram = k === 0 ? tokens[i]! : tokens.slice(i, i + k + 1).join('\u0000');
      counts.set(gram, (counts.get(gram) ?? 0) + 1);
    }
    return counts;
  });
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
  const most = Array.from({ length: ORDERS }, () => new Map<string, number>());
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

/** Corpus BLEU-1 to BLEU-4 (Papineni et al. 2002) with the smoothing of COCO's tools. */
export function bleu(corpus: Iterable<BleuCounts>): number[] {
  let length = 0;
  let referenceLength = 0;
  const guesses = [0, 0, 0, 0];
  const correct = [0, 0, 0, 0];
  for (const counts of corpus) {
    length += counts.length;
    referenceLength += counts.referenceLength;
    for (let k = 0; k < ORDERS; k++) {
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

/** ROUGE-L of one caption (Lin 2004) as COCO's tools have it: best precision and best recall over the references apart, β = 1.2. */
export function captionRougeL({ candidate, references }: CaptionPair): number {
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

/**
 * CIDEr-D of every caption (Vedantam et al. 2015, arXiv 1411.5726). Weights come from all images given here, so the
 * number of a part of a data set is no estimate of the whole; of one image it is 0.
 */
export function ciderD(corpus: readonly CaptionPair[]): number[] {
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
      for (let k = 0; k < ORDERS; k++) {
        let dot = 0;
        for (const [gram, weight] of own.weights[k]!) {
          const other = reference.weights[k]!.get(gram) ?? 0;
          dot += Math.min(weight, other) * other;
        }
        const norm = own.norms[k]! * reference.norms[k]!;
        sum += ((norm === 0 ? dot : dot / norm) * penalty) / ORDERS;
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
