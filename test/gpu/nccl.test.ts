// NCCL with one rank: the real library on a real GPU (its communicator, its streams, its types), the tests' own on the emulated device. What several ranks do to one
// another is tested with processes of the stand-in: test/distributed, test/ops/collective.test.ts.
import { describe, expect, it } from 'vitest';
import { findNccl } from '../../ts/distributed/engines.ts';
import { native } from '../../ts/native/index.ts';
import { parseDevice } from '../../ts/tensor/dtype.ts';
import { defaultDevice } from '../../ts/tensor/index.ts';
import { combined, digest, ncclRanks } from '../distributed/ranks.ts';

const device = defaultDevice();
const emulated = device !== 'cpu' && native().cudaStatus().devices[parseDevice(device).index]!.emulated;

/** Why there is nothing to test here; undefined: there is. */
function missing(): string | undefined {
  if (device === 'cpu') return 'this run is on the CPU';
  return emulated ? undefined : (findNccl({ PATH: process.env.PATH }).reason ?? undefined);
}
const why = missing();
if (why) console.log(`skipped: NCCL with one rank, ${why}`);

describe.skipIf(why !== undefined)('NCCL with one rank', () => {
  it('reduces, gathers, scatters, sends and waits', async () => {
    // The rank looks for the library where a user's would be found. NCCL's kernels have no PTX to be forced to.
    const library = emulated ? {} : { LIBMOE_NCCL: undefined, CUDA_FORCE_PTX_JIT: undefined };
    const [rank, ...others] = await ncclRanks(1, 'operations', () => ({
      TEST_DEVICE: device,
      TEST_TIMEOUT: '120',
      ...library,
    }));
    expect(others).toEqual([]);
    const { error, code, stderr, result, worldSize, backend } = rank!;
    expect({ error, code, worldSize, backend, stderr: stderr.includes('ERR_') }).toEqual({
      ...{ error: undefined, code: 0, worldSize: 1, backend: 'nccl', stderr: false },
    });
    const { seen, sums, tensors } = result as {
      seen: Record<string, string>;
      sums: number[];
      tensors: number;
    };
    expect(tensors).toBe(0);
    expect(sums[0]).toBeCloseTo(0.1, 12);
    const own = (dtype: string, size: number) =>
      digest(
        dtype,
        Array.from({ length: size }, (_, i) => combined(dtype, 'sum', 1, i)),
      );
    const collectives = ['allReduce sum', 'allReduce max', 'reduceScatter sum', 'allGather', 'broadcast 0'];
    for (const dtype of ['f32', 'bf16', 'f64', 'i32', 'i64'])
      for (const size of [0, 1, 1000, 20001])
        for (const name of collectives)
          expect(seen[`${name} ${dtype} ${size}`], `${name} ${dtype} ${size}`).toBe(own(dtype, size));
    // Variable counts: with one rank none of its rows goes anywhere, and the row to spare stays what it was.
    expect(seen['allToAll f32']).toBe(digest('f32', new Array<number>(5).fill(0)));
  }, 240_000);
});
