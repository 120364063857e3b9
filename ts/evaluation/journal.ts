import { createHash } from 'node:crypto';
import { closeSync, existsSync, fsyncSync, ftruncateSync, mkdirSync, openSync, readFileSync, writeSync } from 'node:fs';
import { dirname } from 'node:path';
import type { TokenRequest, TokenScore } from './model.ts';

/** Raised whenever an answer to the same tokens may change by our doing. */
const keyVersion = 1;

/**
 * The key of an answer: SHA-256 over everything that determines it. Task and document are not in it, so an edited prompt
 * misses and an unchanged one hits under any name; the model's fingerprint is, so no model gets another's answers.
 */
export function requestKey(fingerprint: string, request: TokenRequest): string {
  return createHash('sha256')
    .update(JSON.stringify([keyVersion, fingerprint, request.kind, request.context, request.continuation]))
    .digest('hex');
}

/**
 * Answers on disk, one JSON line each, appended as they come: a killed run loses at most the last unsynced ones and the
 * same command continues where it stopped. A torn last line (crash in mid-write) is cut off when the file is opened.
 */
export class ScoreJournal {
  private readonly known = new Map<string, TokenScore>();
  private descriptor: number | undefined;
  private unsynced = 0;

  /** @param path none keeps the answers in memory only. */
  constructor(
    path?: string,
    private readonly syncEvery = 256,
  ) {
    if (path === undefined) return;
    const existed = existsSync(path);
    mkdirSync(dirname(path), { recursive: true });
    if (existed) this.load(path);
    this.descriptor = openSync(path, 'a');
  }

  private load(path: string): void {
    const content = readFileSync(path);
    const end = content.lastIndexOf(0x0a) + 1;
    for (const line of content.subarray(0, end).toString('utf8').split('\n')) {
      const entry = parseEntry(line);
      if (entry !== undefined) this.known.set(entry.key, { sum: entry.sum, greedy: entry.greedy });
    }
    if (end < content.length) {
      const descriptor = openSync(path, 'r+');
      ftruncateSync(descriptor, end);
      closeSync(descriptor);
    }
  }

  get(key: string): TokenScore | undefined {
    return this.known.get(key);
  }

  get size(): number {
    return this.known.size;
  }

  /** Keeps an answer. One that is no number is kept in memory only: a later run asks again. */
  put(key: string, score: TokenScore): void {
    this.known.set(key, score);
    if (this.descriptor === undefined || !Number.isFinite(score.sum)) return;
    writeSync(this.descriptor, `${JSON.stringify({ key, sum: score.sum, greedy: score.greedy })}\n`);
    if (++this.unsynced >= this.syncEvery) this.sync();
  }

  /** Makes what was put so far survive a power cut. */
  sync(): void {
    if (this.descriptor === undefined || this.unsynced === 0) return;
    fsyncSync(this.descriptor);
    this.unsynced = 0;
  }

  close(): void {
    if (this.descriptor === undefined) return;
    this.sync();
    closeSync(this.descriptor);
    this.descriptor = undefined;
  }

  [Symbol.dispose](): void {
    this.close();
  }
}

function parseEntry(line: string): ({ key: string } & TokenScore) | undefined {
  try {
    const entry = JSON.parse(line) as { key?: unknown; sum?: unknown; greedy?: unknown };
    return typeof entry.key === 'string' && typeof entry.sum === 'number' && typeof entry.greedy === 'boolean'
      ? { key: entry.key, sum: entry.sum, greedy: entry.greedy }
      : undefined;
  } catch {
    return undefined; // a line damaged on disk: its request is simply asked again
  }
}
