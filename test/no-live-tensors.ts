import { afterAll } from 'vitest';
import { memory } from '../ts/tensor/memory.ts';
import { collected } from './collected.ts';

// Every test file must end with no tensor alive: a leak in the library or in the test is a failure of that file. The collector is not asked
// to help, it would free what an operation forgot; a file that must leave something to it says so with leaveToCollector().
afterAll(async () => {
  if (memory().tensors > 0) await collected();
  if (memory().tensors > 0)
    throw new Error(`${memory().tensors} tensors (${memory().bytes} bytes) are still alive`);
});
