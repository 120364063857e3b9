import { fail } from '../native/index.ts';
import type { DecodeOptions, EncodeOptions, Tokenizer } from './tokenizer.ts';

const bos = 1;
const eos = 2;
const firstByte = 3;

/**
 * Reads a tokenizer of karpathy/llama2.c: int32 longest token, then per token float32 score, int32 length in bytes, bytes; little endian.
 * Ids 0, 1, 2 are unknown, BOS and EOS, the next 256 the single bytes, then SentencePiece's pieces with a plain space for its word mark.
 * @throws ERR_LIBMOE_TOKENIZER when the file is cut off or is something else.
 */
export function readLlama2cTokenizer(content: Uint8Array, name: string, hash: string): Tokenizer {
  const view = new DataView(content.buffer, content.byteOffset, content.byteLength);
  const broken = (why: string): never =>
    fail('ERR_LIBMOE_TOKENIZER', `${name} is not a llama2c tokenizer: ${why}`);
  if (content.length < 4) broken(`${content.length} bytes are too few`);
  const longest = view.getInt32(0, true);
  if (longest < 1 || longest > 4096) broken(`longest token ${longest}`);
  const pieces: Uint8Array[] = [];
  const scores: number[] = [];
  for (let at = 4; at < content.length; ) {
    if (at + 8 > content.length) broken(`cut off at byte ${at} (token ${pieces.length})`);
    const length = view.getInt32(at + 4, true);
    if (length < 0 || length > longest)
      broken(`token ${pieces.length} has length ${length}, the longest should be ${longest}`);
    if (at + 8 + length > content.length) broken(`cut off at byte ${at} (token ${pieces.length})`);
    scores.push(view.getFloat32(at, true));
    pieces.push(content.subarray(at + 8, at + 8 + length));
    at += 8 + length;
  }
  if (pieces.length < firstByte + 256)
    broken(`${pieces.length} tokens, at least ${firstByte + 256} expected`);
  return new Llama2cTokenizer(pieces, scores, name, hash);
}

class Llama2cTokenizer implements Tokenizer {
  readonly name: string;
  readonly hash: string;
  readonly vocabularySize: number;
  readonly bosId = bos;
  readonly eosId = eos;
  private readonly pieces: readonly Uint8Array[];
  private readonly scores: readonly number[];
  private readonly texts: string[];
  private readonly ids = new Map<string, number>();

  constructor(pieces: readonly Uint8Array[], scores: readonly number[], name: string, hash: string) {
    this.pieces = pieces;
    this.scores = scores;
    this.name = name;
    this.hash = hash;
    this.vocabularySize = pieces.length;
    const decoder = new TextDecoder();
    this.texts = pieces.map((piece) => decoder.decode(piece));
    // Control and byte tokens are not reached by joining text.
    for (let id = firstByte + 256; id < pieces.length; ++id) {
      if (!this.ids.has(this.texts[id]!)) this.ids.set(this.texts[id]!, id);
    }
  }

  encode(text: string, options: EncodeOptions = {}): Int32Array {
    if (typeof text !== 'string') fail('ERR_LIBMOE_ARGUMENT', `encode expects a string, got ${typeof text}`);
    const ids: number[] = options.addSpecialTokens ? [bos] : [];
    if (text === '') return Int32Array.from(ids);
    // No piece has a space after its first character, so words can be joined one at a time.
    for (const word of ` ${text}`.match(/ [^ ]*/g) ?? []) this.join(word, ids);
    return Int32Array.from(ids);
  }

  decode(ids: Iterable<number>, options: DecodeOptions = {}): string {
    const bytes: number[] = [];
    let first = true;
    for (const id of ids) {
      if (!Number.isInteger(id) || id < 0 || id >= this.vocabularySize) {
        fail('ERR_LIBMOE_TOKENIZER', `ids must lie in 0…${this.vocabularySize - 1}, got ${id}`);
      }
      if (id < firstByte && (options.skipSpecialTokens ?? true)) continue;
      const raw = id >= firstByte && id < firstByte + 256 ? [id - firstByte] : Array.from(this.pieces[id]!);
      bytes.push(...(first && raw[0] === 0x20 ? raw.slice(1) : raw));
      first = false;
    }
    return new TextDecoder().decode(Uint8Array.from(bytes));
  }

  idToToken(id: number): string | undefined {
    return this.texts[id];
  }

  tokenToId(token: string): number | undefined {
    return this.ids.get(token) ?? (this.texts.indexOf(token) >= 0 ? this.texts.indexOf(token) : undefined);
  }

  /** Joins the neighbours whose piece has the highest score, leftmost first, until none is left. */
  private join(word: string, out: number[]): void {
    const parts = Array.from(word);
    for (;;) {
      let best = -1;
      let bestScore = Number.NEGATIVE_INFINITY;
      for (let i = 0; i + 1 < parts.length; ++i) {
        const id = this.ids.get(parts[i]! + parts[i + 1]!);
        if (id !== undefined && this.scores[id]! > bestScore) {
          bestScore = this.scores[id]!;
          best = i;
        }
      }
      if (best < 0) break;
      parts.splice(best, 2, parts[best]! + parts[best + 1]!);
    }
    for (const part of parts) {
      const id = this.ids.get(part);
      if (id !== undefined) out.push(id);
      else for (const byte of new TextEncoder().encode(part)) out.push(firstByte + byte);
    }
  }
}
