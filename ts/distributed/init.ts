import { fail } from '../native/index.ts';
import { aloneGroup } from './alone.ts';
import { launchEnvironment } from './environment.ts';
import { formGroup } from './form.ts';
import type { ProcessGroup, ProcessGroupOptions } from './process-group.ts';

/**
 * Forms the group of all processes that the launcher started (`libmoe launch`, torchrun, mpirun, srun, …: ranks come from the environment,
 * see {@link launchEnvironment}). One process alone gets a group whose collectives do nothing.
 *
 * @throws ERR_LIBMOE_CONFIG for an environment that does not fit, ERR_LIBMOE_COLLECTIVE when the engine is missing or too old, when ranks do
 *   not arrive in time, or when the engine's world is not of the size that the environment says
 */
export async function initProcessGroup(options: ProcessGroupOptions = {}): Promise<ProcessGroup> {
  const { device = 'cpu', timeout = 300 } = options;
  if (!(timeout > 0))
    fail('ERR_LIBMOE_ARGUMENT', `timeout must be a number of seconds above 0, got ${timeout}`);
  const launch = launchEnvironment();
  if (launch.worldSize === 1) return aloneGroup(device, launch.localRank);
  return formGroup({ engine: device === 'cpu' ? 'mpi' : 'nccl', device, launch, timeout });
}
