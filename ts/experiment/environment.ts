import { type ExecFileSyncOptionsWithStringEncoding, execFileSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { arch, cpus, hostname, platform, release, totalmem } from 'node:os';
import path from 'node:path';
import { native, packageRoot } from '../native/index.ts';
import { type JsonValue, readJsonObject, writeFileAtomically } from '../storage/index.ts';

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
  device: string;
  seed: number;
  started: string;
  command: string[];
}

/** What a later reader needs to judge or repeat a run: versions, machine, seed, command line. */
export function environment(
  { seed, device }: { seed: number; device: string },
  command: readonly string[] = [],
): Environment {
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
    device,
    seed,
    started: new Date().toISOString(),
    command: [...command],
  };
}

/**
 * Writes `<out>/environment.json`. When the run goes on from `step`, what it says of the beginning stays, and the new environment joins the list
 * `resumes`.
 */
export function recordEnvironment(out: string, now: Environment, step: number): void {
  const file = path.join(out, 'environment.json');
  const first = step > 0 && existsSync(file) ? readJsonObject(file) : undefined;
  const resumes = Array.isArray(first?.resumes) ? first.resumes : [];
  const all = first ? { ...first, resumes: [...resumes, { step, ...now } as JsonValue] } : now;
  writeFileAtomically(file, `${JSON.stringify(all, null, 2)}\n`);
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
