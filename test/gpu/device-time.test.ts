import { describe, expect, it } from 'vitest';
import type { BenchFile } from '../../bench/run.ts';
import { codeOf, native } from '../../ts/native/index.ts';
import { parseDevice } from '../../ts/tensor/dtype.ts';
import { defaultDevice, full, synchronise } from '../../ts/tensor/index.ts';
import { libmoe } from '../cli/libmoe.ts';

const device = defaultDevice();
const { kind, index } = parseDevice(device);

function code(fn: () => unknown): string | undefined {
  try {
    fn();
  } catch (error) {
    return codeOf(error);
  }
  return undefined;
}

describe('device time', () => {
  // The CPU's operations are done when their call returns: there is no other time than the host's.
  it.runIf(device === 'cpu')('is refused on the CPU', () => {
    expect(code(() => native().mark(kind, index))).toBe('ERR_LIBMOE_UNSUPPORTED');
  });

  it.runIf(device !== 'cpu')('passes between two marks of the stream', () => {
    const from = native().mark(kind, index);
    using x = full([1 << 16], 1);
    synchronise();
    const to = native().mark(kind, index);
    expect(x.shape).toEqual([1 << 16]);
    expect(native().elapsed(from, to)).toBeGreaterThan(0);
    expect(native().elapsed(from, from)).toBe(0);
    native().dropMark(kind, index, from);
    expect(code(() => native().elapsed(from, to))).toBe('ERR_LIBMOE_DISPOSED');
    native().dropMark(kind, index, to);
    native().dropMark(kind, index, to); // twice is nothing
  });

  it.runIf(device !== 'cpu')(
    'is what npm run bench measures there',
    async () => {
      const { code, stdout, stderr } = await libmoe(
        `bench elementwise/cast-to-f32-4096x1024 --device ${device} --rounds 1 --json`.split(' '),
      );
      expect({ code, stderr: stderr.includes('ERR_') }).toEqual({ code: 0, stderr: false });
      const file = JSON.parse(stdout) as BenchFile;
      expect(file.machine.device?.name).toBe(native().cudaStatus().devices[index]!.name);
      expect(file.results[0]).toMatchObject({ name: expect.stringContaining('cast-to-f32'), samples: 1 });
    },
    120_000,
  );
});
