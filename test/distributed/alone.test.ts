import { describe, expect, it } from 'vitest';
import { initProcessGroup } from '../../ts/distributed/index.ts';
import { empty, tensor } from '../../ts/tensor/index.ts';

describe('a group of one process', () => {
  it('copies where there is somewhere to copy to, and changes nothing in place', async () => {
    const group = await initProcessGroup();
    expect(group).toMatchObject({ rank: 0, worldSize: 1, localRank: 0, backend: 'none' });
    using x = tensor([1, 2, 3, 4], [2, 2]);
    using y = empty([2, 2]);
    await group.allReduce(x).wait();
    await group.allReduce(x, 'max').wait();
    await group.broadcast(x, 0).wait();
    expect(x.toArray()).toEqual([1, 2, 3, 4]);
    for (const move of [
      () => group.reduceScatter(x, y),
      () => group.allGather(x, y),
      () => group.allToAll(x, [2], y, [2]),
    ]) {
      y.write([0, 0, 0, 0]);
      await move().wait();
      expect(y.toArray()).toEqual([1, 2, 3, 4]);
    }
    y.write([0, 0, 0, 0]);
    await group.allToAll(x, [1], y, [1]).wait();
    expect(y.toArray()).toEqual([1, 2, 0, 0]);
    await group.barrier();
    expect(await group.sumNumbers([0.1, 2])).toEqual([0.1, 2]);
    await group.dispose();
    expect(() => group.allReduce(x)).toThrow(/ERR_LIBMOE_STATE/);
  });

  it('refuses what would not fit among many', async () => {
    const group = await initProcessGroup();
    using x = tensor([1, 2, 3, 4], [2, 2]);
    using small = empty([1, 2]);
    using bytes = empty([2, 2], { dtype: 'u8' });
    using half = empty([2, 2], { dtype: 'bf16' });
    expect(() => group.allReduce(bytes)).toThrow(/ERR_LIBMOE_DTYPE.*u8/);
    expect(() => group.reduceScatter(x, small)).toThrow(/ERR_LIBMOE_SHAPE: reduceScatter: input must have 1/);
    expect(() => group.allGather(x, half)).toThrow(/ERR_LIBMOE_DTYPE.*output bf16 and input f32/);
    expect(() => group.allToAll(x, [3], x, [3])).toThrow(/inputCounts add up to 3 rows/);
    expect(() => group.allToAll(x, [1, 1], x, [2])).toThrow(/one for each rank/);
    expect(() => group.allToAll(x, [1], x, [2])).toThrow(/sends itself 1 rows and expects 2/);
    expect(() => group.broadcast(x, 1)).toThrow(/root must be a rank from 0 to 0, got 1/);
    await expect(initProcessGroup({ timeout: 0 })).rejects.toThrow(/timeout/);
  });
});
