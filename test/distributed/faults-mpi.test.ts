// What goes wrong among ranks on the CPU. mpirun ends all ranks when one dies, so death is a matter of ending in time; the rest must be explained.
import { describe, expect, it } from 'vitest';
import { hasMpirun, lonelyRank, mpiRanks } from './ranks.ts';

// MPI_Init too has to return within it, also where processes start slowly.
const patience = { TEST_TIMEOUT: '5', TEST_GUILTY: '1' };
const limit = 240_000;

describe.skipIf(!hasMpirun())('one of three ranks', () => {
  it.each([
    [
      'comes late',
      'late',
      /(has waited 5 s for rank 1|allReduce \(collective 2\)).*rank 1 \(process \d+ on .+\) has begun 1 collectives of 2/,
    ],
    [
      'has another shape',
      'shape',
      /every rank must call the same collectives in the same order with the same shapes|MPI_ERR_TRUNCATE|message truncated/,
    ],
  ] as const)(
    '%s',
    async (_, scenario, message) => {
      const { said, code } = await mpiRanks(3, scenario, patience);
      expect(code).not.toBe(0);
      // mpirun may end ranks that have not spoken yet once the first has failed.
      const told = said.filter(({ error }) => error);
      expect(told.length).toBeGreaterThan(0);
      for (const { error, errorCode } of told)
        expect({ error, errorCode }).toEqual({
          error: expect.stringMatching(message),
          errorCode: 'ERR_LIBMOE_COLLECTIVE',
        });
    },
    limit,
  );

  it.each([
    ['is killed', 'dead'],
    ['ends', 'ended'],
    ['throws and disposes', 'thrown'],
    ['leaves', 'leaves'],
  ])(
    '%s',
    async (_, scenario) => {
      const begin = performance.now();
      const { said, code } = await mpiRanks(3, scenario, patience);
      expect(code).not.toBe(0);
      // A rank that leaves has nothing to complain about; nobody else may believe that all went well.
      expect(said.filter(({ rank, result }) => rank !== 1 && result === 'all went well')).toEqual([]);
      expect(performance.now() - begin).toBeLessThan(120_000);
    },
    limit,
  );
});

describe('processes that MPI does not know', () => {
  it.skipIf(!hasMpirun())(
    'do not each train alone',
    async () => {
      const said = await lonelyRank({ RANK: '1', WORLD_SIZE: '2', TEST_ENGINE: 'mpi' });
      expect(said.error).toMatch(
        /ERR_LIBMOE_COLLECTIVE: .*MPI has started 1 process, the environment says that the world size is 2: start the ranks with mpirun \(libmoe launch does\)/,
      );
      expect(said.errorCode).toBe('ERR_LIBMOE_COLLECTIVE');
    },
    60_000,
  );

  it.skipIf(!hasMpirun())(
    'and those whose ranks are not those of MPI',
    async () => {
      const { said, code } = await mpiRanks(2, 'operations', { RANK: '1', WORLD_SIZE: '2' });
      expect(code).not.toBe(0);
      expect(said.map(({ error }) => error).join()).toMatch(
        /MPI calls this process rank 0, the environment rank 1: leave RANK to mpirun/,
      );
    },
    60_000,
  );

  it('nor without the shim', async () => {
    const said = await lonelyRank({
      RANK: '0',
      WORLD_SIZE: '2',
      TEST_ENGINE: 'mpi',
      LIBMOE_MPI: '/nowhere/libmoe_mpi.so',
    });
    expect(said.error).toMatch(
      /rank 0 of 2 has no MPI: LIBMOE_MPI: \/nowhere\/libmoe_mpi\.so: .*CPU ranks need Open MPI 4 or 5/,
    );
  }, 60_000);
});

if (!hasMpirun())
  console.log(
    'skipped: faults among ranks of MPI, there is no mpirun (apt-get install libopenmpi-dev openmpi-bin)',
  );
