import { existsSync, readdirSync, rmSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import { isDeepStrictEqual } from 'node:util';
import { fail } from '../native/index.ts';
import { removeOfEndedThreads } from '../storage/atomic.ts';
import type { JsonValue } from '../storage/json.ts';
import type { CorpusDocument } from './corpora.ts';
import { pauses, stopIfAsked } from './pause.ts';
import {
  type DocumentSeparator,
  finishedShard,
  readManifest,
  type ShardEntry,
  type ShardManifest,
  sourceHashOf,
  writeManifest,
} from './shard-files.ts';
import { type ShardPool, shardPool } from './shard-pool.ts';
import { loadTokenizer } from './tokenizer.ts';

/** How far {@link writeShards} is. */
export interface ShardProgress {
  documents: number;
  tokens: number;
  shards: number;
  seconds: number;
  /** Seconds still to go; undefined without `expectedDocuments`. */
  secondsLeft?: number;
}

/** Options of {@link writeShards}. */
export interface ShardOptions {
  /** Folder for the shards. */
  out: string;
  /** Path of the tokenizer, as for {@link loadTokenizer}. */
  tokenizer: string;
  /** What ends each document; default the tokenizer's EOS, or nothing if it has none. */
  separator?: DocumentSeparator;
  /** A shard is closed when its documents reach this many characters (default 4,000,000). */
  shardCharacters?: number;
  /** Worker threads; 0 works in this thread (default: one per core, at most 8). */
  workers?: number;
  expectedDocuments?: number;
  /** Called as documents come in. */
  onProgress?: (progress: ShardProgress) => void;
  /**
   * Whatever the documents are made from (file names, sizes, times). It is kept in the manifest; a later call with the same takes complete
   * shards as they are and reads no document.
   */
  source?: JsonValue;
  /** Ends the work; finished shards are kept. */
  signal?: AbortSignal;
}

/**
 * Tokenises a corpus into shards on disk (docs/data.md describes the files). The result depends on documents and options only, not on the
 * number of workers. Shards that an earlier call finished from the same texts are kept, and a complete folder stays complete until a shard
 * differs. Documents without text are left out.
 * @throws ERR_LIBMOE_DATA when no document has text or the folder holds shards made with other options, ERR_LIBMOE_STOPPED when the signal
 * was aborted, what tokenizer and corpus throw.
 */
export async function writeShards(
  documents: Iterable<CorpusDocument> | AsyncIterable<CorpusDocument>,
  options: ShardOptions,
): Promise<ShardManifest> {
  const { out, source, signal } = options;
  const workers = options.workers ?? Math.min(availableParallelism(), 8);
  const shardCharacters = options.shardCharacters ?? 4_000_000;
  if (!Number.isInteger(workers) || workers < 0 || workers > 256) {
    fail('ERR_LIBMOE_ARGUMENT', `workers must be a whole number from 0 to 256, got ${workers}`);
  }
  if (!(shardCharacters >= 1 && shardCharacters <= 2 ** 28)) {
    fail('ERR_LIBMOE_ARGUMENT', `shardCharacters must lie between 1 and 2^28, got ${shardCharacters}`);
  }
  const plan = planOf(options, shardCharacters);
  const there = existsSync(join(out, 'manifest.json')) ? readManifest(out) : undefined;
  if (there) refuseOther(out, there, plan);
  // Complete data of an earlier call; undefined as soon as a shard differs from it.
  let standing = there?.complete ? there : undefined;
  if (standing && source !== undefined && isDeepStrictEqual(standing.source, source)) {
    if (standing.shards.every((entry, i) => same(entry, finishedShard(out, i, entry.sourceHash))))
      return standing;
  }

  const started = performance.now();
  const entries: ShardEntry[] = [];
  let pool: ShardPool | undefined;
  const pause = pauses('tokenising', signal);
  const running = new Set<Promise<void>>();
  const done = { documents: 0, tokens: 0, shards: 0 };
  const finish = (index: number, entry: ShardEntry): void => {
    entries[index] = entry;
    done.documents += entry.documents;
    done.tokens += entry.tokens;
    done.shards += 1;
    const seconds = (performance.now() - started) / 1000;
    const expected = options.expectedDocuments;
    const secondsLeft = expected
      ? Math.max(0, (seconds * (expected - done.documents)) / done.documents)
      : undefined;
    options.onProgress?.({ ...done, seconds, secondsLeft });
  };
  let failure: unknown;
  let count = 0;
  const start = async (texts: string[]): Promise<void> => {
    const index = count++;
    const sourceHash = sourceHashOf(texts);
    const before = finishedShard(out, index, sourceHash);
    if (standing ? !same(standing.shards[index], before) : index === 0) {
      standing = undefined;
      writeManifest(out, plan);
    }
    if (before) return finish(index, before);
    pool ??= shardPool(workers);
    const task = pool
      .run(
        {
          folder: out,
          index,
          texts,
          sourceHash,
          tokenizer: options.tokenizer,
          tokenizerHash: plan.tokenizer.hash,
          separator: plan.separator,
          dtype: plan.dtype,
        },
        signal,
      )
      .then((entry) => finish(index, entry))
      .catch((error: unknown) => {
        failure ??= error;
      })
      .finally(() => running.delete(task));
    running.add(task);
    // Texts wait in memory, so only as many shards are under way as keep every thread busy.
    while (running.size > 2 * workers) await Promise.race(running);
    stopIfAsked('tokenising', signal);
    if (failure !== undefined) throw failure;
  };
  try {
    let texts: string[] = [];
    let characters = 0;
    for await (const { text } of documents) {
      const pausing = pause();
      if (pausing) await pausing;
      if (text.trim() === '') continue;
      texts.push(text);
      characters += text.length;
      if (characters < shardCharacters) continue;
      await start(texts);
      texts = [];
      characters = 0;
    }
    if (texts.length > 0) await start(texts);
    await Promise.all(running);
    stopIfAsked('tokenising', signal);
    if (failure !== undefined) throw failure;
  } finally {
    await Promise.all(running);
    await pool?.close();
    if (pool && signal?.aborted) removeOfEndedThreads(out);
  }
  if (count === 0) fail('ERR_LIBMOE_DATA', 'the corpus has no document with text');
  const manifest: ShardManifest = {
    ...plan,
    complete: true,
    documents: done.documents,
    tokens: done.tokens,
    shards: entries,
    ...(source !== undefined && { source }),
  };
  if (!isDeepStrictEqual(standing, manifest)) writeManifest(out, manifest);
  removeLeftovers(out, count);
  return manifest;
}

function planOf(options: ShardOptions, shardCharacters: number): ShardManifest {
  const tokenizer = loadTokenizer(options.tokenizer);
  const { name, hash, vocabularySize, eosId } = tokenizer;
  const separator =
    options.separator === undefined ? (eosId === undefined ? null : { id: eosId }) : options.separator;
  if (separator !== null && 'id' in separator && !(separator.id >= 0 && separator.id < vocabularySize)) {
    fail(
      'ERR_LIBMOE_ARGUMENT',
      `the separator's id must lie in 0…${vocabularySize - 1}, got ${separator.id}`,
    );
  }
  return {
    format: 'libmoe-shards',
    version: 1,
    complete: false,
    tokenizer: { name, hash, vocabularySize },
    dtype: vocabularySize < 65536 ? 'u16' : 'i32',
    separator,
    shardCharacters,
    documents: 0,
    tokens: 0,
    shards: [],
  };
}

const same = (a: ShardEntry | undefined, b: ShardEntry | undefined): boolean =>
  a !== undefined && isDeepStrictEqual(a, b);

function refuseOther(out: string, there: ShardManifest, plan: ShardManifest): void {
  for (const key of ['tokenizer', 'separator', 'shardCharacters', 'dtype'] as const) {
    const [was, is] =
      key === 'tokenizer' ? [there.tokenizer.hash, plan.tokenizer.hash] : [there[key], plan[key]];
    if (!isDeepStrictEqual(was, is)) {
      fail(
        'ERR_LIBMOE_DATA',
        `${out} holds shards made with ${key} ${JSON.stringify(was)}, asked for ${JSON.stringify(is)}: choose another folder or delete this one`,
      );
    }
  }
}

/** Shards of an earlier, longer corpus. */
function removeLeftovers(out: string, count: number): void {
  for (const name of readdirSync(out)) {
    const match = /^shard-(\d{5,})\.(bin|idx|json)$/.exec(name);
    if (match && Number(match[1]) >= count) rmSync(join(out, name), { force: true });
  }
}
