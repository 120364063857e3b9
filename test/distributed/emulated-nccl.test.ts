// NCCL's engine on a CUDA device whose memory is host memory: the emulated one, with the stand-in. What it adds to test/ops/collective.test.ts are the streams:
// compute before communication, communication before compute, and the tickets by which the thread knows that the device is done.
import { describe, expect, it } from 'vitest';
import { combined, digest, ncclRanks } from './ranks.ts';

const emulated = process.env.LIBMOE_EMULATED_ARCH !== undefined;

describe.skipIf(!emulated)('two ranks on the emulated device', () => {
  it('add what the compute stream has made', async () => {
    const ranks = await ncclRanks(2, 'operations', () => ({ TEST_DEVICE: 'cuda:0', TEST_TIMEOUT: '60' }));
    for (const { error, code, stderr, result } of ranks) {
      expect({ error, code, stderr }).toEqual({ error: undefined, code: 0, stderr: '' });
      const { seen, tensors } = result as { seen: Record<string, string>; tensors: number };
      expect(tensors).toBe(0);
      for (const dtype of ['f32', 'bf16', 'i64'])
        expect(seen[`allReduce sum ${dtype} 20001`]).toBe(
          digest(
            dtype,
            Array.from({ length: 20001 }, (_, i) => combined(dtype, 'sum', 2, i)),
          ),
        );
    }
  }, 240_000);
});

if (!emulated) console.log('skipped: collectives on the emulated device, this run is not one on it');
