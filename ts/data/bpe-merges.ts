import { wordMark } from './sentence-normalization.ts';
import { anyScript, scriptOf } from './unicode-script.ts';

/** A word of the training text with the number of times it occurs. */
export interface CountedWord {
  /** Code points; a negative one is a barrier that no piece may contain (rare character or reserved symbol). */
  codePoints: number[];
  count: number;
}

/** What a merged piece may look like. */
export interface PieceRules {
  /** Longest piece, in code points. */
  maxLength: number;
  /** Digits stand alone. */
  splitDigits: boolean;
  /** A piece holds letters of one script only. */
  splitScripts: boolean;
}

interface Symbol {
  text: string;
  length: number;
  script: number;
  digit: boolean;
  mark: boolean;
}

interface Pair {
  left: number;
  right: number;
  text: string;
  length: number;
  /** Occurrences now, overlapping ones included, weighted by word counts. */
  count: number;
  /** Where it was seen; entries go stale when a neighbour is merged and are checked when used. */
  positions: number[];
  /** False once taken, or when another pair already gave the same text. */
  alive: boolean;
}

const markPoint = wordMark.codePointAt(0)!;

/** Order of UTF-8 bytes, which is the order of code points (not of UTF-16 units). */
export function compareCodePoints(a: string, b: string): number {
  const shorter = Math.min(a.length, b.length);
  for (let i = 0; i < shorter; ++i) {
    let x = a.charCodeAt(i);
    let y = b.charCodeAt(i);
    if (x === y) continue;
    if (x >= 0xd800 && y >= 0xd800) {
      // Surrogates stand for code points above all others.
      x += x >= 0xe000 ? -0x800 : 0x2000;
      y += y >= 0xe000 ? -0x800 : 0x2000;
    }
    return x - y;
  }
  return a.length - b.length;
}

interface Candidate {
  pair: Pair;
  count: number;
}

/** Highest count first, then the shorter text, then the lower text: SentencePiece's order. */
function precedes(a: Candidate, b: Candidate): boolean {
  if (a.count !== b.count) return a.count > b.count;
  if (a.pair.length !== b.pair.length) return a.pair.length < b.pair.length;
  return compareCodePoints(a.pair.text, b.pair.text) < 0;
}

class Heap {
  private readonly items: Candidate[] = [];

  push(item: Candidate): void {
    const items = this.items;
    let at = items.length;
    items.push(item);
    while (at > 0) {
      const parent = (at - 1) >> 1;
      if (!precedes(item, items[parent]!)) break;
      items[at] = items[parent]!;
      at = parent;
    }
    items[at] = item;
  }

  pop(): Candidate | undefined {
    const items = this.items;
    const top = items[0];
    const last = items.pop();
    if (top === undefined || last === undefined || items.length === 0) return top;
    let at = 0;
    for (;;) {
      let child = 2 * at + 1;
      if (child >= items.length) break;
      if (child + 1 < items.length && precedes(items[child + 1]!, items[child]!)) child += 1;
      if (!precedes(items[child]!, last)) break;
      items[at] = items[child]!;
      at = child;
    }
    items[at] = last;
    return top;
  }
}

/**
 * Learns `wanted` merged pieces by byte-pair encoding over counted words (Sennrich et al. 2016) with the tie-breaks and piece rules of
 * SentencePiece (Kudo & Richardson 2018). Returns the pieces in the order in which they were made; fewer when the words run out of pairs.
 * @param pause called between merges, see {@link pauses}
 */
export async function learnMerges(
  words: readonly CountedWord[],
  wanted: number,
  rules: PieceRules,
  pause: () => Promise<void> | undefined = () => undefined,
): Promise<string[]> {
  const symbols: Symbol[] = [];
  const symbolOf = new Map<number, number>();
  const total = words.reduce((sum, word) => sum + word.codePoints.length, 0);
  // One flat linked list of all words: symbol, neighbours (−1 at word ends) and the weight of each place.
  const symbol = new Int32Array(total);
  const next = new Int32Array(total);
  const previous = new Int32Array(total);
  const weight = new Float64Array(total);
  let place = 0;
  for (const word of words) {
    const first = place;
    for (const codePoint of word.codePoints) {
      let id = codePoint < 0 ? -1 : symbolOf.get(codePoint);
      if (id === undefined) {
        id = symbols.length;
        symbols.push(characterSymbol(codePoint));
        symbolOf.set(codePoint, id);
      }
      symbol[place] = id;
      previous[place] = place === first ? -1 : place - 1;
      next[place] = place + 1;
      weight[place] = word.count;
      place += 1;
    }
    if (place > first) next[place - 1] = -1;
  }

  const pairs = new Map<number, Pair | null>();
  const fresh = new Set<Pair>();
  const pairOf = (left: number, right: number): Pair | null => {
    if (left < 0 || right < 0) return null;
    const key = left * 0x4000000 + right;
    let pair = pairs.get(key);
    if (pair === undefined) {
      const a = symbols[left]!;
      const b = symbols[right]!;
      pair = mayJoin(a, b, rules)
        ? {
            left,
            right,
            text: a.text + b.text,
            length: a.length + b.length,
            count: 0,
            positions: [],
            alive: true,
          }
        : null;
      pairs.set(key, pair);
    }
    return pair;
  };
  const addPair = (at: number, then: number): void => {
    if (at < 0 || then < 0) return;
    const pair = pairOf(symbol[at]!, symbol[then]!);
    if (pair === null) return;
    pair.count += weight[at]!;
    pair.positions.push(at);
    fresh.add(pair);
  };
  const dropPair = (at: number, then: number): void => {
    if (at < 0 || then < 0) return;
    const pair = pairOf(symbol[at]!, symbol[then]!);
    if (pair !== null) pair.count -= weight[at]!;
  };

  const heap = new Heap();
  const offerFresh = (): void => {
    for (const pair of fresh) if (pair.alive) heap.push({ pair, count: pair.count });
    fresh.clear();
  };
  for (let at = 0; at < total; ++at) addPair(at, next[at]!);
  offerFresh();

  const pieces: string[] = [];
  const taken = new Set<string>();
  while (pieces.length < wanted) {
    const pausing = pause();
    if (pausing) await pausing;
    const candidate = heap.pop();
    if (candidate === undefined || candidate.count <= 0) break;
    const { pair } = candidate;
    if (!pair.alive) continue;
    if (candidate.count !== pair.count) {
      // Counts of known pairs only fall, so an entry that is too high is put back where it belongs.
      heap.push({ pair, count: pair.count });
      continue;
    }
    pair.alive = false;
    if (taken.has(pair.text)) continue;
    taken.add(pair.text);
    pieces.push(pair.text);
    const merged = symbols.length;
    symbols.push(joined(symbols[pair.left]!, symbols[pair.right]!));
    for (const at of pair.positions) {
      const then = next[at]!;
      if (symbol[at] !== pair.left || then < 0 || symbol[then] !== pair.right) continue;
      const before = previous[at]!;
      const after = next[then]!;
      dropPair(before, at);
      dropPair(then, after);
      symbol[at] = merged;
      symbol[then] = -2; // gone: no stale position may match it
      next[at] = after;
      if (after >= 0) previous[after] = at;
      addPair(before, at);
      addPair(at, after);
    }
    pair.positions = [];
    offerFresh();
  }
  return pieces;
}

function characterSymbol(codePoint: number): Symbol {
  const mark = codePoint === markPoint;
  return {
    text: String.fromCodePoint(codePoint),
    length: 1,
    script: mark ? anyScript : scriptOf(codePoint),
    digit: codePoint >= 0x30 && codePoint <= 0x39,
    mark,
  };
}

function mayJoin(left: Symbol, right: Symbol, rules: PieceRules): boolean {
  if (right.mark || left.length + right.length > rules.maxLength) return false;
  if (rules.splitDigits && (left.digit || right.digit)) return false;
  if (!rules.splitScripts || left.script === anyScript || right.script === anyScript) return true;
  return left.script === right.script;
}

function joined(left: Symbol, right: Symbol): Symbol {
  return {
    text: left.text + right.text,
    length: left.length + right.length,
    script: left.script === anyScript ? right.script : left.script,
    digit: left.digit || right.digit,
    mark: left.mark,
  };
}
