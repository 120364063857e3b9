import { type LaunchEnvironment, launchEnvironment } from '../../distributed/index.ts';
import { fail } from '../../native/index.ts';
import type { Tensor } from '../../tensor/index.ts';

/** How the ranks of a run work together. The loop and the routers know no more of other processes than this. */
export interface Strategy {
  readonly name: string;
  readonly rank: number;
  readonly worldSize: number;
  /** Sums the gradients of these parameters over all ranks, in place. */
  reduceGradients(parameters: ReadonlyMap<string, Tensor>): void | Promise<void>;
  /** The sum of each number over all ranks: token counts, expert counts, losses. */
  reduceCounts(counts: readonly number[]): readonly number[] | Promise<readonly number[]>;
}

/** One process that has everything. */
export function single(): Strategy {
  return {
    name: 'single',
    rank: 0,
    worldSize: 1,
    reduceGradients() {},
    reduceCounts: (counts) => counts,
  };
}

/** The strategy for the ranks that a launcher started. Throws ERR_LIBMOE_UNSUPPORTED for more than one. */
export function chooseStrategy(environment: LaunchEnvironment = launchEnvironment()): Strategy {
  if (environment.worldSize > 1) {
    fail(
      'ERR_LIBMOE_UNSUPPORTED',
      `training on one process is supported, got rank ${environment.rank} of ${environment.worldSize} from ${environment.launcher}. ` +
        "Each would train alone: start one process, or unset the launcher's variables",
    );
  }
  return single();
}
