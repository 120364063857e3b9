import { type LaunchEnvironment, launchEnvironment } from '../../distributed/index.ts';
import { fail } from '../../native/index.ts';
import { scale } from '../../tensor/elementwise.ts';
import { keep, noGrad, type Tensor } from '../../tensor/index.ts';

/** How the ranks of a run work together. The loop and the routers know no more of other processes than this. */
export interface Strategy {
  readonly name: string;
  readonly rank: number;
  readonly worldSize: number;
  /** Before the first step: makes parameters and buffers the same on all ranks, those of rank 0. */
  share(tensors: ReadonlyMap<string, Tensor>): void | Promise<void>;
  /**
   * Before the last backward pass of a step: from now on gradients may leave for the other ranks as soon as each is complete. The result
   * ends that; call it after the pass, with false when the pass failed.
   */
  watchGradients(parameters: ReadonlyMap<string, Tensor>): (completed: boolean) => void;
  /** After it: when this is done, every gradient is the sum over all ranks. */
  reduceGradients(parameters: ReadonlyMap<string, Tensor>): void | Promise<void>;
  /** The sum of each number over all ranks: token counts, expert counts, losses. */
  reduceCounts(counts: readonly number[]): readonly number[] | Promise<readonly number[]>;
  /** The sum of each tensor over all ranks: what losses of the global batch are made of. The caller owns the results. */
  reduceStatistics(tensors: readonly Tensor[]): Promise<readonly Tensor[]>;
  /** Does the work on rank 0, while the others wait: evaluation, logs, checkpoints. Throws on every rank when it failed. */
  onFirstRank(work: () => Promise<void>): Promise<void>;
}

/** One process that has everything. */
export function single(): Strategy {
  return {
    name: 'single',
    rank: 0,
    worldSize: 1,
    share() {},
    watchGradients: () => () => {},
    reduceGradients() {},
    reduceCounts: (counts) => counts,
    reduceStatistics: (tensors) => Promise.resolve(tensors.map((t) => keep(noGrad(() => scale(t, 1))))),
    onFirstRank: (work) => work(),
  };
}

/** The strategy of a process that was given none. Throws ERR_LIBMOE_UNSUPPORTED when a launcher started several. */
export function chooseStrategy(environment: LaunchEnvironment = launchEnvironment()): Strategy {
  const { rank, worldSize, launcher } = environment;
  if (worldSize > 1) {
    fail(
      'ERR_LIBMOE_UNSUPPORTED',
      `this is rank ${rank} of ${worldSize} from ${launcher}, and without a strategy each rank would train alone: ` +
        `in a recipe set strategy: { data: ${worldSize} }, in a script give train() strategy: dataParallel(await initProcessGroup()), ` +
        "or start one process without the launcher's variables",
    );
  }
  return single();
}
