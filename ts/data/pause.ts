import { fail } from '../native/index.ts';

/**
 * For long work in this thread: call the result now and then and await what it gives. About every 30 ms the event loop then turns once, so that
 * signals and timers live; an aborted signal ends the work with ERR_LIBMOE_STOPPED, saying what was `doing`.
 */
export function pauses(doing: string, signal?: AbortSignal): () => Promise<void> | undefined {
  let last = performance.now();
  return () => {
    stopIfAsked(doing, signal);
    if (performance.now() - last < 30) return undefined;
    return new Promise((resolve) => {
      setImmediate(() => {
        last = performance.now();
        resolve();
      });
    });
  };
}

/** Throws ERR_LIBMOE_STOPPED when the signal is aborted. */
export function stopIfAsked(doing: string, signal: AbortSignal | undefined): void {
  if (signal?.aborted)
    fail('ERR_LIBMOE_STOPPED', `stopped while ${doing}; what is finished is kept, the same call goes on`);
}
