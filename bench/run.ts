// `npm run bench`: times every bench/*.bench.ts, alone or in turn with PyTorch, and writes a table and JSON.
import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { cpus, totalmem } from 'node:os';
import path from 'node:path';
import { pathToFileURL } from 'node:url';
import { launchEnvironment } from '../ts/distributed/index.ts';
import { fail, native } from '../ts/native/index.ts';
import type { DeviceName } from '../ts/tensor/index.ts';
import type { BenchCase } from './case.ts';
import { benchRanks } from './collective-ranks.ts';
import { type DeviceFacts, useDevice } from './device-time.ts';
import { type MeasureOptions, measure, modesOf, Peers, quiet } from './measure.ts';
import { type BenchFile, type BenchResult, ResultTable, remarks } from './result.ts';

export type { BenchFile, BenchResult } from './result.ts';

export interface BenchOptions extends MeasureOptions {
  /** Only cases whose name contains one of these, those of the first one first. */
  filters: string[];
  /** No case is begun later than this many seconds after the start. */
  seconds?: number | undefined;
  json?: string;
  log(line: string): void;
}

/** The cases of all families whose names contain one of the filters, in the order of the filters; all without filters. */
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
  if (filters.length === 0) return here.filter((c) => !c.onlyFor);
  const chosen = filters.flatMap((f) =>
    here.filter((c) => c.name.includes(f) && (!c.onlyFor || f.includes(c.onlyFor))),
  );
  return [...new Set(chosen)];
}

/** When, what and where. */
function circumstances(device?: DeviceFacts): Omit<BenchFile, 'results'> {
  const info = native().cpuInfo();
  return {
    date: new Date().toISOString(),
    commit: commit(),
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

/** Of the checkout, or of the pack that scripts/verify-on-gpu carried. */
function commit(): string {
  const packed = path.join(import.meta.dirname, '../pack.json');
  if (existsSync(packed)) return (JSON.parse(readFileSync(packed, 'utf8')) as { commit: string }).commit;
  try {
    return execFileSync('git', ['describe', '--always', '--dirty'], {
      cwd: import.meta.dirname,
      encoding: 'utf8',
    }).trim();
  } catch {
    return 'unknown'; // not a git checkout
  }
}

function save(file: BenchFile, { json }: BenchOptions): void {
  if (!json) return;
  mkdirSync(path.dirname(path.resolve(json)), { recursive: true });
  writeFileSync(json, `${JSON.stringify(file, null, 2)}\n`);
}

/** Several ranks have only collectives to measure: all else would be the same work on every one of them. */
async function betweenRanks(options: BenchOptions): Promise<BenchFile> {
  const { filters, rounds, log, device = 'cpu' } = options;
  // Of a command line that all ranks were given: each takes the GPU of its own number.
  const own: DeviceName = device === 'cpu' ? 'cpu' : `cuda:${launchEnvironment().localRank}`;
  const facts = useDevice(own);
  const { rank, results } = await benchRanks({ filters, rounds, device: own, log });
  const file: BenchFile = {
    ...circumstances(facts),
    results: results.map((r) => ({ ...r, flops: 0, gflops: 0, stolen: 0, peers: {} })),
  };
  if (rank === 0) save(file, options);
  return file;
}

/**
 * Times the chosen cases, prints a line each and writes the JSON, anew after every case. Throws ERR_LIBMOE_STATE at the end when results of a case
 * were not those of PyTorch (that comparison is then not timed) or a case threw.
 */
export async function bench(options: BenchOptions): Promise<BenchFile> {
  const { log } = options;
  const start = performance.now();
  native().setThreads(options.threads);
  if (launchEnvironment().worldSize > 1) return betweenRanks(options);
  const device = useDevice(options.device ?? 'cpu');
  const list = await cases(options.filters, options.device);
  if (device)
    log(
      `${device.name}: device time between events, L2 warm${device.emulated ? '; EMULATED, these times mean nothing' : ''}`,
    );
  const modes = [...new Set(list.flatMap((c) => modesOf(c, options)))];
  const table = new ResultTable(
    list.map((c) => c.name),
    modes,
  );
  log(table.head());
  const results: BenchResult[] = [];
  const wrong: string[] = [];
  const failed: { name: string; error: string }[] = [];
  const notRun: string[] = [];
  const file = (): BenchFile => ({
    ...circumstances(device),
    results,
    ...(failed.length > 0 && { failed }),
    ...(notRun.length > 0 && { notRun }),
  });
  const peers = new Peers(options);
  try {
    for (const c of list) {
      if (options.seconds !== undefined && performance.now() - start > options.seconds * 1e3) {
        notRun.push(c.name);
        continue;
      }
      try {
        const { result, disagrees } = await measure(c, options, peers);
        results.push(result);
        if (disagrees) wrong.push(c.name);
        log(table.row(result));
        for (const remark of remarks(result, quiet)) log(remark);
      } catch (error) {
        failed.push({ name: c.name, error: error instanceof Error ? error.message : String(error) });
        log(`${c.name}: ${failed.at(-1)!.error}`);
      }
      save(file(), options);
    }
  } finally {
    peers.end();
  }
  if (notRun.length > 0) log(`no time was left for ${notRun.join(', ')}`);
  save(file(), options);
  if (options.json) log(`written: ${options.json}`);
  if (failed.length > 0)
    fail('ERR_LIBMOE_STATE', `cases failed, see above: ${failed.map(({ name }) => name).join(', ')}`);
  if (wrong.length > 0)
    fail('ERR_LIBMOE_STATE', `results are not those of PyTorch, see above: ${wrong.join(', ')}`);
  return file();
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
