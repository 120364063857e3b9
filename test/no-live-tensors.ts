import { setTimeout } from 'node:timers/promises';
import { afterAll } from 'vitest';
import { memory } from '../ts/tensor/memory.ts';

// Every test file must end with no tensor alive: a leak in the library or in the test is a failure of that file.
afterAll(async () => {
  if (memory().tensors === 0) return;
  // What a test dropped without running backward is garbage by now; the collector may finalise it late.
  for (let i = 0; i < 20 && memory().tensors > 0; i += 1) {
    (globalThis as { gc?: () => void }).gc?.();
    await setTimeout(5);
  }
  if (memory().tensors > 0)
    throw new Error(`${memory().tensors} tensors (${memory().bytes} bytes) are still alive`);
});
