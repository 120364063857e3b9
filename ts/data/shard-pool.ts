import { Piscina } from 'piscina';
import type { ShardEntry } from './shard-files.ts';
import { type ShardTask, tokenizeShard } from './shard-worker.ts';
import { restoreCode, workerEntry } from './worker-threads.ts';

/** Where shards are made: in worker threads, or in this one when there are none. */
export interface ShardPool {
  /** Rejects when the signal is aborted; the thread at it is ended. */
  run(task: ShardTask, signal?: AbortSignal): Promise<ShardEntry>;
  close(): Promise<void>;
}

/** A pool of `workers` threads; 0 works in the calling thread. */
export function shardPool(workers: number): ShardPool {
  if (workers === 0) return { run: async (task) => tokenizeShard(task), close: async () => {} };
  const pool = new Piscina<ShardTask, ShardEntry>({
    ...workerEntry('./shard-worker', import.meta.url),
    name: 'tokenizeShard',
    // Threads start as shards come: a small corpus does not wait for a crowd that loads the tokenizer.
    minThreads: 1,
    maxThreads: workers,
    idleTimeout: 30_000,
  });
  return {
    run: (task, signal) => pool.run(task, { signal: signal ?? null }).catch(restoreCode),
    close: () => pool.destroy(),
  };
}
