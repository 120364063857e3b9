import { readFileSync, writeFileSync } from 'node:fs';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';

function status(key: 'RssAnon' | 'RssFile' | 'VmHWM'): number {
  const line = readFileSync('/proc/self/status', 'utf8').match(new RegExp(`^${key}:\\s+(\\d+) kB`, 'm'));
  return Number(line?.[1] ?? Number.NaN) * 1024;
}

/** What making inputs and comparing results left behind is not the work's. */
function collectGarbage(): void {
  setFlagsFromString('--expose-gc');
  (runInNewContext('gc') as () => void)();
}

let measured = false;

/**
 * Begins before a case is set up. The function that it gives says how far one call takes the resident memory of this process above what it was then,
 * in bytes: weights, inputs, results, and all that allocators hold (Linux: the kernel's high-water mark). Undefined for all but the first case of a
 * process: memory that an earlier one gave back to the C library, and the library did not give back to the system, would not be counted again.
 */
export function residentPeak(): ((run: () => void) => number) | undefined {
  if (measured) return undefined;
  measured = true;
  collectGarbage();
  const before = status('RssAnon');
  return (run) => {
    collectGarbage();
    writeFileSync('/proc/self/clear_refs', '5');
    run();
    // Pages of files, such as Node's own code, come and go as the system likes.
    return status('VmHWM') - status('RssFile') - before;
  };
}
