import { fail, LibmoeError, native } from '../native/index.ts';
import * as collective from '../tensor/collective.ts';
import type { ProcessGroup, Work } from './process-group.ts';
import type { Rendezvous, RendezvousEvents } from './rendezvous.ts';

const advice =
  'The group is lost: start the ranks again (training goes on from its last checkpoint), with a longer time-out if a rank was only slow';

/** What a group knows of itself; the rendezvous reads and writes it from the moment this rank has joined. */
export class GroupState implements RendezvousEvents {
  /** Collectives begun so far. */
  begun = 0;
  /** What the host waits for; empty while it computes. */
  doing = '';
  /** Why nothing works any more. */
  reason = '';
  connection: collective.Connection | undefined;
  /** Ranks that have left, and after how many collectives. */
  readonly gone = new Map<number, number>();

  position(): { begun: number; doing: string } {
    return { begun: this.begun, doing: this.doing };
  }

  lost(message: string): void {
    if (this.reason) return;
    this.reason = message;
    if (this.connection) native().interruptCommunicator(this.connection.number, message);
  }

  left(rank: number, begun: number): void {
    this.gone.set(rank, begun);
    if (this.begun > begun) this.lost(departed(rank, begun, this.begun));
  }
}

const departed = (rank: number, begun: number, number: number): string =>
  `rank ${rank} has left the group after ${begun} collectives, this rank is at number ${number}: all ranks must do the same`;

/** The group of several ranks, connected by an engine and the rendezvous. */
export function connectedGroup(parts: {
  rank: number;
  localRank: number;
  backend: 'mpi' | 'nccl';
  connection: collective.Connection;
  rendezvous: Rendezvous;
  state: GroupState;
  /** Seconds. */
  timeout: number;
}): ProcessGroup {
  const { rank, localRank, backend, connection, rendezvous, state, timeout } = parts;
  let disposed: Promise<void> | undefined;

  const enter = (op: string): void => {
    if (disposed)
      fail('ERR_LIBMOE_STATE', `${op}: this process group was disposed of; make one with initProcessGroup()`);
    for (const [other, begun] of state.gone)
      if (begun <= state.begun) state.lost(departed(other, begun, state.begun + 1));
    if (state.reason) fail('ERR_LIBMOE_COLLECTIVE', `${op}: ${state.reason}. ${advice}`);
  };

  /** Finds out what was behind a failure in the engine. */
  const explained = async (error: unknown, number: number): Promise<never> => {
    const message = (error instanceof Error ? error.message : String(error)).replace(/^ERR_\w+: /, '');
    // The others may have said already what it is; the engine's own words then only say that it was called off.
    const known = state.reason || rendezvous.lost;
    const reason = known || (await rendezvous.report(number, message));
    state.lost(reason);
    const full = message.includes(reason)
      ? message
      : reason.includes(message)
        ? reason
        : `${message.split(':')[0]}: ${reason}`;
    throw new LibmoeError('ERR_LIBMOE_COLLECTIVE', `${full}. ${advice}`, { cause: error });
  };

  const begin = (op: string, start: (what: string) => Promise<void>): Work => {
    enter(op);
    const number = state.begun + 1;
    const promise = start(`${op} (collective ${number})`).catch((error: unknown) => explained(error, number));
    state.begun = number;
    promise.catch(() => {}); // told by wait(), however late that is called
    return { wait: () => promise };
  };

  const onHost = async <T>(op: string, body: () => Promise<T>): Promise<T> => {
    enter(op);
    state.doing = op;
    try {
      // What the device still has to do may yet fail.
      await native()
        .drainCommunicator(connection.number, op)
        .catch((error: unknown) => explained(error, state.begun));
      return await body();
    } catch (error) {
      if (error instanceof LibmoeError && !error.message.includes(advice))
        throw new LibmoeError(error.code, `${error.message}. ${advice}`, { cause: error });
      throw error;
    } finally {
      state.doing = '';
    }
  };

  const leave = async (): Promise<void> => {
    const agreed = await rendezvous.bye();
    state.connection = undefined;
    const closed = native()
      .closeCommunicator(connection.number, agreed && !state.reason)
      .catch(() => {});
    // An engine that is stuck keeps its own thread, not this process.
    await Promise.race([closed, sleepUnreferenced(timeout)]);
    rendezvous.close();
  };

  return {
    rank,
    worldSize: connection.worldSize,
    localRank,
    backend,
    allReduce: (tensor, op = 'sum') =>
      begin('allReduce', (what) => collective.allReduce(connection, what, tensor, op)),
    reduceScatter: (input, output) =>
      begin('reduceScatter', (what) => collective.reduceScatter(connection, what, input, output)),
    allGather: (input, output) =>
      begin('allGather', (what) => collective.allGather(connection, what, input, output)),
    allToAll: (input, inputCounts, output, outputCounts) =>
      begin('allToAll', (what) =>
        collective.allToAll(connection, what, input, inputCounts, output, outputCounts),
      ),
    broadcast: (tensor, root) =>
      begin('broadcast', (what) => collective.broadcast(connection, what, tensor, root)),
    barrier: () => onHost('barrier', async () => void (await rendezvous.sum('barrier', []))),
    sumNumbers: (values) => onHost('sumNumbers', () => rendezvous.sum('sumNumbers', values)),
    dispose() {
      disposed ??= leave();
      return disposed;
    },
  };
}

function sleepUnreferenced(seconds: number): Promise<void> {
  return new Promise((resolve) => {
    setTimeout(resolve, seconds * 1000).unref();
  });
}
