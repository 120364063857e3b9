import { readFileSync } from 'node:fs';
import { arch, cpus, platform, totalmem } from 'node:os';
import path from 'node:path';
import { Command } from 'commander';
import { binaryPath, native, packageRoot } from '../native/index.ts';
import { devices } from '../tensor/index.ts';
import { printJson } from './output.ts';

interface Inspection {
  version: string;
  node: string;
  platform: string;
  cpu: {
    model: string;
    cores: number;
    memoryBytes: number;
    instructionSet: string | null;
    threads: number | null;
  };
  devices: string[];
  cuda: { available: boolean; reason: string | null };
  nccl: { available: boolean; reason: string | null };
  mpi: { available: boolean; reason: string | null };
  binary: { path: string | null; error: string | null };
}

/** Everything that decides what this installation can do. Never throws: what is missing is said in the answer. */
export function inspect(): Inspection {
  const { version } = JSON.parse(readFileSync(path.join(packageRoot, 'package.json'), 'utf8')) as {
    version: string;
  };
  let binary: Inspection['binary'] = { path: null, error: null };
  let engine: { instructionSet: string; threads: number } | null = null;
  try {
    binary = { path: binaryPath(), error: null };
    engine = native().cpuInfo();
  } catch (error) {
    binary.error = error instanceof Error ? error.message : String(error);
  }
  const noCuda = 'this build has no CUDA code: it runs on the CPU';
  return {
    version,
    node: process.version,
    platform: `${platform()}-${arch()}`,
    cpu: {
      model: cpus()[0]?.model ?? 'unknown',
      cores: cpus().length,
      memoryBytes: totalmem(),
      instructionSet: engine?.instructionSet ?? null,
      threads: engine?.threads ?? null,
    },
    devices: engine ? devices() : [],
    cuda: { available: false, reason: noCuda },
    nccl: { available: false, reason: noCuda },
    mpi: { available: false, reason: 'this build has no collectives yet: one process trains alone' },
    binary,
  };
}

export function inspectCommand(): Command {
  return new Command('inspect')
    .description('show versions, processor features, devices and which optional libraries were found')
    .option('--json', 'print one JSON object')
    .addHelpText(
      'after',
      '\nEnvironment: LIBMOE_THREADS=N, LIBMOE_CPU=avx512|avx2|portable (forces an instruction set).',
    )
    .action((options: { json?: boolean }) => {
      const i = inspect();
      if (options.json) {
        printJson(i);
        return;
      }
      const rows: [string, string][] = [
        ['libmoe', i.version],
        ['Node', `${i.node} (${i.platform})`],
        [
          'processor',
          `${i.cpu.model}, ${i.cpu.cores} cores, ${(i.cpu.memoryBytes / 2 ** 30).toFixed(1)} GiB`,
        ],
        ['engine', i.cpu.instructionSet ? `${i.cpu.instructionSet}, ${i.cpu.threads} threads` : 'not loaded'],
        ['binary', i.binary.path ?? i.binary.error ?? ''],
        ['devices', i.devices.join(', ') || 'none'],
        ['CUDA', i.cuda.reason ?? 'available'],
        ['NCCL', i.nccl.reason ?? 'available'],
        ['MPI', i.mpi.reason ?? 'available'],
      ];
      for (const [name, value] of rows) console.log(`${name.padEnd(10)} ${value}`);
    });
}
