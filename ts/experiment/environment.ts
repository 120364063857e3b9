import { type ExecFileSyncOptionsWithStringEncoding, execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { arch, cpus, hostname, platform, release, totalmem } from 'node:os';
import path from 'node:path';
import { native, packageRoot } from '../native/index.ts';

export interface Environment {
  libmoe: string;
  commit: string | null;
  node: string;
  platform: string;
  host: string;
  cpu: string;
  cores: number;
  memoryBytes: number;
  instructionSet: string;
  threads: number;
  seed: number;
  started: string;
  command: string[];
}

/** What a later reader needs to judge or repeat a run: versions, machine, seed, command line. */
export function environment(seed: number, command: readonly string[] = []): Environment {
  const { version } = JSON.parse(readFileSync(path.join(packageRoot, 'package.json'), 'utf8')) as {
    version: string;
  };
  const { instructionSet, threads } = native().cpuInfo();
  return {
    libmoe: version,
    commit: commitOf(packageRoot),
    node: process.version,
    platform: `${platform()} ${release()} ${arch()}`,
    host: hostname(),
    cpu: cpus()[0]?.model ?? 'unknown',
    cores: cpus().length,
    memoryBytes: totalmem(),
    instructionSet,
    threads,
    seed,
    started: new Date().toISOString(),
    command: [...command],
  };
}

/** The checkout's commit, `-dirty` when files differ from it; null outside a checkout. */
export function commitOf(folder: string): string | null {
  try {
    const options: ExecFileSyncOptionsWithStringEncoding = {
      cwd: folder,
      encoding: 'utf8',
      stdio: ['ignore', 'pipe', 'ignore'],
    };
    const top = execFileSync('git', ['rev-parse', '--show-toplevel'], options).trim();
    if (path.resolve(top) !== path.resolve(folder)) return null;
    return execFileSync('git', ['describe', '--always', '--dirty', '--abbrev=12'], options).trim();
  } catch {
    return null;
  }
}
