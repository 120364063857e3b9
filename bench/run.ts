// `npm run bench`: times every bench/*.bench.ts with benchmark.js, alone or in turn with PyTorch, and writes a table and JSON.
import { execFileSync } from 'node:child_process';
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { cpus, totalmem } from 'node:os';
import path from 'node:path';
import { pathToFileURL } from 'node:url';
import Benchmark from 'benchmark';
import { launchEnvironment } from '../ts/distributed/index.ts';
import { fail, native } from '../ts/native/index.ts';
import type { DeviceName } from '../ts/tensor/index.ts';
import { disagreement } from './agreement.ts';
import type { BenchCase, Work } from './case.ts';
import { benchRanks } from './collective-ranks.ts';
import { type DeviceFacts, deviceSample, useDevice } from './device-time.ts';
import { Peer, type PeerFacts } from './peer.ts';
import { residentGrowth } from './resident-memory.ts';
import { medianRatio, type Summary, summarise } from './statistics.ts';
import { watchStolenTime } from './stolen-time.ts';

export interface BenchOptions {
  /** Only cases whose name contains one of these. */
  filters: string[];
  rounds: number;
  threads: number;
  /** Where inputs lie and operations run; default the CPU. A GPU's times are device time between events. */
  device?: DeviceName;
  /** A Python with torch; absent: no comparison. */
  python?: string;
  /** Modes of the peer. On a GPU the ways of peers/moe_layer.py: 'sort_loop', 'grouped_mm', 'triton', 'dense'. On the CPU 'default', 'medium' (oneDNN float32), 'tuned' (medium and an allocator that keeps its memory). */
  modes: string[];
  json?: string;
  log(line: string): void;
}

export interface PeerResult extends Summary, PeerFacts {
  /** Median over rounds of peer / ours: above 1, ours is faster. */
  ratio: number;
  /** Whether both sides were seen to compute the same. */
  compared: boolean;
  memory?: number;
}

export interface BenchResult extends Summary {
  name: string;
  flops: number;
  bytes: number;
  gflops: number;
  gigabytes: number;
  /** Share of the wanted processor time that the host of a virtual machine took, in the worst round that counts. */
  stolen: number;
  /** Of collectives: how many ranks, and GB/s over the link of each. */
  ranks?: number;
  busGigabytes?: number;
  /** By mode of the peer. */
  peers: Record<string, PeerResult | { error: string }>;
  /** Growth of resident memory by one call, where the case asks for it. */
  memory?: number;
  /** Median over rounds of ours / the baseline's time, and of the operations: above 1, the case takes longer, or computes more. */
  baseline?: Summary & {
    name: string;
    ratio: number;
    flopsRatio: number;
    /** The same ratio of processor time, which others on the machine disturb less. */
    processorRatio: number;
  };
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
    device?: DeviceFacts;
  };
  results: BenchResult[];
}

/** The cases of all families whose names contain one of the filters; all without filters. */
export async function cases(
  filters: readonly string[] = [],
  device: DeviceName = 'cpu',
): Promise<BenchCase[]> {
  const all: BenchCase[] = [];
  for (const file of readdirSync(import.meta.dirname)
    .filter((name) => name.endsWith('.bench.ts'))
    .sort()) {
    const module = (await import(pathToFileURL(path.join(import.meta.dirname, file)).href)) as {
      cases: readonly BenchCase[];
    };
    all.push(...module.cases);
  }
  const here = all.filter((c) => device !== 'cpu' || !c.gpuOnly);
  return here.filter((c) => filters.length === 0 || filters.some((f) => c.name.includes(f)));
}

/** One sample of benchmark.js: seconds per call, averaged over as many calls as fill about 0.1 s; of a GPU, see {@link deviceSample}. */
function sample(run: () => void, device: DeviceName = 'cpu'): { seconds: number; calls: number } {
  if (device !== 'cpu') return deviceSample(run, device);
  const bench = new Benchmark('case', run, { minSamples: 1, maxTime: 0.05, minTime: 0.1, initCount: 1 });
  bench.run({ async: false });
  if (bench.error) throw bench.error;
  const seconds = summarise(bench.stats.sample).median;
  return { seconds, calls: Math.max(1, Math.round(0.1 / seconds)) };
}

/** Microseconds of processor time, all threads together, of one call. */
function processorTime(run: () => void): number {
  const before = process.cpuUsage();
  run();
  const { user, system } = process.cpuUsage(before);
  return user + system;
}

/** A peer that is ready and was seen to compute what we compute. */
interface Opponent {
  peer: Peer;
  facts: PeerFacts;
  compared: boolean;
}

/** One sample of everybody, one after the other. */
interface Round {
  ours: number;
  baseline?: number;
  processorRatio?: number;
  theirs: Map<string, number>;
  /** See {@link BenchResult.stolen}. */
  stolen: number;
}

const quiet = 0.05;

/** As many rounds as asked for: the first ones that the host did not disturb; of at most three times as many, else the least disturbed. */
async function undisturbed(count: number, round: () => Promise<Round>): Promise<Round[]> {
  const all: Round[] = [];
  while (all.filter(({ stolen }) => stolen <= quiet).length < count && all.length < 3 * count)
    all.push(await round());
  return all.sort((a, b) => Math.max(a.stolen, quiet) - Math.max(b.stolen, quiet)).slice(0, count);
}

async function opponent(c: BenchCase, work: Work, mode: string, options: BenchOptions): Promise<Opponent> {
  const peer = new Peer(options.python!, c.peer!.script, mode, options.threads, options.device);
  try {
    const facts = await peer.setup(c.peer!.request);
    const theirs = await peer.results();
    const ours = theirs && work.results?.();
    if (ours) {
      const wrong = disagreement(ours, theirs, c.tolerance ?? 0);
      if (wrong) throw new Disagreement(wrong);
    }
    await peer.time(1);
    return { peer, facts, compared: ours !== undefined };
  } catch (error) {
    peer.end();
    throw error;
  }
}

class Disagreement extends Error {}

async function measure(
  c: BenchCase,
  options: BenchOptions,
): Promise<{ result: BenchResult; disagrees: boolean }> {
  let rounds: Round[] = [];
  const opponents = new Map<string, Opponent>();
  const peers: BenchResult['peers'] = {};
  let disagrees = false;
  let memory: number | undefined;
  const theirMemory = new Map<string, number>();
  const work = c.setup();
  const baseline = c.baseline?.setup();
  try {
    work.run(); // pools and caches fill
    baseline?.run();
    for (const mode of options.python && c.peer ? options.modes : []) {
      try {
        opponents.set(mode, await opponent(c, work, mode, options));
      } catch (error) {
        disagrees ||= error instanceof Disagreement;
        peers[mode] = { error: error instanceof Error ? error.message : String(error) };
      }
    }
    rounds = await undisturbed(options.rounds, async () => {
      const stolen = watchStolenTime();
      const { seconds, calls } = sample(() => work.run(), options.device);
      const theirs = new Map<string, number>();
      for (const [mode, { peer }] of opponents) theirs.set(mode, await peer.time(calls));
      const alone = { ours: seconds, theirs };
      if (!baseline) return { ...alone, stolen: stolen() };
      const other = sample(() => baseline.run(), options.device).seconds;
      const processorRatio = processorTime(() => work.run()) / processorTime(() => baseline.run());
      return { ...alone, stolen: stolen(), baseline: other, processorRatio };
    });
    if (c.memory && (options.device ?? 'cpu') === 'cpu') {
      memory = residentGrowth(() => work.run());
      for (const [mode, { peer }] of opponents) theirMemory.set(mode, await peer.memory());
    }
  } finally {
    work.dispose();
    baseline?.dispose();
    for (const { peer } of opponents.values()) peer.end();
  }
  const ours = rounds.map((round) => round.ours);
  const summary = summarise(ours);
  for (const [mode, { facts, compared }] of opponents) {
    const seconds = rounds.map(({ theirs }) => theirs.get(mode)!);
    const bytes = theirMemory.get(mode);
    peers[mode] = {
      ...summarise(seconds),
      ratio: medianRatio(seconds, ours),
      compared,
      ...facts,
      ...(bytes !== undefined && { memory: bytes }),
    };
  }
  const result: BenchResult = {
    name: c.name,
    flops: c.flops,
    bytes: c.bytes,
    ...summary,
    gflops: c.flops / summary.median / 1e9,
    gigabytes: c.bytes / summary.median / 1e9,
    stolen: Math.max(...rounds.map(({ stolen }) => stolen)),
    peers,
    ...(memory !== undefined && { memory }),
    ...(c.baseline && {
      baseline: againstBaseline(
        c,
        c.baseline,
        rounds.map((r) => r.baseline!),
        ours,
        rounds.map((r) => r.processorRatio!),
      ),
    }),
  };
  return { result, disagrees };
}

const againstBaseline = (
  { flops }: BenchCase,
  { name, flops: least }: NonNullable<BenchCase['baseline']>,
  seconds: readonly number[],
  ours: readonly number[],
  processor: readonly number[],
) => ({
  name,
  ...summarise(seconds),
  ratio: 1 / medianRatio(seconds, ours),
  flopsRatio: flops / least,
  processorRatio: summarise(processor).median,
});

const line = (cells: readonly string[], widths: readonly number[]) =>
  cells.map((cell, i) => (i === 0 ? cell.padEnd(widths[i]!) : cell.padStart(widths[i]!))).join('  ');
const megabytes = (bytes: number) => `${(bytes / 1e6).toFixed(1)} MB`;
const milliseconds = (s: number) => (s * 1e3 >= 100 ? (s * 1e3).toFixed(1) : (s * 1e3).toPrecision(3));

/** When, what and where. */
function circumstances(device?: DeviceFacts): Omit<BenchFile, 'results'> {
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
  return {
    date: new Date().toISOString(),
    commit,
    machine: {
      cpu: cpus()[0]?.model ?? 'unknown',
      cores: cpus().length,
      memoryBytes: totalmem(),
      node: process.version,
      instructionSet: info.instructionSet,
      threads: info.threads,
      ...(device && { device }),
    },
  };
}

function save(file: BenchFile, options: BenchOptions): void {
  if (!options.json) return;
  mkdirSync(path.dirname(path.resolve(options.json)), { recursive: true });
  writeFileSync(options.json, `${JSON.stringify(file, null, 2)}\n`);
  options.log(`written: ${options.json}`);
}

/** Several ranks have only collectives to measure: all else would be the same work on every one of them. */
async function betweenRanks(options: BenchOptions): Promise<BenchFile> {
  const { filters, rounds, log } = options;
  const { rank, results } = await benchRanks({ filters, rounds, device: 'cpu', log });
  const file: BenchFile = {
    ...circumstances(),
    results: results.map((r) => ({ ...r, flops: 0, gflops: 0, stolen: 0, peers: {} })),
  };
  if (rank === 0) save(file, options);
  return file;
}

/**
 * Times the chosen cases, prints a line each and writes the JSON. Throws ERR_LIBMOE_STATE at the end when results of a case were not those of
 * PyTorch (that comparison is then not timed).
 */
export async function bench(options: BenchOptions): Promise<BenchFile> {
  native().setThreads(options.threads);
  if (launchEnvironment().worldSize > 1) return betweenRanks(options);
  const device = useDevice(options.device ?? 'cpu');
  const list = await cases(options.filters, options.device);
  if (device)
    options.log(
      `${device.name}: device time between events, L2 warm${device.emulated ? '; EMULATED, these times mean nothing' : ''}`,
    );
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
  const wrong: string[] = [];
  for (const c of list) {
    const { result: r, disagrees } = await measure(c, options);
    results.push(r);
    if (disagrees) wrong.push(c.name);
    const ratios = modes.map((mode) => {
      const peer = r.peers[mode];
      return peer
        ? 'error' in peer
          ? 'no figure'
          : `${peer.ratio.toFixed(2)}× (${milliseconds(peer.median)})`
        : '–';
    });
    options.log(
      line(
        [
          r.name,
          milliseconds(r.median),
          `${milliseconds(r.p10)}–${milliseconds(r.p90)}`,
          r.flops > 0 ? r.gflops.toFixed(1) : '–',
          r.gigabytes.toFixed(1),
          ...ratios,
        ],
        widths,
      ),
    );
    if (r.baseline)
      options.log(
        `    ${r.baseline.ratio.toFixed(2)}× the time of ${r.baseline.name} (${milliseconds(r.baseline.median)} ms), ${r.baseline.processorRatio.toFixed(2)}× its processor time, ${r.baseline.flopsRatio.toFixed(2)}× its operations`,
      );
    if (r.stolen > quiet)
      options.log(
        `    disturbed: the host took up to ${(r.stolen * 100).toFixed(0)} % of a round's processor time`,
      );
    for (const [mode, peer] of Object.entries(r.peers)) {
      if ('error' in peer) {
        options.log(`    ${mode}: ${peer.error}`);
        continue;
      }
      if (peer.method) options.log(`    ${mode} torch: ${peer.method} was its fastest way`);
      if (peer.memory !== undefined && r.memory !== undefined) {
        options.log(
          `    resident memory of one call: ours ${megabytes(r.memory)}, ${mode} torch ${megabytes(peer.memory)} (${(r.memory / peer.memory).toFixed(2)}×)`,
        );
      }
    }
  }
  const file: BenchFile = { ...circumstances(device), results };
  save(file, options);
  if (wrong.length > 0)
    fail('ERR_LIBMOE_STATE', `results are not those of PyTorch, see above: ${wrong.join(', ')}`);
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
