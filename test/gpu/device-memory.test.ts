import { describe, expect, it } from 'vitest';
import { codeOf, native } from '../../ts/native/index.ts';
import { defaultDevice, empty, memory, scope, tensor } from '../../ts/tensor/index.ts';

// The CPU's allocator says what it can in test/process; a device knows what it has.
describe.skipIf(defaultDevice() === 'cpu')(
  'memory of a device (skipped on the CPU: it has no fixed size)',
  () => {
    it('says what was asked for, used and free when it runs out, and goes on', () => {
      scope(() => {
        const held = tensor([1, 2, 3]);
        const before = memory();
        const { memoryBytes } = native().cudaStatus().devices[0]!;
        let error: unknown;
        try {
          empty([Math.ceil(memoryBytes / 4) + 1024]);
        } catch (caught) {
          error = caught;
        }
        expect(codeOf(error)).toBe('ERR_LIBMOE_OUT_OF_MEMORY');
        expect(String(error)).toMatch(
          /could not allocate \d+ MiB on cuda:0: \d+ MiB in use by tensors, \d+ MiB free of \d+ MiB; use a smaller batch/,
        );
        // What was asked of the device was waited for before it gave up.
        expect({ ...memory(), waits: 0 }).toEqual({ ...before, waits: 0 });
        expect(held.toArray()).toEqual([1, 2, 3]);
        expect(tensor([4]).toArray()).toEqual([4]);
      });
    });

    it('takes an upload of many pieces', () => {
      scope(() => {
        const values = Float32Array.from({ length: 3_000_001 }, (_, i) => i % 1013);
        const t = tensor(values);
        values.fill(-1); // the caller's array is its own again
        const back = t.readSync();
        expect(back[2_999_999]).toBe(2_999_999 % 1013);
        expect(back[70_000]).toBe(70_000 % 1013);
      });
    });
  },
);
