import type { CaptionPair } from './caption-ngram.ts';

/** Orders of the n-grams that captions are compared by. */
export const gramOrders = 4;

/** What a caption adds to the sums of BLEU. */
export interface BleuCounts {
  length: number;
  referenceLength: number;
  guesses: number[];
  correct: number[];
}

/**
 * The n-grams of one caption as a tree: a node for each, below that of its first n − 1 words. The nodes of the words come first, from 1, and are the numbers
 * of the words. Kept from caption to caption.
 */
class GramTree {
  /** Nodes in use, without the 0 that stands for none. */
  size = 0;
  /** First node below each, and the next one beside it. */
  child = new Int32Array(0);
  next = new Int32Array(0);
  /** Last word of each, and how many words come before it. */
  word = new Int32Array(0);
  depth = new Int32Array(0);
  /** How often the caption, the reference at hand and the reference that has it most often have each. */
  own = new Int32Array(0);
  seen = new Int32Array(0);
  most = new Int32Array(0);

  clear(nodes: number): void {
    if (this.child.length <= nodes)
      for (const field of ['child', 'next', 'word', 'depth', 'own', 'seen', 'most'] as const)
        this[field] = new Int32Array(2 * nodes + 1);
    this.size = 0;
  }

  add(word: number, depth: number): number {
    const node = ++this.size;
    this.child[node] = this.own[node] = this.most[node] = 0;
    this.word[node] = word;
    this.depth[node] = depth;
    return node;
  }

  /** The node of an n-gram with one word more, 0: none. */
  below(node: number, word: number): number {
    let found = this.child[node]!;
    while (found !== 0 && this.word[found] !== word) found = this.next[found]!;
    return found;
  }

  addBelow(node: number, word: number, depth: number): number {
    const added = this.add(word, depth);
    this.next[added] = this.child[node]!;
    this.child[node] = added;
    return added;
  }
}
const tree = new GramTree();

/** Counts of one caption; the reference length is the closest one, the shorter of two. */
export function bleuCounts({ candidate, references }: CaptionPair): BleuCounts {
  const { length } = candidate;
  tree.clear(gramOrders * length);
  const numbers = new Map<string, number>();
  const words = candidate.map((token) => {
    let number = numbers.get(token);
    if (number === undefined) {
      number = tree.add(0, 0);
      numbers.set(token, number);
    }
    return number;
  });
  for (let i = 0; i < length; i++) {
    let node = words[i]!;
    tree.own[node]!++;
    for (let k = 1; k < gramOrders && i + k < length; k++) {
      const word = words[i + k]!;
      node = tree.below(node, word) || tree.addBelow(node, word, k);
      tree.own[node]!++;
    }
  }
  let referenceLength = references[0]?.length ?? 0;
  for (const reference of references) {
    countMost(reference, numbers);
    const nearer = Math.abs(reference.length - length) - Math.abs(referenceLength - length);
    if (nearer < 0 || (nearer === 0 && reference.length < referenceLength))
      referenceLength = reference.length;
  }
  const correct = [0, 0, 0, 0];
  for (let node = 1; node <= tree.size; node++)
    correct[tree.depth[node]!]! += Math.min(tree.own[node]!, tree.most[node]!);
  const guesses = correct.map((_, k) => Math.max(0, length - k));
  return { length, referenceLength, guesses, correct };
}

/** Raises `most` of the tree's n-grams to how often a reference has them. */
function countMost(reference: readonly string[], numbers: ReadonlyMap<string, number>): void {
  const { seen, most } = tree;
  seen.fill(0, 0, tree.size + 1);
  const words = reference.map((token) => numbers.get(token) ?? 0);
  for (let i = 0; i < words.length; i++) {
    let node = words[i]!;
    for (let k = 1; node !== 0; k++) {
      seen[node]!++;
      if (seen[node]! > most[node]!) most[node] = seen[node]!;
      if (k === gramOrders || i + k === words.length) break;
      node = tree.below(node, words[i + k]!);
    }
  }
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
