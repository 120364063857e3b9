/** Orders of the n-grams that captions are compared by. */
export const gramOrders = 4;

/** How often a text has each of its n-grams of one order, in the order of their first occurrence. */
export interface GramCounts {
  ids: number[];
  counts: number[];
}

/**
 * Gives every n-gram of words up to four a number: that of an n-gram follows from the number of its first n − 1 words and its last word, so that no
 * text is put together for it.
 */
export class GramTable {
  private readonly words = new Map<string, number>();
  /** Open addressing: prefix, word and number of the n-gram (0: none) in each slot. */
  private slots: Int32Array;
  private mask: number;
  /** Places of the n-grams in the text at hand, 0: not seen in it. */
  private places = new Int32Array(64);
  /** N-grams so far; numbers begin with 1. */
  size = 0;

  /** @param expected n-grams, roughly */
  constructor(expected: number) {
    const length = 2 ** Math.ceil(Math.log2(Math.max(16, 2 * expected)));
    this.slots = new Int32Array(3 * length);
    this.mask = length - 1;
  }

  /** The n-grams of a text, by order. */
  count(tokens: readonly string[]): GramCounts[] {
    const words = tokens.map((token) => {
      const known = this.words.get(token);
      if (known !== undefined) return known;
      this.words.set(token, this.words.size);
      return this.words.size - 1;
    });
    const prefixes: number[] = Array(words.length).fill(0);
    const orders: GramCounts[] = [];
    for (let k = 0; k < gramOrders; k++) {
      const found: GramCounts = { ids: [], counts: [] };
      for (let i = 0; i + k < words.length; i++) {
        const id = this.idOf(prefixes[i]!, words[i + k]!);
        prefixes[i] = id;
        const place = this.places[id]!;
        if (place > 0) found.counts[place - 1]! += 1;
        else {
          found.ids.push(id);
          this.places[id] = found.counts.push(1);
        }
      }
      for (const id of found.ids) this.places[id] = 0;
      orders.push(found);
    }
    return orders;
  }

  private idOf(prefix: number, word: number): number {
    const { slots, mask } = this;
    for (let at = hash(prefix, word) & mask; ; at = (at + 1) & mask) {
      const id = slots[3 * at + 2]!;
      if (id === 0) {
        this.size += 1;
        slots[3 * at] = prefix;
        slots[3 * at + 1] = word;
        slots[3 * at + 2] = this.size;
        if (2 * this.size > mask) this.grow();
        if (this.size >= this.places.length) {
          const places = new Int32Array(2 * this.places.length);
          places.set(this.places);
          this.places = places;
        }
        return this.size;
      }
      if (slots[3 * at] === prefix && slots[3 * at + 1] === word) return id;
    }
  }

  private grow(): void {
    const before = this.slots;
    this.mask = 2 * this.mask + 1;
    this.slots = new Int32Array(2 * before.length);
    for (let from = 0; from < before.length; from += 3) {
      if (before[from + 2] === 0) continue;
      let at = hash(before[from]!, before[from + 1]!) & this.mask;
      while (this.slots[3 * at + 2] !== 0) at = (at + 1) & this.mask;
      this.slots.set(before.subarray(from, from + 3), 3 * at);
    }
  }
}

function hash(prefix: number, word: number): number {
  let mixed = Math.imul(prefix, 0x9e3779b1) ^ Math.imul(word + 1, 0x85ebca6b);
  mixed = Math.imul(mixed ^ (mixed >>> 15), 0x2c1b3c6d);
  return mixed ^ (mixed >>> 13);
}
