// `npm run bench`: times every bench/*.bench.ts with benchmark.js, alone or in turn with PyTorch, and writes a table and JSON.
import { execFileSync } from 'node:child_process';
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { cpus, totalmem } from 'node:os';
import path from 'node:path';
import { pathToFileURL } from 'node:url';
import Benchmark from 'benchmark';
import { native } from '../ts/native/index.ts';
import type { BenchCase } from './case.ts';
import { Peer } from './peer.ts';
import { residentGrowth } from './resident-memory.ts';
import { medianRatio, type Summary, summarise } from './statistics.ts';

export interface BenchOptions {
  /** Only cases whose name contains one of these. */
  filters: string[];
  rounds: number;
  threads: number;
  /** A Python with torch; absent: no comparison. */
  python?: string;
  /** Modes of the peer: 'default', 'medium' (oneDNN float32), 'tuned' (medium and an allocator that keeps its memory). */
  modes: string[];
  json?: string;
  log(line: string): void;
}

export interface BenchResult extends Summary {
  name: string;
  flops: number;
  bytes: number;
  gflops: number;
  gigabytes: number;
  /** By mode of the peer: its median and the paired ratio peer / ours (above 1: ours is faster). */
  peers: Record<string, { median: number; ratio: number; memory?: number } | { error: string }>;
  /** Growth of resident memory by one call, where the case asks for it. */
  memory?: number;
}

export interface BenchFile {
  date: string;
  commit: string;
  machine: {
    cpu: string;
    cores: number;
    memoryBytes: number;
    node: string;
    instructionSet: string;
    threads: number;
  };
  results: BenchResult[];
}

async function cases(filters: readonly string[]): Promise<BenchCase[]> {
  const all: BenchCase[] = [];
  for (const file of readdirSync(import.meta.dirname)
    .filter((name) => name.endsWith('.bench.ts'))
    .sort()) {
    const module = (await import(pathToFileURL(path.join(import.meta.dirname, file)).href)) as {
      cases: readonly BenchCase[];
    };
    all.push(...module.cases);
  }
  return all.filter((c) => filters.length === 0 || filters.some((f) => c.name.includes(f)));
}

/** One sample of benchmark.js: seconds per call, averaged over as many calls as fill about 0.1 s. */
function sample(run: () => void): { seconds: number; calls: number } {
  const bench = new Benchmark('case', run, { minSamples: 1, maxTime: 0.05, minTime: 0.1, initCount: 1 });
  bench.run({ async: false });
  if (bench.error) throw bench.error;
  const seconds = summarise(bench.stats.sample).median;
  return { seconds, calls: Math.max(1, Math.round(0.1 / seconds)) };
}

async function measure(c: BenchCase, options: BenchOptions): Promise<BenchResult> {
  const ours: number[] = [];
  const theirs: Record<string, number[]> = {};
  const errors: Record<string, string> = {};
  const peers = new Map<string, Peer>();
  const theirMemory: Record<string, number> = {};
  let memory: number | undefined;
  const work = c.setup();
  try {
    work.run(); // pools and caches fill
    if (options.python && c.peer) {
      for (const mode of options.modes) {
        const peer = new Peer(options.python, c.peer.script, mode, options.threads);
        try {
          await peer.setup(c.peer.request);
          await peer.time(1);
          peers.set(mode, peer);
          theirs[mode] = [];
        } catch (error) {
          errors[mode] = error instanceof Error ? error.message : String(error);
          peer.end();
        }
      }
    }
    for (let round = 0; round < options.rounds; round += 1) {
      const { seconds, calls } = sample(() => work.run());
      ours.push(seconds);
      for (const [mode, peer] of peers) theirs[mode]!.push(await peer.time(calls));
    }
    if (c.memory) {
      memory = residentGrowth(() => work.run());
      for (const [mode, peer] of peers) theirMemory[mode] = await peer.memory();
    }
  } finally {
    work.dispose();
    for (const peer of peers.values()) peer.end();
  }
  const summary = summarise(ours);
  const compared: BenchResult['peers'] = {};
  for (const [mode, seconds] of Object.entries(theirs)) {
    compared[mode] = {
      median: summarise(seconds).median,
      ratio: medianRatio(seconds, ours),
      ...(theirMemory[mode] !== undefined && { memory: theirMemory[mode] }),
    };
  }
  for (const [mode, error] of Object.entries(errors)) compared[mode] = { error };
  return {
    name: c.name,
    flops: c.flops,
    bytes: c.bytes,
    ...summary,
    gflops: c.flops / summary.median / 1e9,
    gigabytes: c.bytes / summary.median / 1e9,
    peers: compared,
    ...(memory !== undefined && { memory }),
  };
}

const line = (cells: readonly string[], widths: readonly number[]) =>
  cells.map((cell, i) => (i === 0 ? cell.padEnd(widths[i]!) : cell.padStart(widths[i]!))).join('  ');
const megabytes = (bytes: number) => `${(bytes / 1e6).toFixed(1)} MB`;
const milliseconds = (s: number) => (s * 1e3 >= 100 ? (s * 1e3).toFixed(1) : (s * 1e3).toPrecision(3));

export async function bench(options: BenchOptions): Promise<BenchFile> {
  native().setThreads(options.threads);
  const list = await cases(options.filters);
  const widths = [
    Math.max(20, ...list.map((c) => c.name.length)),
    9,
    15,
    9,
    8,
    ...options.modes.map(() => 16),
  ];
  const modes = options.python ? options.modes : [];
  options.log(
    line(['case', 'ms', 'p10–p90', 'GFLOP/s', 'GB/s', ...modes.map((m) => `vs ${m} torch`)], widths),
  );
  const results: BenchResult[] = [];
  for (const c of list) {
    const r = await measure(c, options);
    results.push(r);
    const ratios = modes.map((mode) => {
      const peer = r.peers[mode];
      return peer
        ? 'error' in peer
          ? 'refused'
          : `${peer.ratio.toFixed(2)}× (${milliseconds(peer.median)})`
        : '–';
    });
    options.log(
      line(
        [
          r.name,
          milliseconds(r.median),
          `${milliseconds(r.p10)}–${milliseconds(r.p90)}`,
          r.gflops.toFixed(1),
          r.gigabytes.toFixed(1),
          ...ratios,
        ],
        widths,
      ),
    );
    for (const [mode, peer] of Object.entries(r.peers)) {
      if ('error' in peer) options.log(`    ${mode}: ${peer.error}`);
      else if (peer.memory !== undefined && r.memory !== undefined) {
        options.log(
          `    resident memory of one call: ours ${megabytes(r.memory)}, ${mode} torch ${megabytes(peer.memory)} (${(r.memory / peer.memory).toFixed(2)}×)`,
        );
      }
    }
  }
  let commit = 'unknown';
  try {
    commit = execFileSync('git', ['describe', '--always', '--dirty'], {
      cwd: import.meta.dirname,
      encoding: 'utf8',
    }).trim();
  } catch {
    // not a git checkout
  }
  const info = native().cpuInfo();
  const file: BenchFile = {
    date: new Date().toISOString(),
    commit,
    machine: {
      cpu: cpus()[0]?.model ?? 'unknown',
      cores: cpus().length,
      memoryBytes: totalmem(),
      node: process.version,
      instructionSet: info.instructionSet,
      threads: info.threads,
    },
    results,
  };
  if (options.json) {
    mkdirSync(path.dirname(path.resolve(options.json)), { recursive: true });
    writeFileSync(options.json, `${JSON.stringify(file, null, 2)}\n`);
    options.log(`written: ${options.json}`);
  }
  return file;
}

/** Cases of two result files side by side; a ratio above 1 means that B is faster. */
export function compare(
  fileA: string,
  fileB: string,
): { name: string; a: number; b: number; ratio: number }[] {
  const [a, b] = [fileA, fileB].map((f) => JSON.parse(readFileSync(f, 'utf8')) as BenchFile);
  const inB = new Map(b!.results.map((r) => [r.name, r]));
  return a!.results.flatMap((r) => {
    const other = inB.get(r.name);
    return other ? [{ name: r.name, a: r.median, b: other.median, ratio: r.median / other.median }] : [];
  });
}
