// Starts the ranks of a test as processes of their own, and knows what their collectives should give.
import { execFileSync, spawn, spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { launchRanks } from '../../ts/distributed/launch.ts';

/** What a rank said, and how it ended. */
export interface Said {
  rank: number;
  pid?: number;
  result?: unknown;
  worldSize?: number;
  backend?: string;
  error?: string;
  errorCode?: string | null;
  seconds?: number;
}
export interface Ended {
  code: number | null;
  signal: string | null;
  stdout: string;
  stderr: string;
}

const script = path.join(import.meta.dirname, 'rank.mjs');

export async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as { port: number };
  await new Promise((resolve) => server.close(resolve));
  return port;
}

/** A clean environment: what the test machine's own launcher may have set is gone. */
function environment(extra: Record<string, string | undefined>): Record<string, string | undefined> {
  const own = Object.entries(process.env).filter(
    (pair): pair is [string, string] =>
      pair[1] !== undefined &&
      !/^(OMPI_|PMIX_|PMI_|SLURM_|RANK$|WORLD_SIZE$|LOCAL_|MASTER_|VITEST)/.test(pair[0]),
  );
  return { ...Object.fromEntries(own), LIBMOE_THREADS: '1', ...extra };
}

function start(command: string, args: readonly string[], env: Record<string, string | undefined>) {
  const child = spawn(command, args, { env: environment(env), stdio: ['ignore', 'pipe', 'pipe'] });
  let stdout = '';
  let stderr = '';
  child.stdout.on('data', (text) => {
    stdout += text;
  });
  child.stderr.on('data', (text) => {
    stderr += text;
  });
  const ended = new Promise<Ended>((resolve, reject) => {
    child.on('error', reject);
    child.on('close', (code, signal) => resolve({ code, signal, stdout, stderr }));
  });
  return { child, ended };
}

/** A folder for what the processes say, each in a file of its own, and a way to read it by rank. */
function listening(): { folder: string; said(): Said[] } {
  const folder = mkdtempSync(path.join(tmpdir(), 'libmoe-ranks-'));
  const said = () => {
    const all = readdirSync(folder).map(
      (name) => JSON.parse(readFileSync(path.join(folder, name), 'utf8')) as Said,
    );
    rmSync(folder, { recursive: true });
    return all.sort((a, b) => a.rank - b.rank);
  };
  return { folder, said };
}

/**
 * Ranks started one by one, as torchrun does, with the stand-in for NCCL, or with what `env` says of LIBMOE_NCCL. `env` may differ by rank. Ranks that are
 * stopped for good are ended.
 */
export async function ncclRanks(
  size: number,
  scenario: string,
  env: (rank: number) => Record<string, string | undefined> = () => ({}),
  started: readonly number[] = Array.from({ length: size }, (_, rank) => rank),
): Promise<(Said & Ended)[]> {
  const port = String(await freePort());
  const own = started.every((rank) => 'LIBMOE_NCCL' in env(rank));
  const library = own ? undefined : standInNccl();
  const { folder, said } = listening();
  const ranks = started.map((rank) =>
    start(process.execPath, [script, scenario], {
      RANK: String(rank),
      WORLD_SIZE: String(size),
      LOCAL_RANK: String(rank),
      MASTER_ADDR: '127.0.0.1',
      MASTER_PORT: port,
      LIBMOE_NCCL: library,
      TEST_ENGINE: 'nccl',
      TEST_OUT: folder,
      ...env(rank),
    }),
  );
  // A process that has stopped itself would never end: one that is alone for long is taken for that.
  let alone = 0;
  const patrol = setInterval(() => {
    const running = ranks.filter(({ child }) => child.exitCode === null && child.signalCode === null);
    alone = running.length === 1 && ranks.length > 1 ? alone + 1 : 0;
    if (alone > 8) running[0]!.child.kill('SIGKILL');
  }, 1000);
  try {
    const ended = await Promise.all(ranks.map((r) => r.ended));
    const all = said();
    return ended.map((e, i) => ({
      ...e,
      rank: started[i]!,
      ...all.find(({ pid }) => pid === ranks[i]!.child.pid),
    }));
  } finally {
    clearInterval(patrol);
  }
}

export const hasMpirun = (): boolean => spawnSync('mpirun', ['--version']).status === 0;

/** Ranks started by Open MPI's mpirun. */
export async function mpiRanks(
  size: number,
  scenario: string,
  env: Record<string, string> = {},
): Promise<{ said: Said[]; code: number; stderr: string }> {
  const { folder, said } = listening();
  let stderr = '';
  const { ended } = await launchRanks({
    ranks: size,
    device: 'cpu',
    command: [process.execPath, script, scenario],
    environment: { LIBMOE_THREADS: '1', TEST_ENGINE: 'mpi', TEST_OUT: folder, ...env },
    onLine(_, stream, line) {
      if (stream === 'stderr') stderr += `${line}\n`;
    },
  });
  const { code } = await ended;
  return { said: said(), code, stderr };
}

/** A single process as one rank, without mpirun. */
export async function lonelyRank(env: Record<string, string>): Promise<Said & Ended> {
  const { folder, said } = listening();
  const end = await start(process.execPath, [script, 'operations'], { ...env, TEST_OUT: folder }).ended;
  return { ...end, ...said()[0]! };
}

let standIn: string | undefined;

/** Compiles the stand-in once for each test file, from ccache where there is one. */
export function standInNccl(): string {
  if (standIn) return standIn;
  const library = path.join(mkdtempSync(path.join(tmpdir(), 'libmoe-nccl-')), 'libstandin.so');
  const source = path.join(import.meta.dirname, 'stand-in-nccl.cpp');
  const object = `${library}.o`;
  const flags = ['-std=c++20', '-O1', '-Wall', '-Wextra', '-Werror', '-fPIC', '-c', source, '-o', object];
  const cached = spawnSync('ccache', ['g++', ...flags]).status === 0;
  if (!cached) execFileSync('g++', flags);
  execFileSync('g++', ['-shared', object, '-o', library]);
  standIn = library;
  return library;
}

/** The same in rank.mjs. */
const value = (rank: number, i: number): number =>
  (((i * 2654435761 + rank * 97003 * 40503) % 4294967296) / 4294967296) * 2 - 1;

const floats = ['f32', 'f64', 'bf16'];

function bf16(x: number): number {
  const bits = new Uint32Array(Float32Array.of(x).buffer)[0]!;
  const rounded = ((bits + 0x7fff + ((bits >>> 16) & 1)) >>> 16) << 16;
  return new Float32Array(Uint32Array.of(rounded).buffer)[0]!;
}

/** Rounds to the type that sums run in, and to the type of the elements. */
const inner: Record<string, (x: number) => number> = {
  f32: Math.fround,
  bf16: Math.fround,
  f64: (x) => x,
  i32: (x) => x | 0,
  i64: (x) => x,
  u8: (x) => x,
  bool: (x) => x,
};
const stored = (dtype: string, x: number): number => (dtype === 'bf16' ? bf16(x) : inner[dtype]!(x));

/** Element i of what rank `rank` has. */
export function element(dtype: string, rank: number, i: number): number {
  const scale = dtype === 'u8' ? 100 : dtype === 'bool' ? 1.9 : 1e9;
  return stored(
    dtype,
    floats.includes(dtype) ? value(rank, i) : Math.floor(Math.abs(value(rank, i)) * scale),
  );
}

/** Element i of all ranks together, in the order of ranks. */
export function combined(dtype: string, op: string, ranks: number, i: number): number {
  let result = element(dtype, 0, i);
  for (let rank = 1; rank < ranks; rank += 1) {
    const x = element(dtype, rank, i);
    result = op === 'max' ? Math.max(result, x) : inner[dtype]!(result + x);
  }
  return stored(dtype, result);
}

function bytesOf(dtype: string, numbers: readonly number[]): Uint8Array {
  const array = (): { buffer: ArrayBufferLike } => {
    if (dtype === 'f32') return Float32Array.from(numbers);
    if (dtype === 'f64') return Float64Array.from(numbers);
    if (dtype === 'i32') return Int32Array.from(numbers);
    if (dtype === 'i64') return BigInt64Array.from(numbers, (n) => BigInt(n));
    if (dtype === 'bf16')
      return Uint16Array.from(new Uint32Array(Float32Array.from(numbers).buffer), (b) => b >>> 16);
    return Uint8Array.from(numbers);
  };
  return new Uint8Array(array().buffer);
}

export const digest = (dtype: string, numbers: readonly number[]): string =>
  createHash('sha256').update(bytesOf(dtype, numbers)).digest('hex');
