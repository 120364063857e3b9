import type { ProcessGroup, Work } from '../../ts/distributed/index.ts';
import type { Tensor } from '../../ts/tensor/index.ts';

/** What all ranks gave to one collective, and who waits for the end of it. */
interface Meeting {
  what: string;
  given: (Float64Array | readonly number[])[];
  finish: ((all: readonly (Float64Array | readonly number[])[]) => void)[];
  done: Promise<void>;
  end: () => void;
  fail: (error: Error) => void;
}

/** What went through the groups of {@link ranksInMemory}. */
export interface Traffic {
  /** Elements of each tensor that was added up, as rank 0 sent them. */
  reduced: number[];
}

/**
 * The groups of `count` ranks that run as promises in this process: what data-parallel training needs of a group. Every rank's n-th
 * collective meets the others' n-th and must be the same; results come when the last has arrived, not before. A rank that leaves fails the others.
 */
export function ranksInMemory(count: number, traffic: Traffic = { reduced: [] }): ProcessGroup[] {
  const meetings: Meeting[] = [];
  const called = new Array<number>(count).fill(0);
  let lost: Error | undefined;
  const newMeeting = (what: string): Meeting => {
    let end = (): void => {};
    let fail = (_: Error): void => {};
    const done = new Promise<void>((resolve, reject) => {
      end = resolve;
      fail = reject;
    });
    done.catch(() => {});
    return { what, given: [], finish: [], done, end, fail };
  };
  const meet = (
    rank: number,
    what: string,
    value: Float64Array | readonly number[],
    finish: (all: readonly (Float64Array | readonly number[])[]) => void,
  ): Promise<void> => {
    if (lost) return Promise.reject(lost);
    const number = called[rank]!++;
    meetings[number] ??= newMeeting(what);
    const meeting = meetings[number];
    if (meeting.what !== what)
      throw new Error(`collective ${number}: rank ${rank} calls ${what}, another rank ${meeting.what}`);
    meeting.given[rank] = value;
    meeting.finish[rank] = finish;
    if (meeting.finish.filter(Boolean).length === count) {
      for (const end of meeting.finish) end(meeting.given);
      meeting.end();
    }
    return meeting.done;
  };
  const numbers = (t: Tensor) => Float64Array.from(t.toArray());
  return Array.from({ length: count }, (_, rank): ProcessGroup => {
    const inPlace = (
      what: string,
      tensor: Tensor,
      combine: (all: readonly ArrayLike<number>[]) => number[],
    ): Work => {
      const done = meet(rank, `${what} ${tensor.dtype} ${tensor.size}`, numbers(tensor), (all) =>
        tensor.write(combine(all)),
      );
      return { wait: () => done };
    };
    const unused = (): never => {
      throw new Error('data-parallel training does not use this collective');
    };
    return {
      rank,
      worldSize: count,
      localRank: rank,
      backend: 'none',
      allReduce(tensor, op = 'sum') {
        if (rank === 0) traffic.reduced.push(tensor.size);
        return inPlace(`allReduce ${op}`, tensor, (all) =>
          Array.from({ length: tensor.size }, (_, i) =>
            all.map((own) => own[i]!).reduce((a, b) => (op === 'sum' ? a + b : Math.max(a, b))),
          ),
        );
      },
      broadcast: (tensor, root) =>
        inPlace(`broadcast ${root}`, tensor, (all) => Array.from(all[root]!, Number)),
      barrier: () => meet(rank, 'barrier', [], () => {}),
      async sumNumbers(values) {
        let sums: number[] = [];
        await meet(rank, `sumNumbers ${values.length}`, values, (all) => {
          sums = values.map((_, i) => all.reduce((sum, own) => sum + own[i]!, 0));
        });
        return sums;
      },
      async dispose() {
        lost ??= new Error(`rank ${rank} left`);
        for (const meeting of meetings) meeting.fail(lost);
      },
      reduceScatter: unused,
      allGather: unused,
      allToAll: unused,
    };
  });
}

/** Runs one function per rank; of a rank that fails the others hear. */
export async function onRanks<T>(
  count: number,
  rank: (group: ProcessGroup) => Promise<T>,
  traffic?: Traffic,
): Promise<PromiseSettledResult<T>[]> {
  return Promise.allSettled(
    ranksInMemory(count, traffic).map(async (group) => {
      try {
        return await rank(group);
      } catch (error) {
        await group.dispose();
        throw error;
      }
    }),
  );
}

/** The results of {@link onRanks} when none may fail. */
export function all<T>(results: readonly PromiseSettledResult<T>[]): T[] {
  return results.map((result) => {
    if (result.status === 'rejected') throw result.reason;
    return result.value;
  });
}
