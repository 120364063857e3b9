import type { Handle } from './tensors.ts';

/** A library as it was found; `reason` says why it cannot be used and is empty when it can. */
export interface CollectiveLibrary {
  path: string;
  version: string;
  reason: string;
  /** The tests' own NCCL, which works on host memory. */
  standIn: boolean;
}

/** native/binding/collective.cpp. `what` is what messages call the piece of work. Promises reject with ERR_LIBMOE_COLLECTIVE. */
export interface CollectiveNative {
  openNccl(file: string): CollectiveLibrary;
  /** '' looks beside the binary. */
  openMpi(file: string): CollectiveLibrary;
  ncclUniqueId(): Uint8Array;
  /** engine 0 MPI, 1 NCCL; timeout in seconds. */
  openCommunicator(
    engine: number,
    deviceKind: number,
    deviceIndex: number,
    rank: number,
    size: number,
    timeout: number,
    id: Uint8Array,
  ): { communicator: number; connected: Promise<void> };
  interruptCommunicator(communicator: number, message: string): void;
  drainCommunicator(communicator: number, what: string): Promise<void>;
  closeCommunicator(communicator: number, agreed: boolean): Promise<void>;
  /** f: 0 sum, 1 max. */
  allReduce(communicator: number, what: string, tensor: Handle, f: number): Promise<void>;
  reduceScatter(
    communicator: number,
    what: string,
    input: Handle,
    output: Handle,
    size: number,
  ): Promise<void>;
  allGather(communicator: number, what: string, input: Handle, output: Handle, size: number): Promise<void>;
  /** Counts in rows of `row` elements. */
  allToAll(
    communicator: number,
    what: string,
    input: Handle,
    inputCounts: readonly number[],
    output: Handle,
    outputCounts: readonly number[],
    row: number,
    size: number,
  ): Promise<void>;
  broadcast(communicator: number, what: string, tensor: Handle, root: number): Promise<void>;
}
