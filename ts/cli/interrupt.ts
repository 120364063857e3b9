import { LibmoeError } from '../native/index.ts';
import { log } from './output.ts';

/** Exit code of a command that Ctrl-C ended. */
export const interrupted = 130;

/**
 * Runs work that can be stopped: the first Ctrl-C (or SIGTERM) asks it to end after the present step, the second ends the process at once.
 * Sets exit code 130 when it was stopped.
 */
export async function interruptible<T>(work: (signal: AbortSignal) => Promise<T>): Promise<T> {
  const controller = new AbortController();
  const stop = () => {
    if (controller.signal.aborted) process.exit(interrupted);
    log('\nstopping after this step and saving; once more to end at once');
    controller.abort(
      new LibmoeError(
        'ERR_LIBMOE_STOPPED',
        'stopped; the same command continues (train: with --resume; eval: if it had --out)',
      ),
    );
  };
  process.on('SIGINT', stop);
  process.on('SIGTERM', stop);
  try {
    return await work(controller.signal);
  } finally {
    process.off('SIGINT', stop);
    process.off('SIGTERM', stop);
    if (controller.signal.aborted) process.exitCode = interrupted;
  }
}
