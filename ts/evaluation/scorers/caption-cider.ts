import { mean } from '../statistics.ts';
import { gramOrders } from './caption-bleu.ts';
import type { CaptionPair } from './caption-ngram.ts';

/**
 * The n-grams of one order of a corpus, in one row: of every image the candidate, then its references, each with a 0 behind it. An n-gram is a number; all
 * that stand only once in the corpus are 0, since they agree with nothing and weigh the same, and since no longer n-gram with one of them in it can stand
 * twice: so most need not be looked up.
 */
interface Corpus {
  grams: Int32Array;
  /** Where each text begins; one more, the end. */
  texts: Int32Array;
  /** Which text is the candidate of each image; one more, the number of texts. */
  images: Int32Array;
  /** The largest number. */
  most: number;
}

/**
 * CIDEr-D of every caption (Vedantam et al. 2015, arXiv 1411.5726). Weights come from all images given here, so the
 * number of a part of a data set is no estimate of the whole; of one image it is 0.
 */
export function ciderD(pairs: readonly CaptionPair[]): number[] {
  const corpus = numbered(pairs);
  const { texts, images } = corpus;
  const similarities = new Float64Array(gramOrders * texts.length);
  for (let k = 0; k < gramOrders; k++) {
    if (k > 0) lengthen(corpus);
    compare(corpus, rarities(corpus, pairs.length), k, similarities);
  }
  return pairs.map(({ candidate, references }, image) => {
    let sum = 0;
    for (const [i, reference] of references.entries()) {
      const text = images[image]! + 1 + i;
      // The original takes the number of bigrams for the length.
      const apart = Math.max(0, candidate.length - 1) - Math.max(0, reference.length - 1);
      const penalty = Math.exp(-(apart ** 2) / (2 * 6 ** 2));
      for (let k = 0; k < gramOrders; k++)
        sum += (similarities[gramOrders * text + k]! * penalty) / gramOrders;
    }
    return references.length === 0 ? 0 : (10 * sum) / references.length;
  });
}

/** Mean CIDEr-D over the images. */
export const cider = (corpus: readonly CaptionPair[]): number => mean(ciderD(corpus));

function numbered(pairs: readonly CaptionPair[]): Corpus {
  const images = new Int32Array(pairs.length + 1);
  let words = 0;
  for (const [i, { candidate, references }] of pairs.entries()) {
    images[i + 1] = images[i]! + 1 + references.length;
    words += candidate.length;
    for (const reference of references) words += reference.length;
  }
  const texts = new Int32Array(images[pairs.length]! + 1);
  const grams = new Int32Array(words + texts.length);
  const numbers = new Map<string, number>();
  const uses = new Int32Array(words + 1);
  let [text, at] = [0, 0];
  const add = (tokens: readonly string[]): void => {
    for (let i = 0; i < tokens.length; i++) {
      const token = tokens[i]!;
      let number = numbers.get(token);
      if (number === undefined) {
        number = numbers.size + 1;
        numbers.set(token, number);
      }
      uses[number]!++;
      grams[at++] = number;
    }
    texts[++text] = ++at;
  };
  for (const { candidate, references } of pairs) {
    add(candidate);
    for (const reference of references) add(reference);
  }
  const corpus = { grams, texts, images, most: numbers.size };
  dropSingle(corpus, uses);
  return corpus;
}

/** Makes n-grams that stand only once 0; `uses` are how often each stands. */
function dropSingle({ grams }: Corpus, uses: Int32Array): void {
  for (let i = 0; i < grams.length; i++) if (uses[grams[i]!] === 1) grams[i] = 0;
}

/** Makes n-grams those of one word more: each is told by two that overlap, which are numbered through a table with open addressing. */
function lengthen(corpus: Corpus): void {
  const { grams } = corpus;
  let pairs = 0;
  for (let i = 1; i < grams.length; i++) if (grams[i - 1] !== 0 && grams[i] !== 0) pairs++;
  const mask = 2 ** Math.ceil(Math.log2(2 * pairs + 2)) - 1;
  const slots = new Int32Array(mask + 1);
  const lefts = new Int32Array(pairs + 1);
  const rights = new Int32Array(pairs + 1);
  const uses = new Int32Array(pairs + 1);
  let most = 0;
  for (let i = 1; i < grams.length; i++) {
    const left = grams[i - 1]!;
    const right = grams[i]!;
    if (left === 0 || right === 0) {
      grams[i - 1] = 0;
      continue;
    }
    let at = hash(left, right) & mask;
    let id = slots[at]!;
    while (id !== 0 && (lefts[id] !== left || rights[id] !== right)) {
      at = (at + 1) & mask;
      id = slots[at]!;
    }
    if (id === 0) {
      id = ++most;
      slots[at] = id;
      lefts[id] = left;
      rights[id] = right;
    }
    uses[id]!++;
    grams[i - 1] = id;
  }
  corpus.most = most;
  dropSingle(corpus, uses);
}

function hash(left: number, right: number): number {
  let mixed = Math.imul(left, 0x9e3779b1) ^ Math.imul(right, 0x85ebca6b);
  mixed = Math.imul(mixed ^ (mixed >>> 15), 0x2c1b3c6d);
  return mixed ^ (mixed >>> 13);
}

/** Weight of each n-gram: ln of all images over those whose references have it. */
function rarities({ grams, texts, images, most }: Corpus, count: number): Float64Array {
  const frequency = new Int32Array(most + 1);
  // The image that had an n-gram last.
  const latest = new Int32Array(most + 1);
  for (let image = 1; image <= count; image++)
    for (let i = texts[images[image - 1]! + 1]!; i < texts[images[image]!]!; i++) {
      const id = grams[i]!;
      if (latest[id] === image) continue;
      latest[id] = image;
      frequency[id]!++;
    }
  frequency[0] = 1;
  // Few frequencies are those of many n-grams.
  const ofFrequency = new Float64Array(count + 1);
  for (let n = 0; n <= count; n++) ofFrequency[n] = Math.log(count) - Math.log(Math.max(1, n));
  const weights = new Float64Array(most + 1);
  for (let id = 0; id <= most; id++) weights[id] = ofFrequency[frequency[id]!]!;
  return weights;
}

/** Cosines of the candidates with their references, by n-grams of order `k`, none of the caption's more often than the reference has it. */
function compare(
  { grams, texts, images, most }: Corpus,
  rarity: Float64Array,
  k: number,
  similarities: Float64Array,
): void {
  const counts = new Int32Array(most + 1);
  // Of the candidate at hand: its n-grams in the order of their first occurrence, and the places (from 1) where they stand there; the reference's weights there.
  const places = new Int32Array(most + 1);
  let longest = 0;
  for (let i = 1; i < texts.length; i++) longest = Math.max(longest, texts[i]! - texts[i - 1]!);
  const own = new Int32Array(longest);
  const mine = new Float64Array(longest);
  const theirs = new Float64Array(longest);
  const single = rarity[0]! * rarity[0]!;
  for (let image = 0; image + 1 < images.length; image++) {
    const candidate = images[image]!;
    let size = 0;
    let ownNorm = 0;
    for (let text = candidate; text < images[image + 1]!; text++) {
      const from = texts[text]!;
      const to = texts[text + 1]! - 1 - k;
      for (let i = from; i < to; i++) counts[grams[i]!]!++;
      let sum = 0;
      for (let i = from; i < to; i++) {
        const id = grams[i]!;
        if (id === 0) {
          sum += single;
          continue;
        }
        const count = counts[id]!;
        if (count === 0) continue;
        counts[id] = 0;
        const weight = count * rarity[id]!;
        sum += weight * weight;
        if (text === candidate) {
          own[size] = id;
          mine[size++] = weight;
          places[id] = size;
        } else if (places[id] !== 0) theirs[places[id]! - 1] = weight;
      }
      if (text === candidate) {
        ownNorm = Math.sqrt(sum);
        continue;
      }
      let dot = 0;
      for (let i = 0; i < size; i++) {
        const other = theirs[i]!;
        if (other === 0) continue;
        dot += Math.min(mine[i]!, other) * other;
        theirs[i] = 0;
      }
      const norm = ownNorm * Math.sqrt(sum);
      similarities[gramOrders * text + k] = norm === 0 ? dot : dot / norm;
    }
    for (let i = 0; i < size; i++) places[own[i]!] = 0;
  }
}
