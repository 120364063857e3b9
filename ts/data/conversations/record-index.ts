import { createHash } from 'node:crypto';
import { type FileHandle, open } from 'node:fs/promises';
import { fail } from '../../native/index.ts';
import { reasonOf } from '../../storage/json.ts';
import { pauses } from '../pause.ts';
import { type ConversationCompat, readConversation, wordsIn } from './conversation.ts';
import { RecordScanner, type RecordSpan } from './record-scanner.ts';

/** Records that are left out. */
export interface BadRecords {
  count: number;
  /** The first of them by number, counted from 1, and what is wrong with each. */
  first: { record: number; reason: string }[];
}

/** Where the usable records of a file are, and what the orders need to know of each. */
export interface RecordIndex {
  /** Of the usable records, in the order of the file: first byte, number of bytes. */
  starts: Float64Array;
  lengths: Uint32Array;
  /** Words in all turns; negative for a record without images. */
  words: Int32Array;
  /** The record's number in the file, from 1. */
  numbers: Uint32Array;
  bad: BadRecords;
  /** SHA-256 of the file. */
  contentHash: string;
}

/** A record may be this long. Longer ones are bad: they would have to be held in memory whole. */
const longest = 64 << 20;
const pieceBytes = 1 << 20;
const named = 100;

/**
 * Reads a file of conversations once, from end to end, holding a megabyte and the record at hand. With `stopAtBad` the first bad record ends
 * it.
 * @throws ERR_LIBMOE_FILE when it cannot be read, ERR_LIBMOE_DATA for a bad record that is to stop it, ERR_LIBMOE_STOPPED
 */
export async function indexRecords(
  file: string,
  options: { compat: ConversationCompat; stopAtBad: boolean; signal?: AbortSignal },
): Promise<RecordIndex> {
  const handle = await open(file, 'r').catch((error: unknown) =>
    fail('ERR_LIBMOE_FILE', `cannot read ${file} (${reasonOf(error)})`, error),
  );
  try {
    return await scan(file, handle, options);
  } finally {
    await handle.close();
  }
}

async function scan(
  file: string,
  handle: FileHandle,
  options: { compat: ConversationCompat; stopAtBad: boolean; signal?: AbortSignal },
): Promise<RecordIndex> {
  const { compat, stopAtBad, signal } = options;
  const pause = pauses('indexing conversations', signal);
  const hash = createHash('sha256');
  const scanner = new RecordScanner();
  const table = new GrowingTable();
  const bad: BadRecords = { count: 0, first: [] };
  let record = 0;
  const refuse = (reason: string): undefined => {
    if (stopAtBad) fail('ERR_LIBMOE_DATA', `${file}, record ${record}: ${reason}`);
    bad.count += 1;
    if (bad.first.length < named) bad.first.push({ record, reason });
  };
  /** The bytes from `base` on: the beginning of the record that is under way, then the piece at hand. */
  let held = Buffer.alloc(0);
  let base = 0;
  const take = (span: RecordSpan): undefined => {
    record += 1;
    if (span.start < base || span.length > longest)
      return refuse(`has ${span.length} bytes, more than the ${longest} that are read`);
    let value: unknown;
    try {
      value = JSON.parse(held.toString('utf8', span.start - base, span.start - base + span.length));
    } catch (error) {
      return refuse(`is not JSON: ${(error as Error).message}`);
    }
    const conversation = readConversation(value, compat);
    if (typeof conversation === 'string') return refuse(conversation);
    const seen = conversation.images.length + conversation.unplaced.length > 0;
    table.add(span, (seen ? 1 : -1) * wordsIn(value), record);
  };
  const piece = Buffer.alloc(pieceBytes);
  for (let at = 0; ; ) {
    const { bytesRead } = await handle
      .read(piece, 0, pieceBytes, at)
      .catch((error: unknown) => fail('ERR_LIBMOE_FILE', `cannot read ${file} (${reasonOf(error)})`, error));
    if (bytesRead === 0) break;
    const bytes = piece.subarray(0, bytesRead);
    if (at === 0) refusePacked(file, bytes);
    hash.update(bytes);
    held = held.length === 0 ? bytes : Buffer.concat([held, bytes]);
    for (const span of scanner.push(bytes)) take(span);
    at += bytesRead;
    const from = scanner.pending < 0 || at - scanner.pending > longest ? at : scanner.pending;
    // A copy: the piece is read into again.
    held = Buffer.from(held.subarray(Math.max(from - base, 0)));
    base = at - held.length;
    const pausing = pause();
    if (pausing) await pausing;
  }
  const { last, torn } = scanner.finish();
  if (torn) {
    record += 1;
    refuse('the file ends before the list does: it is cut off');
  } else if (last) take(last);
  return { ...table.columns(), bad, contentHash: hash.digest('hex') };
}

function refusePacked(file: string, bytes: Uint8Array): void {
  const gzip = bytes[0] === 0x1f && bytes[1] === 0x8b;
  const zstd = bytes[0] === 0x28 && bytes[1] === 0xb5 && bytes[2] === 0x2f && bytes[3] === 0xfd;
  if (gzip || zstd)
    fail(
      'ERR_LIBMOE_DATA',
      `${file} is packed (${gzip ? 'gzip' : 'zstd'}); conversations are read at random places: unpack it first`,
    );
}

/** Four columns that double when they are full. */
class GrowingTable {
  private starts = new Float64Array(1024);
  private lengths = new Uint32Array(1024);
  private words = new Int32Array(1024);
  private numbers = new Uint32Array(1024);
  private count = 0;

  add(span: RecordSpan, words: number, number: number): void {
    const at = this.count++;
    if (at === this.starts.length) {
      const larger = <Column extends { set(other: Column): void }>(column: Column, made: Column): Column => {
        made.set(column);
        return made;
      };
      this.starts = larger(this.starts, new Float64Array(2 * at));
      this.lengths = larger(this.lengths, new Uint32Array(2 * at));
      this.words = larger(this.words, new Int32Array(2 * at));
      this.numbers = larger(this.numbers, new Uint32Array(2 * at));
    }
    this.starts[at] = span.start;
    this.lengths[at] = span.length;
    this.words[at] = words;
    this.numbers[at] = number;
  }

  columns(): Pick<RecordIndex, 'starts' | 'lengths' | 'words' | 'numbers'> {
    const { count } = this;
    return {
      starts: this.starts.slice(0, count),
      lengths: this.lengths.slice(0, count),
      words: this.words.slice(0, count),
      numbers: this.numbers.slice(0, count),
    };
  }
}
