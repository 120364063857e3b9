// Every collective between real processes, bit by bit against sums in the order of ranks: through MPI, and through NCCL's interface with the stand-in.
import { describe, expect, it } from 'vitest';
import { combined, digest, element, hasMpirun, mpiRanks, ncclRanks } from '../distributed/ranks.ts';

interface Operations {
  seen: Record<string, string>;
  sums: (number | null)[];
  tensors: number;
}

const reducible = ['f32', 'f64', 'bf16', 'i32', 'i64'];
const every = [...reducible, 'u8', 'bool'];
const sizes = [0, 1, 1000, 20001];
const numbers = (n: number, f: (i: number) => number) => Array.from({ length: n }, (_, i) => f(i));

/** What rank `rank` of `ranks` must see. */
function expected(rank: number, ranks: number): Record<string, string> {
  const seen: Record<string, string> = {};
  const all = numbers(ranks, (r) => r);
  for (const dtype of reducible)
    for (const size of sizes) {
      for (const op of ['sum', 'max'])
        seen[`allReduce ${op} ${dtype} ${size}`] = digest(
          dtype,
          numbers(size, (i) => combined(dtype, op, ranks, i)),
        );
      seen[`reduceScatter sum ${dtype} ${size}`] = digest(
        dtype,
        numbers(size, (i) => combined(dtype, 'sum', ranks, rank * size + i)),
      );
    }
  for (const dtype of every) {
    for (const size of sizes) {
      seen[`allGather ${dtype} ${size}`] = digest(
        dtype,
        all.flatMap((r) => numbers(size, (i) => element(dtype, r, i))),
      );
      for (const root of all)
        seen[`broadcast ${root} ${dtype} ${size}`] = digest(
          dtype,
          numbers(size, (i) => element(dtype, root, i)),
        );
    }
    const rows = (from: number, to: number) => (from + 2 * to) % 3;
    const received = all.flatMap((from) => {
      const first = all.slice(0, rank).reduce((sum, to) => sum + rows(from, to), 0);
      return numbers(rows(from, rank) * 5, (i) => element(dtype, from, first * 5 + i));
    });
    seen[`allToAll ${dtype}`] = digest(dtype, [...received, ...numbers(5, () => 0)]);
  }
  seen['allReduce sum f32 5000'] = digest(
    'f32',
    numbers(5000, (i) => combined('f32', 'sum', ranks, i)),
  );
  return seen;
}

function check(said: readonly { rank: number; backend?: string; result?: unknown }[], ranks: number): void {
  expect(said.map(({ rank }) => rank)).toEqual(numbers(ranks, (r) => r));
  for (const { rank, result } of said) {
    const { seen, sums, tensors } = result as Operations;
    expect(seen).toEqual(expected(rank, ranks));
    expect(sums).toEqual([numbers(ranks, (r) => 0.1 * (r + 1)).reduce((a, b) => a + b, 0), null, 0]);
    expect(tensors).toBe(0);
  }
}

describe.each([2, 4])('%i ranks', (ranks) => {
  it('through the interface of NCCL', async () => {
    const said = await ncclRanks(ranks, 'operations');
    for (const { stderr, code } of said) expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
    check(said, ranks);
    expect(said[0]!.backend).toBe('nccl');
  }, 240_000);

  it.skipIf(!hasMpirun())(
    'through MPI',
    async () => {
      const { said, code, stderr } = await mpiRanks(ranks, 'operations');
      expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
      check(said, ranks);
      expect(said[0]!.backend).toBe('mpi');
    },
    120_000,
  );
});

describe.skipIf(!hasMpirun())('MPI', () => {
  it('cuts what is large into pieces', async () => {
    const { said, code } = await mpiRanks(2, 'large');
    expect(code).toBe(0);
    const size = 4_300_001;
    for (const { result } of said)
      expect(result).toEqual({
        sum: digest(
          'f64',
          numbers(size, (i) => combined('f64', 'sum', 2, i)),
        ),
        broadcast: digest(
          'f64',
          numbers(size, (i) => element('f64', 1, i)),
        ),
      });
  }, 240_000);

  it('gives the same bits whatever the timing', async () => {
    const { said } = await mpiRanks(4, 'repeated');
    const right = digest(
      'f32',
      numbers(20001, (i) => combined('f32', 'sum', 4, i)),
    );
    expect(said.map(({ result }) => result)).toEqual([[right], [right], [right], [right]]);
  }, 240_000);
});

if (!hasMpirun())
  console.log(
    'skipped: collectives through MPI, there is no mpirun (apt-get install libopenmpi-dev openmpi-bin)',
  );
