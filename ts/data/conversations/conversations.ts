import { createHash } from 'node:crypto';
import { statSync } from 'node:fs';
import { type FileHandle, open } from 'node:fs/promises';
import { fail } from '../../native/index.ts';
import { reasonOf } from '../../storage/json.ts';
import { type Conversation, type ConversationCompat, readConversation, wordsIn } from './conversation.ts';
import { indexPath, readIndex, writeIndex } from './index-file.ts';
import { indexRecords, type RecordIndex } from './record-index.ts';

/** Conversations that can be read in any order. */
export interface Conversations {
  /** Usable ones. */
  readonly length: number;
  /** Words of each, negative without images: what the grouped orders sort by. `[length]` */
  readonly words: Int32Array;
  readonly compat: ConversationCompat;
  /** Changes with the content of any file. */
  readonly fingerprint: string;
  /** Records left out when the files were looked through; the first hundred of a file are named. */
  readonly bad: { readonly count: number; readonly first: readonly string[] };
  /** Throws ERR_LIBMOE_DATA when the file has changed since. */
  read(index: number): Promise<Conversation>;
  /** File and record number, for messages. */
  nameOf(index: number): string;
  /** Closes the files; they are opened again when something is read. */
  close(): Promise<void>;
}

/** Options of {@link openConversations}. */
export interface ConversationOptions {
  /** How records are read; see docs/data.md. Default `fixed`. */
  compat?: ConversationCompat;
  /** A record that cannot be used: is left out and counted (default), or stops everything. */
  onBad?: 'skip' | 'stop';
  /** Folder for the indices. Default: beside each file. */
  cache?: string;
  signal?: AbortSignal;
  /** Hears that records are left out, or that no index can be kept. Default: a line on stderr. */
  warn?: (message: string) => void;
}

/**
 * Opens files in LLaVA's format, a JSON array of any size or JSON lines. Each file is read through once, in pieces; where its records are is
 * then kept in an index (20 bytes a record), so that opening it again reads nothing else.
 * @throws ERR_LIBMOE_FILE for a file that cannot be read; ERR_LIBMOE_DATA when no record is usable, or one is bad and `onBad` is `stop`;
 * ERR_LIBMOE_STOPPED when the signal is aborted
 */
export async function openConversations(
  files: string | readonly string[],
  options: ConversationOptions = {},
): Promise<Conversations> {
  const { compat = 'fixed', onBad = 'skip', warn = (message: string) => console.error(message) } = options;
  const parts: Part[] = [];
  for (const file of typeof files === 'string' ? [files] : files) {
    const index = await indexOf(file, { ...options, compat, onBad, warn });
    const { bad } = index;
    const example = bad.first[0];
    if (example)
      warn(
        `${file}: ${bad.count} of ${bad.count + index.starts.length} records are left out, the first of them record ${example.record}: ${example.reason}`,
      );
    parts.push({ file, index });
  }
  const length = parts.reduce((sum, { index }) => sum + index.starts.length, 0);
  if (length === 0) fail('ERR_LIBMOE_DATA', `no usable conversation in ${[files].flat().join(', ')}`);
  return new ConversationFiles(parts, compat);
}

interface Part {
  file: string;
  index: RecordIndex;
}

async function indexOf(
  file: string,
  options: Required<Pick<ConversationOptions, 'compat' | 'onBad' | 'warn'>> & ConversationOptions,
): Promise<RecordIndex> {
  const { compat, onBad, cache, warn, signal } = options;
  let stamp: { size: number; modified: number; compat: string };
  try {
    const { size, mtimeMs } = statSync(file);
    stamp = { size, modified: mtimeMs, compat };
  } catch (error) {
    return fail('ERR_LIBMOE_FILE', `cannot read ${file} (${reasonOf(error)})`, error);
  }
  const place = indexPath(file, compat, cache);
  const before = readIndex(place, stamp);
  const example = before?.bad.first[0];
  if (before && !(onBad === 'stop' && example)) return before;
  if (onBad === 'stop' && example)
    return fail('ERR_LIBMOE_DATA', `${file}, record ${example.record}: ${example.reason}`);
  const index = await indexRecords(file, { compat, stopAtBad: onBad === 'stop', signal });
  try {
    writeIndex(place, stamp, index);
  } catch (error) {
    warn(`${file} will be read through again next time: no index can be written (${reasonOf(error)})`);
  }
  return index;
}

class ConversationFiles implements Conversations {
  readonly length: number;
  readonly words: Int32Array;
  readonly compat: ConversationCompat;
  readonly fingerprint: string;
  readonly bad: { readonly count: number; readonly first: readonly string[] };
  private readonly parts: readonly (Part & { begin: number; handle?: Promise<FileHandle> })[];

  constructor(parts: readonly Part[], compat: ConversationCompat) {
    this.compat = compat;
    let begin = 0;
    this.parts = parts.map((part) => {
      const placed = { ...part, begin };
      begin += part.index.starts.length;
      return placed;
    });
    this.length = begin;
    this.words = new Int32Array(begin);
    for (const part of this.parts) this.words.set(part.index.words, part.begin);
    this.fingerprint = fingerprintOf(
      parts.map(({ index }) => index.contentHash),
      compat,
    );
    this.bad = {
      count: parts.reduce((sum, { index }) => sum + index.bad.count, 0),
      first: parts.flatMap(({ file, index }) =>
        index.bad.first.map(({ record, reason }) => `${file}, record ${record}: ${reason}`),
      ),
    };
  }

  async read(index: number): Promise<Conversation> {
    const part = this.partOf(index);
    part.handle ??= open(part.file, 'r');
    const { starts, lengths } = part.index;
    const bytes = Buffer.alloc(lengths[index - part.begin]!);
    let conversation: Conversation | string;
    try {
      const { bytesRead } = await (await part.handle).read(
        bytes,
        0,
        bytes.length,
        starts[index - part.begin]!,
      );
      conversation =
        bytesRead < bytes.length
          ? 'the file is shorter'
          : readConversation(JSON.parse(bytes.toString('utf8')), this.compat);
    } catch (error) {
      conversation = reasonOf(error);
    }
    if (typeof conversation !== 'string') return conversation;
    return fail(
      'ERR_LIBMOE_DATA',
      `${this.nameOf(index)} is no longer what it was when the file was indexed: ${conversation}`,
    );
  }

  nameOf(index: number): string {
    const { file, begin, index: records } = this.partOf(index);
    return `${file}, record ${records.numbers[index - begin]}`;
  }

  async close(): Promise<void> {
    for (const part of this.parts) {
      const { handle } = part;
      part.handle = undefined;
      await (await handle?.catch(() => undefined))?.close();
    }
  }

  private partOf(index: number): Part & { begin: number; handle?: Promise<FileHandle> } {
    if (!(Number.isInteger(index) && index >= 0 && index < this.length))
      fail('ERR_LIBMOE_ARGUMENT', `there are conversations 0…${this.length - 1}, got ${index}`);
    return this.parts.findLast(({ begin }) => begin <= index)!;
  }
}

/**
 * Conversations from memory, records in LLaVA's format.
 * @throws ERR_LIBMOE_DATA when no record is usable, or one is bad and `onBad` is `stop`
 */
export function conversationsOf(
  records: readonly unknown[],
  options: Pick<ConversationOptions, 'compat' | 'onBad'> & { name?: string } = {},
): Conversations {
  const { compat = 'fixed', onBad = 'skip', name = 'records' } = options;
  const read: Conversation[] = [];
  const numbers: number[] = [];
  const words: number[] = [];
  const bad: string[] = [];
  for (const [i, record] of records.entries()) {
    const conversation = readConversation(record, compat);
    if (typeof conversation === 'string') {
      bad.push(`${name}, record ${i + 1}: ${conversation}`);
      if (onBad === 'stop') fail('ERR_LIBMOE_DATA', bad[0]!);
      continue;
    }
    const seen = conversation.images.length + conversation.unplaced.length > 0;
    read.push(conversation);
    numbers.push(i + 1);
    words.push((seen ? 1 : -1) * wordsIn(record));
  }
  if (read.length === 0) fail('ERR_LIBMOE_DATA', `no usable conversation in ${name}`);
  const content = createHash('sha256').update(JSON.stringify(records)).digest('hex');
  return {
    length: read.length,
    words: Int32Array.from(words),
    compat,
    fingerprint: fingerprintOf([content], compat),
    bad: { count: bad.length, first: bad.slice(0, 100) },
    read: async (index) => read[index]!,
    nameOf: (index) => `${name}, record ${numbers[index]}`,
    close: async () => {},
  };
}

function fingerprintOf(hashes: readonly string[], compat: ConversationCompat): string {
  return createHash('sha256')
    .update([compat, ...hashes].join('/'))
    .digest('hex')
    .slice(0, 32);
}
