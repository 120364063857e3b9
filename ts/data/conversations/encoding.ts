import type { Tokenizer } from '../tokenizer.ts';
import { imageMark } from './conversation.ts';
import type { Segment } from './templates.ts';

/** Stands in `EncodedText.ids` where an image does. */
export const imageSlot = -1;

/** A conversation as ids, images not yet expanded. */
export interface EncodedText {
  /** −1 for an image. */
  ids: number[];
  /** Whether each is to be predicted. */
  learned: boolean[];
}

/**
 * Turns text into ids so that it is known of each whether it is learned. The text is encoded as a whole, as a prompt is at inference, but for
 * one thing: no token reaches across the border of an answer. Where one would, both sides are encoded by themselves.
 */
export class SegmentEncoder {
  private readonly tokenizer: Tokenizer;
  /** Of texts that could be special tokens: whether cutting before them changes nothing. */
  private readonly cuts = new Map<string, boolean>();
  /** Headers and the like come again with every conversation. */
  private readonly short = new Map<string, Int32Array>();
  private readonly bos: number | undefined;
  private readonly knowsMark: boolean;

  constructor(tokenizer: Tokenizer) {
    this.tokenizer = tokenizer;
    const { bosId } = tokenizer;
    const begins = bosId !== undefined && tokenizer.encode('a', { addSpecialTokens: true })[0] === bosId;
    this.bos = begins ? bosId : undefined;
    this.knowsMark = this.cutsBefore(imageMark) && tokenizer.encode(imageMark).length === 1;
  }

  /** `addBos`: begin as the tokenizer does by itself; nothing is added by tokenizers that add nothing. */
  encode(segments: readonly Segment[], { addBos }: { addBos: boolean }): EncodedText {
    const out: EncodedText = { ids: [], learned: [] };
    if (addBos && this.bos !== undefined) push(out, [this.bos], false);
    let run: Segment[] = [];
    let afterImage = false;
    for (const { text, learned } of segments) {
      const pieces = text.split(imageMark);
      for (const [i, piece] of pieces.entries()) {
        if (i > 0) {
          this.encodeRun(run, afterImage, out);
          push(out, [imageSlot], false);
          run = [];
          afterImage = true;
        }
        if (piece !== '') run.push({ text: piece, learned });
      }
    }
    this.encodeRun(run, afterImage, out);
    return out;
  }

  /** Text between two images. */
  private encodeRun(run: readonly Segment[], afterImage: boolean, out: EncodedText): void {
    const text = run.map((segment) => segment.text).join('');
    const borders: number[] = [];
    let end = 0;
    for (const segment of run) {
      end += segment.text.length;
      borders.push(end);
    }
    const learnedAt = (at: number) => run[borders.findIndex((border) => at < border)]!.learned;
    let chunkStart = 0;
    for (const cut of [...this.cutsIn(text), text.length]) {
      if (cut <= chunkStart) continue;
      const inside = borders.filter((border) => border > chunkStart && border < cut);
      let from = chunkStart;
      while (from < cut) {
        // A tokenizer that knows the mark encodes what follows it as it would in one text with it.
        const lead = afterImage && this.knowsMark && from === 0 ? imageMark : '';
        const done = this.encodeChunk(
          text.slice(from, cut),
          lead,
          inside.map((border) => border - from),
        );
        for (const { at, ids } of done.parts) push(out, ids, learnedAt(from + at));
        from += done.length;
      }
      chunkStart = cut;
    }
  }

  /**
   * Encodes a chunk up to the first border that a token would reach across, or to its end. `length` characters are done; `parts` are the ids
   * between borders and where their text begins.
   */
  private encodeChunk(
    text: string,
    lead: string,
    borders: readonly number[],
  ): { length: number; parts: { at: number; ids: Int32Array }[] } {
    const skip = lead === '' ? 0 : 1;
    const whole = this.idsOf(lead + text);
    const parts: { at: number; ids: Int32Array }[] = [];
    let [begin, at] = [skip, 0];
    for (const border of borders) {
      if (border <= at) continue;
      const before = this.idsOf(lead + text.slice(0, border));
      if (!isPrefix(before, whole)) {
        parts.push({ at, ids: before.subarray(begin) });
        return { length: border, parts };
      }
      parts.push({ at, ids: whole.subarray(begin, before.length) });
      [begin, at] = [before.length, border];
    }
    parts.push({ at, ids: whole.subarray(begin) });
    return { length: text.length, parts };
  }

  /** Beginnings of special tokens. */
  private cutsIn(text: string): number[] {
    const found: number[] = [];
    for (const { 0: token, index } of text.matchAll(/<[^<>\s]{1,40}>|\[\/?[A-Z_]{1,20}\]/g))
      if (index > 0 && this.cutsBefore(token)) found.push(index);
    return found;
  }

  /** Whether text may be cut before this token and encoded by halves: the tokenizer itself cuts there. */
  private cutsBefore(token: string): boolean {
    const known = this.cuts.get(token);
    if (known !== undefined) return known;
    const { tokenizer } = this;
    const neutral = (left: string, right: string): boolean => {
      const [a, b, both] = [left, right, left + right].map((text) => Array.from(tokenizer.encode(text)));
      return both!.join() === [...a!, ...b!].join();
    };
    const id = tokenizer.tokenToId(token);
    const cuts =
      id !== undefined &&
      tokenizer.encode(token)[0] === id &&
      tokenizer.encode(token).length === 1 &&
      ['', ' ', '\n'].every((blank) => neutral(`a${blank}`, `${token}${blank}a`));
    if (this.cuts.size < 10_000) this.cuts.set(token, cuts);
    return cuts;
  }

  private idsOf(text: string): Int32Array {
    if (text.length > 64) return this.tokenizer.encode(text);
    let ids = this.short.get(text);
    if (ids === undefined) {
      ids = this.tokenizer.encode(text);
      if (this.short.size >= 10_000) this.short.clear();
      this.short.set(text, ids);
    }
    return ids;
  }
}

function push(out: EncodedText, ids: Iterable<number>, learned: boolean): void {
  for (const id of ids) {
    out.ids.push(id);
    out.learned.push(learned);
  }
}

const isPrefix = (ids: Int32Array, of: Int32Array): boolean =>
  ids.length <= of.length && ids.every((id, i) => id === of[i]);
