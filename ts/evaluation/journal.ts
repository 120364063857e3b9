import { createHash } from 'node:crypto';
import { existsSync } from 'node:fs';
import { Journal, readJournal } from '../storage/index.ts';
import type { TokenRequest, TokenScore } from './model.ts';

/** Raised whenever an answer to the same tokens may change by our doing. */
const keyVersion = 1;

/**
 * The key of an answer: SHA-256 over everything that determines it. Task and document are not in it, so an edited prompt
 * misses and an unchanged one hits under any name; the model's fingerprint is, so no model gets another's answers.
 */
export function requestKey(fingerprint: string, request: TokenRequest): string {
  const { kind, context, continuation, images = [] } = request;
  const seen = images.length > 0 ? [images.map(({ sha256 }) => sha256)] : [];
  return createHash('sha256')
    .update(JSON.stringify([keyVersion, fingerprint, kind, context, continuation, ...seen]))
    .digest('hex');
}

/**
 * Answers on disk, one JSON line each, appended as they come: a killed run loses none that was written (a power cut at
 * most the last 256), and the same command continues where it stopped.
 */
export class ScoreJournal {
  private readonly known = new Map<string, TokenScore>();
  private readonly file: Journal | undefined;

  /** @param path none keeps the answers in memory only. Throws ERR_LIBMOE_FILE when the file is damaged. */
  constructor(path?: string) {
    if (path === undefined) return;
    const entries = existsSync(path) ? readJournal(path) : [];
    for (const { key, sum, greedy } of entries)
      if (typeof key === 'string' && typeof sum === 'number' && typeof greedy === 'boolean')
        this.known.set(key, { sum, greedy });
    this.file = new Journal(path, { syncEvery: 256 });
  }

  get(key: string): TokenScore | undefined {
    return this.known.get(key);
  }

  get size(): number {
    return this.known.size;
  }

  /** Keeps an answer. One that is no finite number stays in memory only: a later run asks again. */
  put(key: string, { sum, greedy }: TokenScore): void {
    this.known.set(key, { sum, greedy });
    if (Number.isFinite(sum)) this.file?.append({ key, sum, greedy });
  }

  sync(): void {
    this.file?.sync();
  }

  close(): void {
    this.file?.close();
  }

  [Symbol.dispose](): void {
    this.close();
  }
}
