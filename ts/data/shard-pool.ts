import { createRequire } from 'node:module';
import { fileURLToPath } from 'node:url';
import { Piscina } from 'piscina';
import { type ErrorCode, fail, packageRoot } from '../native/index.ts';
import type { ShardEntry } from './shard-files.ts';
import { type ShardTask, tokenizeShard } from './shard-worker.ts';

/** Where shards are made: in worker threads, or in this one when there are none. */
export interface ShardPool {
  /** Rejects when the signal is aborted; the thread at it is ended. */
  run(task: ShardTask, signal?: AbortSignal): Promise<ShardEntry>;
  close(): Promise<void>;
}

/** A pool of `workers` threads; 0 works in the calling thread. */
export function shardPool(workers: number): ShardPool {
  if (workers === 0) return { run: async (task) => tokenizeShard(task), close: async () => {} };
  // The worker sits beside this file, as .ts in a checkout under test and as .js in dist.
  const source = import.meta.url.endsWith('.ts');
  const pool = new Piscina<ShardTask, ShardEntry>({
    filename: fileURLToPath(new URL(source ? './shard-worker.ts' : './shard-worker.js', import.meta.url)),
    name: 'tokenizeShard',
    // Threads start as shards come: a small corpus does not wait for a crowd that loads the tokenizer.
    minThreads: 1,
    maxThreads: workers,
    idleTimeout: 30_000,
    execArgv: source ? ['--import', typeStripping()] : [],
  });
  return {
    run: (task, signal) => pool.run(task, { signal: signal ?? null }).catch(restoreCode),
    close: () => pool.destroy(),
  };
}

/** Errors lose their code on the way between threads; the message still begins with it. */
function restoreCode(error: unknown): never {
  const match = /^(ERR_LIBMOE_[A-Z_]+): (.*)$/s.exec((error as Error).message);
  if (match) fail(match[1] as ErrorCode, match[2]!, error);
  throw error;
}

/** A module that lets a thread import .ts files on every supported Node, with the compiler that a checkout has anyway. */
function typeStripping(): string {
  const compiler = createRequire(`${packageRoot}/package.json`).resolve('typescript');
  // Written so that it serves both ways in which Node takes hooks: in the thread (from 22.15) and, before that, beside it.
  const hooks = `
    import { readFileSync } from 'node:fs';
    import { createRequire } from 'node:module';
    const ts = createRequire(${JSON.stringify(compiler)})(${JSON.stringify(compiler)});
    export function load(url, context, next) {
      if (!url.endsWith('.ts')) return next(url, context);
      const { outputText } = ts.transpileModule(readFileSync(new URL(url), 'utf8'), {
        compilerOptions: { module: ts.ModuleKind.ESNext, target: ts.ScriptTarget.ES2022, verbatimModuleSyntax: true },
      });
      return { format: 'module', source: outputText, shortCircuit: true };
    }`;
  const dataUrl = (code: string): string => `data:text/javascript,${encodeURIComponent(code)}`;
  const url = JSON.stringify(dataUrl(hooks));
  return dataUrl(`
    import module from 'node:module';
    if (module.registerHooks) module.registerHooks({ load: (await import(${url})).load });
    else module.register(${url});`);
}
