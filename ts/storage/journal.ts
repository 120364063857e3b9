import { closeSync, existsSync, fsyncSync, ftruncateSync, mkdirSync, openSync, readFileSync } from 'node:fs';
import { dirname } from 'node:path';
import { fail } from '../native/index.ts';
import { syncFolder, writeFileAtomically, writeFully } from './atomic.ts';
import { isJsonObject, type JsonObject, parseJson, reasonOf } from './json.ts';

/** How often a {@link Journal} is made durable. */
export interface JournalOptions {
  /** Lines between two fsyncs: what a power cut may cost. Default 1. A crash of the process alone never costs a finished line. */
  syncEvery?: number;
}

/**
 * An append-only file of one JSON object per line. A crash can tear the last line only; opening the journal again removes the torn
 * piece, so that the next line does not run into it.
 */
export class Journal {
  readonly path: string;
  readonly #syncEvery: number;
  #descriptor: number | undefined;
  #unsynced = 0;

  /** Opens or makes the file. Throws ERR_LIBMOE_FILE when it cannot, or when a line other than the last is damaged. */
  constructor(path: string, options: JournalOptions = {}) {
    const { syncEvery = 1 } = options;
    if (!(Number.isInteger(syncEvery) && syncEvery > 0)) {
      fail('ERR_LIBMOE_ARGUMENT', `syncEvery must be a positive integer, got ${syncEvery}`);
    }
    this.path = path;
    this.#syncEvery = syncEvery;
    try {
      mkdirSync(dirname(path), { recursive: true });
      const isNew = !existsSync(path);
      const scan = isNew ? undefined : scanJournal(path);
      this.#descriptor = openSync(path, 'a');
      if (scan && scan.tornBytes > 0) ftruncateSync(this.#descriptor, scan.wholeBytes);
      if (scan?.unterminated) writeFully(this.#descriptor, Buffer.from('\n'));
      if (isNew) syncFolder(dirname(path));
    } catch (cause) {
      fail('ERR_LIBMOE_FILE', `cannot open the journal ${path} (${reasonOf(cause)})`, cause);
    }
  }

  /** Adds one line. Throws ERR_LIBMOE_STATE after {@link close}, ERR_LIBMOE_FILE when the system refuses (disk full). */
  append(entry: object): void {
    this.appendAll([entry]);
  }

  /** Adds lines as {@link append} does, in one write. */
  appendAll(entries: readonly object[]): void {
    const descriptor = this.#open();
    try {
      writeFully(descriptor, Buffer.from(entries.map((entry) => `${JSON.stringify(entry)}\n`).join('')));
    } catch (cause) {
      fail('ERR_LIBMOE_FILE', `cannot write to ${this.path} (${reasonOf(cause)})`, cause);
    }
    this.#unsynced += entries.length;
    if (this.#unsynced >= this.#syncEvery) this.sync();
  }

  /** Makes everything appended so far durable. */
  sync(): void {
    if (this.#unsynced > 0) fsyncSync(this.#open());
    this.#unsynced = 0;
  }

  /** Makes everything durable and closes the file. */
  close(): void {
    if (this.#descriptor === undefined) return;
    this.sync();
    closeSync(this.#descriptor);
    this.#descriptor = undefined;
  }

  /** As {@link close}, for `using`. */
  [Symbol.dispose](): void {
    this.close();
  }

  #open(): number {
    return this.#descriptor ?? fail('ERR_LIBMOE_STATE', `the journal ${this.path} is closed`);
  }
}

/** The entries of a journal, a torn last line left out. Throws ERR_LIBMOE_FILE naming file and line of any other damage. */
export function readJournal(path: string): JsonObject[] {
  return scanJournal(path).entries;
}

/**
 * Cuts a journal before its first entry that `keep` refuses (and cuts a torn last line); the cut is atomic. Returns the number of
 * entries left. For going back to a checkpoint: what was logged after it will be logged again.
 */
export function truncateJournal(path: string, keep: (entry: JsonObject) => boolean): number {
  const { entries } = scanJournal(path);
  const first = entries.findIndex((entry) => !keep(entry));
  const left = first < 0 ? entries : entries.slice(0, first);
  writeFileAtomically(path, left.map((entry) => `${JSON.stringify(entry)}\n`).join(''));
  return left.length;
}

interface Scan {
  entries: JsonObject[];
  /** Bytes up to the end of the last whole line. */
  wholeBytes: number;
  tornBytes: number;
  /** The last entry is whole but its newline is missing (a file written by other hands). */
  unterminated: boolean;
}

function scanJournal(path: string): Scan {
  let bytes: Buffer;
  try {
    bytes = readFileSync(path);
  } catch (cause) {
    fail('ERR_LIBMOE_FILE', `cannot read ${path} (${reasonOf(cause)})`, cause);
  }
  const entries: JsonObject[] = [];
  let line = 0;
  let start = 0;
  for (;;) {
    const end = bytes.indexOf(10, start);
    line += 1;
    if (end < 0) break;
    const text = bytes.toString('utf8', start, end);
    start = end + 1;
    if (text.trim() === '') continue;
    const entry = parseJson(text, `${path} line ${line}`);
    if (!isJsonObject(entry)) fail('ERR_LIBMOE_FILE', `${path} line ${line} must hold a JSON object`);
    entries.push(entry);
  }
  const rest = bytes.toString('utf8', start);
  if (rest !== '') {
    // An object is whole when it parses: a torn one lacks its closing brace.
    const last = tryParse(rest);
    if (isJsonObject(last)) {
      entries.push(last);
      return { entries, wholeBytes: bytes.length, tornBytes: 0, unterminated: true };
    }
  }
  return { entries, wholeBytes: start, tornBytes: bytes.length - start, unterminated: false };
}

function tryParse(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
