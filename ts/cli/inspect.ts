import { readFileSync } from 'node:fs';
import { arch, cpus, platform, totalmem } from 'node:os';
import path from 'node:path';
import { Command } from 'commander';
import { findMpi, findNccl } from '../distributed/engines.ts';
import { binaryPath, type NativeCuda, native, packageRoot } from '../native/index.ts';
import { devices } from '../tensor/index.ts';
import { printJson } from './output.ts';

interface Part {
  available: boolean;
  /** Why it is not available. */
  reason: string | null;
}

interface Found {
  /** The file; null where none was found. */
  path: string | null;
  version: string | null;
}

interface Inspection {
  version: string;
  node: string;
  platform: string;
  cpu: {
    model: string;
    cores: number;
    /** Of those that matter here; empty where the system does not list them. */
    features: string[];
    memoryBytes: number;
    instructionSet: string | null;
    threads: number | null;
  };
  devices: string[];
  cuda: Part & {
    /** Whether this binary has CUDA code at all. */
    compiled: boolean;
    /** Version of the NVIDIA driver on this machine; null where there is none. */
    driver: string | null;
    /** Newest CUDA that the driver supports, and the CUDA that this binary was made with; null: none. */
    driverCuda: string | null;
    runtime: string | null;
    devices: {
      name: string;
      computeCapability: string;
      multiprocessors: number;
      memoryBytes: number;
      /** Which tensor-core kernels run on it: LIBMOE_GPU_ARCH=80 chooses the older ones. */
      kernels: 'sm_80' | 'sm_90a';
      emulated: boolean;
    }[];
    /** Cards that are there but cannot be used; `devices` counts without them. */
    leftOut: { name: string; reason: string }[];
    /** Never used: dense products have kernels here too. */
    cublasLt: Part;
  };
  /** What connects ranks: NCCL on CUDA, MPI on the CPU. */
  nccl: Part & Found;
  mpi: Part & Found;
  binary: { path: string | null; error: string | null };
}

const knownFeatures = [
  'sse4_2',
  'avx',
  'fma',
  'f16c',
  'avx2',
  'avx512f',
  'avx512_bf16',
  'amx_tile',
  'amx_bf16',
];

/** The content of a file that only some systems have. */
function systemFile(file: string): string {
  try {
    return readFileSync(file, 'utf8');
  } catch {
    return '';
  }
}

function cpuFeatures(): string[] {
  const flags = /^flags\s*:(.*)$/m.exec(systemFile('/proc/cpuinfo'))?.[1]?.split(' ') ?? [];
  return knownFeatures.filter((feature) => flags.includes(feature));
}

const cudaVersion = (v: number) => (v > 0 ? `${Math.floor(v / 1000)}.${(v % 1000) / 10}` : null);

function cudaPart(status: NativeCuda | null): Inspection['cuda'] {
  const gpus = status?.devices ?? [];
  return {
    available: gpus.length > 0,
    reason:
      gpus.length > 0
        ? null
        : status === null
          ? 'the native engine is not loaded'
          : status.why || 'this build has no CUDA code: it runs on the CPU',
    compiled: status?.compiled ?? false,
    driver: systemFile('/sys/module/nvidia/version').trim() || null,
    driverCuda: cudaVersion(status?.driver ?? 0),
    runtime: cudaVersion(status?.runtime ?? 0),
    devices: gpus.map((d) => ({
      name: d.name,
      computeCapability: `${d.major}.${d.minor}`,
      multiprocessors: d.multiprocessors,
      memoryBytes: d.memoryBytes,
      kernels: d.major === 9 && d.minor === 0 && process.env.LIBMOE_GPU_ARCH !== '80' ? 'sm_90a' : 'sm_80',
      emulated: d.emulated,
    })),
    leftOut: (status?.leftOut ?? []).map(({ ordinal, name, why }) => ({
      name: `${name} (CUDA device ${ordinal})`,
      reason: why,
    })),
    cublasLt: {
      available: false,
      reason: 'not used: every product has a kernel of this library (docs/gpu.md)',
    },
  };
}

const notLoaded = { available: false, reason: 'the native binary does not load', path: null, version: null };

function looked(find: typeof findNccl): Inspection['nccl'] {
  try {
    const { available, reason, path: file, version } = find();
    return { available, reason, path: file, version };
  } catch (error) {
    return { ...notLoaded, reason: error instanceof Error ? error.message : String(error) };
  }
}

/** Everything that decides what this installation can do. Never throws: what is missing is said in the answer. */
export function inspect(): Inspection {
  const { version } = JSON.parse(readFileSync(path.join(packageRoot, 'package.json'), 'utf8')) as {
    version: string;
  };
  let binary: Inspection['binary'] = { path: null, error: null };
  let engine: { instructionSet: string; threads: number } | null = null;
  let cuda: NativeCuda | null = null;
  try {
    binary = { path: binaryPath(), error: null };
    engine = native().cpuInfo();
    cuda = native().cudaStatus();
  } catch (error) {
    binary.error = error instanceof Error ? error.message : String(error);
  }
  return {
    version,
    node: process.version,
    platform: `${platform()}-${arch()}`,
    cpu: {
      model: cpus()[0]?.model ?? 'unknown',
      cores: cpus().length,
      features: cpuFeatures(),
      memoryBytes: totalmem(),
      instructionSet: engine?.instructionSet ?? null,
      threads: engine?.threads ?? null,
    },
    devices: engine ? devices() : [],
    cuda: cudaPart(cuda),
    nccl: engine ? looked(findNccl) : notLoaded,
    mpi: engine ? looked(findMpi) : notLoaded,
    binary,
  };
}

export function inspectCommand(): Command {
  return new Command('inspect')
    .description('show versions, processor features, devices and which optional libraries were found')
    .option('--json', 'print one JSON object')
    .addHelpText(
      'after',
      '\nEnvironment: LIBMOE_THREADS=N, LIBMOE_CPU=avx512|avx2|portable (forces an instruction set), LIBMOE_GPU_ARCH=80\n(the A100 kernels on a Hopper card), LIBMOE_NCCL, LIBMOE_MPI (the libraries of several ranks).\n\nExample: npx libmoe inspect --json\nMore: docs/building.md, docs/distributed.md',
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
        ['features', i.cpu.features.join(' ') || 'unknown'],
        ['engine', i.cpu.instructionSet ? `${i.cpu.instructionSet}, ${i.cpu.threads} threads` : 'not loaded'],
        ['binary', i.binary.path ?? i.binary.error ?? ''],
        ['devices', i.devices.join(', ') || 'none'],
        ['driver', i.cuda.driver ? `NVIDIA ${i.cuda.driver}` : 'no NVIDIA driver on this machine'],
        ['CUDA', i.cuda.reason ?? `available: driver for ${i.cuda.driverCuda}, binary of ${i.cuda.runtime}`],
        ...i.cuda.devices.map((d, n): [string, string] => [
          `  cuda:${n}`,
          `${d.name}, ${d.computeCapability}, ${d.multiprocessors} multiprocessors, ${(d.memoryBytes / 2 ** 30).toFixed(1)} GiB, ${d.kernels} kernels`,
        ]),
        ...i.cuda.leftOut.map((d): [string, string] => ['  left out', `${d.name}: ${d.reason}`]),
        ['cuBLASLt', i.cuda.cublasLt.reason ?? ''],
        ['NCCL', i.nccl.reason ?? `${i.nccl.version} in ${i.nccl.path}`],
        ['MPI', i.mpi.reason ?? `${i.mpi.version} through ${i.mpi.path}`],
      ];
      for (const [name, value] of rows) console.log(`${name.padEnd(10)} ${value}`);
    });
}
