import type { DeviceName, Tensor } from '../tensor/index.ts';

/** A collective that has begun. What it reads and writes is its own until {@link Work.wait} resolves. */
export interface Work {
  /**
   * Resolves when the result may be used: by the host on the CPU, by whatever is enqueued next on a GPU. Every `Work` must be awaited.
   * Rejects with ERR_LIBMOE_COLLECTIVE, naming the operation and the rank at fault where that can be known, when a rank fails, leaves or
   * does not arrive before the group's time-out. The group is then lost: dispose of it and start the ranks again.
   */
  wait(): Promise<void>;
}

/**
 * The processes that train together, one for each device. Every rank must call the same collectives in the same order with the same shapes;
 * each begins at once and overlaps with whatever the caller does until `wait()`. Tensors live on the device of the group. Sums have the
 * same bits on every rank and in every repetition with the same number of ranks (docs/distributed.md).
 *
 * All collectives throw ERR_LIBMOE_SHAPE, ERR_LIBMOE_DTYPE or ERR_LIBMOE_DEVICE for tensors that do not fit, before anything is sent.
 */
export interface ProcessGroup {
  /** Number of this process, `0 … worldSize − 1`. */
  readonly rank: number;
  /** How many processes there are. */
  readonly worldSize: number;
  /** Number of this process on its machine. */
  readonly localRank: number;
  /** What moves the tensors: nothing for one process, MPI on the CPU, NCCL on CUDA. */
  readonly backend: 'none' | 'mpi' | 'nccl';
  /** Replaces `tensor` on every rank by the sum (default) or the largest of all, element by element. f32, f64, bf16 (added in f32), i32, i64. */
  allReduce(tensor: Tensor, op?: 'sum' | 'max'): Work;
  /** `input` is `worldSize` pieces of the size of `output`, one after the other; rank r gets the sum of all pieces number r. Types as {@link allReduce}. */
  reduceScatter(input: Tensor, output: Tensor): Work;
  /** Lays the `input` of every rank into `output`, by rank; `output` has `worldSize` times the elements. Any dtype. */
  allGather(input: Tensor, output: Tensor): Work;
  /**
   * Sends rows (of the first dimension) to every rank: the first `inputCounts[0]` rows of `input` to rank 0, the next `inputCounts[1]` to
   * rank 1 and so on; `output` gets `outputCounts[r]` rows from rank r, by rank. A count may be 0, and the tensors may have rows to spare. Any dtype.
   */
  allToAll(
    input: Tensor,
    inputCounts: readonly number[],
    output: Tensor,
    outputCounts: readonly number[],
  ): Work;
  /** Replaces `tensor` on every rank by that of rank `root`. Any dtype. */
  broadcast(tensor: Tensor, root: number): Work;
  /** Resolves when every rank has called it. */
  barrier(): Promise<void>;
  /** Sums a few host numbers over the ranks, each in f64 in the order of ranks: the same bits everywhere. Every rank gives as many. */
  sumNumbers(values: readonly number[]): Promise<readonly number[]>;
  /** Leaves the group. Ranks that still wait for this one are told. Later collectives throw ERR_LIBMOE_STATE. */
  dispose(): Promise<void>;
}

/** Where and how patiently a group is formed. */
export interface ProcessGroupOptions {
  /** The device whose tensors the group moves. Default 'cpu'; on CUDA usually `cuda:<localRank>`. */
  device?: DeviceName;
  /** Seconds that a rank may be late, at the start and in every collective, before all of them fail. Default 300. */
  timeout?: number;
}
