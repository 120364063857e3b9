import { setTimeout } from 'node:timers/promises';
import { memory } from '../ts/tensor/memory.ts';

let allowed = false;

/** For a file whose tests drop graphs that nobody walks: only the garbage collector can free those. */
export function leaveToCollector(): void {
  allowed = true;
}

/** Collects garbage until no tensor is alive, if the file may rely on it. */
export async function collected(): Promise<void> {
  // Finalisers run late.
  for (let i = 0; allowed && i < 20 && memory().tensors > 0; i += 1) {
    (globalThis as { gc?: () => void }).gc?.();
    await setTimeout(5);
  }
}
