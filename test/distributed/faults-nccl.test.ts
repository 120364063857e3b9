// What goes wrong among ranks on the NCCL side, with the stand-in: every rank must end in time with an error that names who is at fault.
import { createServer } from 'node:net';
import { describe, expect, it } from 'vitest';
import { ncclRanks } from './ranks.ts';

const timeout = 2;
const patience = { TEST_TIMEOUT: String(timeout) };
/** Seconds that all ranks may take beyond the time-out on a machine that is busy with other things. */
const slack = 15;

describe('one of three ranks', () => {
  it.each([
    ['is killed', 'dead', {}, /rank 1 \(process \d+ on .+\) is gone: its process has ended/],
    ['ends', 'ended', {}, /rank 1 \(process \d+ on .+\) is gone: its process has ended/],
    [
      'throws and disposes',
      'thrown',
      {},
      /rank 1 has left the group after 1 collectives, this rank is at number 2/,
    ],
    ['leaves', 'leaves', {}, /rank 1 has left the group after 1 collectives, this rank is at number 2/],
    ['comes late', 'late', {}, /rank 1 \(process \d+ on .+\) has begun 1 collectives of 2/],
    ['is stopped', 'frozen', {}, /rank 1 \(process \d+ on .+\) does not answer: it is stopped/],
    [
      'is stuck in the engine',
      'engine',
      { STAND_IN_NCCL_STALL: '2' },
      // The rank whose time is out first leaves, which the others may see before their own time is out.
      /(has waited 2 s for NCCL: a rank has not begun the same call|NCCL reports remote process).* All ranks have begun it: look at the engine/s,
    ],
    [
      'has an engine that fails',
      'engine',
      { STAND_IN_NCCL_FAIL: '2' },
      /NCCL reports (unhandled system error|remote process)/,
    ],
  ] as const)(
    '%s',
    async (_, scenario, misdeed, message) => {
      const ranks = await ncclRanks(3, scenario, (rank) => ({
        ...patience,
        TEST_GUILTY: '1',
        ...(rank === 1 && misdeed),
      }));
      for (const { rank, error, errorCode, seconds, code } of ranks) {
        if (rank === 1 && ['dead', 'ended', 'thrown', 'leaves', 'frozen'].includes(scenario)) continue;
        expect({ rank, error, errorCode, code }).toEqual({
          rank,
          error: expect.stringMatching(message),
          errorCode: 'ERR_LIBMOE_COLLECTIVE',
          code: 1,
        });
        expect(error).toContain('start the ranks again');
        expect(seconds).toBeLessThan(timeout + slack);
      }
      if (misdeed && 'STAND_IN_NCCL_STALL' in misdeed)
        expect(ranks.some(({ error }) => error?.includes('has waited 2 s for NCCL'))).toBe(true);
      if (scenario === 'thrown') expect(ranks[1]!.error).toBe('the model exploded');
    },
    90_000,
  );

  it('is refused a call within a group of calls, and does not leave the group open', async () => {
    const good = await ncclRanks(2, 'exchange', () => patience);
    expect(good.map(({ result, stderr }) => [result, stderr])).toEqual(Array(2).fill(['all went well', '']));
    const ranks = await ncclRanks(2, 'exchange', (rank) => ({
      ...patience,
      ...(rank === 1 && { STAND_IN_NCCL_REFUSE: '2' }),
    }));
    expect(ranks[1]!.error).toMatch(/rank 1: NCCL reports invalid argument/);
    expect(ranks[1]!.errorCode).toBe('ERR_LIBMOE_COLLECTIVE');
    // Rank 0 may have received all it waits for before it hears of rank 1's error.
    expect(ranks[0]!.errorCode ?? ranks[0]!.result).toMatch(/^(ERR_LIBMOE_COLLECTIVE|all went well)$/);
    expect(ranks.map(({ stderr }) => stderr)).toEqual(['', '']);
  }, 90_000);

  it('is late for a barrier', async () => {
    const ranks = await ncclRanks(3, 'hostLate', () => ({ ...patience, TEST_GUILTY: '2' }));
    for (const { error } of ranks)
      expect(error).toMatch(/ERR_LIBMOE_COLLECTIVE: barrier: .*after 2 s rank 2 has not called it/);
  }, 90_000);
});

describe('a group that cannot be formed', () => {
  it.each([
    [
      'an old NCCL on one rank',
      { STAND_IN_NCCL_VERSION: '21003' },
      /rank 1 \(process \d+ on .+\) cannot take part: LIBMOE_NCCL: NCCL 2\.10\.3 in .+ is too old: 2\.18\.0 or newer is needed/,
    ],
    [
      'no NCCL on one rank',
      { LIBMOE_NCCL: '/nowhere/libnccl.so.2' },
      /rank 1 .+ cannot take part: LIBMOE_NCCL: .*\/nowhere/,
    ],
    [
      'another NCCL on one rank',
      { STAND_IN_NCCL_VERSION: '22802' },
      /has NCCL 2\.2[78]\.\d.* NCCL 2\.2[78]\.\d: all ranks need the same/,
    ],
    [
      'another world size',
      { WORLD_SIZE: '3' },
      /rank 1 .+ was started with a world size of 3, rank 0 with 2/,
    ],
  ] as const)(
    '%s',
    async (_, misdeed, message) => {
      const ranks = await ncclRanks(2, 'engine', (rank) => ({
        ...patience,
        ...(rank === 1 && misdeed),
      }));
      for (const { error, code } of ranks)
        expect({ error, code }).toEqual({ error: expect.stringMatching(message), code: 1 });
    },
    90_000,
  );

  it('two processes with one rank among three', async () => {
    const ranks = await ncclRanks(3, 'engine', (rank) => ({
      // Both must have come before the others give up, also where processes start slowly.
      TEST_TIMEOUT: '30',
      ...(rank === 2 && { RANK: '1' }),
    }));
    const said = ranks.flatMap(({ error }) => (error ? [error] : []));
    expect(said.length).toBeGreaterThanOrEqual(2);
    for (const error of said) expect(error).toMatch(/two processes say that they are rank 1/);
  }, 90_000);

  it('a rank that never comes', async () => {
    const [rank0] = await ncclRanks(2, 'engine', () => patience, [0]);
    expect(rank0!.error).toMatch(/after 2 s rank 1 of 2 has not come to rank 0 at 127\.0\.0\.1:\d+/);
  }, 90_000);

  it('no rank 0', async () => {
    const [rank1] = await ncclRanks(2, 'engine', () => patience, [1]);
    expect(rank1!.error).toMatch(/rank 1 has found no rank 0 at 127\.0\.0\.1:\d+ for 2 s .*ECONNREFUSED/);
  }, 90_000);

  it('a port that is taken, by something that does not answer', async () => {
    const server = createServer(() => {});
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    const { port } = server.address() as { port: number };
    const ranks = await ncclRanks(2, 'engine', () => ({ ...patience, MASTER_PORT: String(port) }));
    server.close();
    expect(ranks[0]!.error).toMatch(
      /rank 0 cannot listen at .*: the port is in use by another process: set MASTER_PORT/,
    );
    expect(ranks[1]!.error).toMatch(/rank 0 has not answered for 7 s/);
  }, 90_000);

  it('an engine that does not connect', async () => {
    const ranks = await ncclRanks(2, 'engine', (rank) => ({
      ...patience,
      ...(rank === 1 && { STAND_IN_NCCL_STALL: '0' }),
    }));
    for (const { error } of ranks)
      expect(error).toMatch(/connecting the ranks: rank \d has waited 2 s for NCCL/);
  }, 90_000);

  it('no address', async () => {
    const [rank] = await ncclRanks(2, 'engine', () => ({ MASTER_ADDR: '' }), [1]);
    expect(rank!.error).toMatch(/rank 1 of 2 does not know where rank 0 is: set MASTER_ADDR and MASTER_PORT/);
  }, 90_000);
});

it('a rank that is done early waits for the others, who do not take that for a fault', async () => {
  const ranks = await ncclRanks(3, 'disposeEarly', () => ({ TEST_GUILTY: '1' }));
  expect(ranks.map(({ result, code }) => [result, code])).toEqual(Array(3).fill(['all went well', 0]));
}, 90_000);

it('a rank that is slow in the engine holds the others up, no more', async () => {
  const ranks = await ncclRanks(2, 'engine', (rank) => (rank === 1 ? { STAND_IN_NCCL_DELAY: '300' } : {}));
  expect(ranks.map(({ result }) => result)).toEqual(['all went well', 'all went well']);
}, 90_000);

it('a group may be formed again', async () => {
  const ranks = await ncclRanks(2, 'again');
  expect(ranks.map(({ error, code }) => [error, code])).toEqual([
    [undefined, 0],
    [undefined, 0],
  ]);
}, 90_000);
