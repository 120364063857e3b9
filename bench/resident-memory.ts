import { readFileSync, writeFileSync } from 'node:fs';
import { trimMemory } from '../ts/tensor/memory.ts';

function status(key: 'VmRSS' | 'VmHWM'): number {
  const line = readFileSync('/proc/self/status', 'utf8').match(new RegExp(`^${key}:\\s+(\\d+) kB`, 'm'));
  return Number(line?.[1] ?? Number.NaN) * 1024;
}

/** Bytes by which one call raises this process's resident memory above what it held before (Linux: the kernel's high-water mark, reset first). */
export function residentGrowth(run: () => void): number {
  trimMemory();
  writeFileSync('/proc/self/clear_refs', '5');
  const before = status('VmRSS');
  run();
  return status('VmHWM') - before;
}
