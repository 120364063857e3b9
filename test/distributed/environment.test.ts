import { describe, expect, it } from 'vitest';
import { launchEnvironment } from '../../ts/distributed/environment.ts';

describe('launchEnvironment', () => {
  it.each([
    ['nothing', {}, { rank: 0, worldSize: 1, localRank: 0, launcher: 'none' }],
    [
      'torchrun',
      { RANK: '5', WORLD_SIZE: '8', LOCAL_RANK: '1', MASTER_ADDR: 'node0', MASTER_PORT: '29500' },
      {
        rank: 5,
        worldSize: 8,
        localRank: 1,
        launcher: 'torchrun',
        masterAddress: 'node0',
        masterPort: 29500,
      },
    ],
    ['one rank of one', { WORLD_SIZE: '1' }, { rank: 0, worldSize: 1, localRank: 0, launcher: 'torchrun' }],
    [
      'mpirun',
      { OMPI_COMM_WORLD_RANK: '3', OMPI_COMM_WORLD_SIZE: '4', OMPI_COMM_WORLD_LOCAL_RANK: '1' },
      { rank: 3, worldSize: 4, localRank: 1, launcher: 'openmpi' },
    ],
    [
      'srun',
      {
        SLURM_STEP_ID: '0',
        SLURM_PROCID: '2',
        SLURM_NTASKS: '16',
        SLURM_STEP_NUM_TASKS: '4',
        SLURM_LOCALID: '0',
      },
      { rank: 2, worldSize: 4, localRank: 0, launcher: 'slurm' },
    ],
    [
      'a Slurm batch script itself',
      { SLURM_PROCID: '0', SLURM_NTASKS: '16', SLURM_LOCALID: '0' },
      { rank: 0, worldSize: 1, localRank: 0, launcher: 'none' },
    ],
    ['MPICH', { PMI_RANK: '1', PMI_SIZE: '2' }, { rank: 1, worldSize: 2, localRank: 1, launcher: 'pmi' }],
    [
      'a Kubernetes indexed job',
      { JOB_COMPLETION_INDEX: '2', WORLD_SIZE: '3', MASTER_ADDR: 'train-0.train' },
      { rank: 2, worldSize: 3, localRank: 0, launcher: 'kubernetes', masterAddress: 'train-0.train' },
    ],
    [
      'independent runs of an indexed job',
      { JOB_COMPLETION_INDEX: '2' },
      { rank: 0, worldSize: 1, localRank: 0, launcher: 'none' },
    ],
    [
      'explicit variables inside mpirun',
      { RANK: '0', WORLD_SIZE: '2', OMPI_COMM_WORLD_RANK: '1', OMPI_COMM_WORLD_SIZE: '4' },
      { rank: 0, worldSize: 2, localRank: 0, launcher: 'torchrun' },
    ],
  ])('%s', (_, variables, expected) => {
    expect(launchEnvironment(variables)).toEqual(expected);
  });

  it.each([
    ['a rank without a size', { RANK: '1' }, 'RANK is 1 but WORLD_SIZE is not set'],
    ['a size without a rank', { WORLD_SIZE: '4' }, 'neither RANK nor JOB_COMPLETION_INDEX'],
    ['a rank beyond the size', { RANK: '4', WORLD_SIZE: '4' }, 'rank 4 is not below the world size 4'],
    ['words', { RANK: 'one', WORLD_SIZE: '4' }, 'RANK must be a non-negative integer, got "one"'],
    ['negative numbers', { RANK: '-1', WORLD_SIZE: '4' }, 'RANK must be'],
    ['no ranks at all', { WORLD_SIZE: '0' }, 'WORLD_SIZE must be at least 1'],
    ['half of MPI', { OMPI_COMM_WORLD_RANK: '1' }, 'OMPI_COMM_WORLD_SIZE is not set'],
    ['a bad port', { RANK: '0', WORLD_SIZE: '1', MASTER_PORT: '70000' }, 'MASTER_PORT must be between'],
  ])('refuses %s', (_, variables, message) => {
    expect(() => launchEnvironment(variables)).toThrow(message);
    expect(() => launchEnvironment(variables)).toThrow('ERR_LIBMOE_CONFIG');
  });
});
