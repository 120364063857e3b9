import { describe, expect, it } from 'vitest';
import { launchEnvironment } from '../../ts/distributed/environment.ts';
import { chooseStrategy } from '../../ts/training/strategy/strategy.ts';

describe('chooseStrategy', () => {
  it('takes one process', async () => {
    const strategy = chooseStrategy(launchEnvironment({}));
    expect([strategy.name, strategy.rank, strategy.worldSize]).toEqual(['single', 0, 1]);
    expect(await strategy.reduceCounts([1, 2])).toEqual([1, 2]);
  });

  it('refuses more, which would each train alone', () => {
    const two = launchEnvironment({ OMPI_COMM_WORLD_RANK: '1', OMPI_COMM_WORLD_SIZE: '2' });
    expect(() => chooseStrategy(two)).toThrow(/ERR_LIBMOE_UNSUPPORTED.*rank 1 of 2 from openmpi/);
  });
});
