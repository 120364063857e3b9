import { afterAll } from 'vitest';
import { setDefaultDevice } from '../ts/tensor/default-device.ts';
import type { DeviceName } from '../ts/tensor/dtype.ts';
import { memory } from '../ts/tensor/memory.ts';
import { collected } from './collected.ts';

// The same tests run on another device: LIBMOE_TEST_DEVICE=cuda:0, with LIBMOE_BINARY naming the addon whose device is emulated where there is no GPU.
const device = process.env.LIBMOE_TEST_DEVICE;
if (device) setDefaultDevice(device as DeviceName);

// Every test file must end with no tensor alive: a leak in the library or in the test is a failure of that file. The collector is not asked
// to help, it would free what an operation forgot; a file that must leave something to it says so with leaveToCollector().
afterAll(async () => {
  if (memory().tensors > 0) await collected();
  if (memory().tensors > 0)
    throw new Error(`${memory().tensors} tensors (${memory().bytes} bytes) are still alive`);
});
