import { fail } from '../native/index.ts';

/** Who started this process, and which of how many it is. One process drives one device. */
export interface LaunchEnvironment {
  /** Number of this process, `0 … worldSize − 1`. */
  rank: number;
  worldSize: number;
  /** Number of this process on its machine: the device it takes. */
  localRank: number;
  /** Number of processes on this machine, when the launcher says so. */
  localWorldSize?: number;
  /** Whose variables were read; `none` for a process started by hand. */
  launcher: 'torchrun' | 'openmpi' | 'slurm' | 'pmi' | 'kubernetes' | 'none';
  /** Where rank 0 waits for the others, when the launcher says so. */
  masterAddress?: string;
  masterPort?: number;
}

type Variables = Readonly<Record<string, string | undefined>>;

/**
 * Reads rank and world size from the variables that launchers set. In this order: `RANK`/`WORLD_SIZE`/`LOCAL_RANK` (torchrun and
 * scripts; `JOB_COMPLETION_INDEX` of a Kubernetes indexed job stands in for `RANK`), Open MPI's `OMPI_COMM_WORLD_*`, Slurm's of a step
 * started by srun, and `PMI_*` (MPICH, Intel MPI). A batch script's own Slurm variables do not count: there is one such process, however
 * many tasks the job has; and an indexed job without `WORLD_SIZE` is taken for independent runs. Throws ERR_LIBMOE_CONFIG naming the variable.
 */
export function launchEnvironment(variables: Variables = process.env): LaunchEnvironment {
  const found = detect(variables);
  const { rank, worldSize, localRank } = found;
  if (rank >= worldSize) {
    fail(
      'ERR_LIBMOE_CONFIG',
      `rank ${rank} is not below the world size ${worldSize} (set by ${found.launcher})`,
    );
  }
  const localWorldSize =
    integer(variables, 'LOCAL_WORLD_SIZE') ??
    (found.launcher === 'openmpi' ? integer(variables, 'OMPI_COMM_WORLD_LOCAL_SIZE') : undefined);
  const masterAddress = variables.MASTER_ADDR || undefined;
  const masterPort = integer(variables, 'MASTER_PORT');
  if (masterPort !== undefined && (masterPort < 1 || masterPort > 65535)) {
    fail('ERR_LIBMOE_CONFIG', `MASTER_PORT must be between 1 and 65535, got ${masterPort}`);
  }
  return {
    rank,
    worldSize,
    localRank,
    launcher: found.launcher,
    ...(localWorldSize !== undefined && { localWorldSize }),
    ...(masterAddress !== undefined && { masterAddress }),
    ...(masterPort !== undefined && { masterPort }),
  };
}

function detect(
  variables: Variables,
): Pick<LaunchEnvironment, 'rank' | 'worldSize' | 'localRank' | 'launcher'> {
  const number = (name: string) => integer(variables, name);
  const worldSize = number('WORLD_SIZE');
  const explicit = number('RANK');
  const index = number('JOB_COMPLETION_INDEX');
  if (explicit !== undefined && worldSize === undefined) {
    fail('ERR_LIBMOE_CONFIG', `RANK is ${explicit} but WORLD_SIZE is not set: set both or neither`);
  }
  if (worldSize !== undefined) {
    if (worldSize < 1) fail('ERR_LIBMOE_CONFIG', `WORLD_SIZE must be at least 1, got ${worldSize}`);
    const rank = explicit ?? index ?? (worldSize === 1 ? 0 : undefined);
    if (rank === undefined) {
      fail(
        'ERR_LIBMOE_CONFIG',
        `WORLD_SIZE is ${worldSize} but neither RANK nor JOB_COMPLETION_INDEX is set`,
      );
    }
    const launcher = explicit === undefined && index !== undefined ? 'kubernetes' : 'torchrun';
    // A pod of an indexed job has its devices to itself.
    return {
      rank,
      worldSize,
      localRank: number('LOCAL_RANK') ?? (launcher === 'kubernetes' ? 0 : rank),
      launcher,
    };
  }
  const sets = [
    ['openmpi', 'OMPI_COMM_WORLD_RANK', ['OMPI_COMM_WORLD_SIZE'], 'OMPI_COMM_WORLD_LOCAL_RANK'],
    ['slurm', 'SLURM_PROCID', ['SLURM_STEP_NUM_TASKS', 'SLURM_NTASKS'], 'SLURM_LOCALID'],
    ['pmi', 'PMI_RANK', ['PMI_SIZE'], 'MPI_LOCALRANKID'],
  ] as const;
  for (const [launcher, rankName, sizeNames, localName] of sets) {
    const rank = number(rankName);
    // Only srun sets the step's number; without it this is the batch script itself.
    if (rank === undefined || (launcher === 'slurm' && number('SLURM_STEP_ID') === undefined)) continue;
    const size = sizeNames.map(number).find((value) => value !== undefined);
    if (size === undefined)
      fail('ERR_LIBMOE_CONFIG', `${rankName} is ${rank} but ${sizeNames.join(' or ')} is not set`);
    return { rank, worldSize: size, localRank: number(localName) ?? rank, launcher };
  }
  return { rank: 0, worldSize: 1, localRank: 0, launcher: 'none' };
}

function integer(variables: Variables, name: string): number | undefined {
  const text = variables[name];
  if (text === undefined || text === '') return undefined;
  if (!/^\d{1,9}$/.test(text))
    fail('ERR_LIBMOE_CONFIG', `${name} must be a non-negative integer, got "${text}"`);
  return Number(text);
}
