// One case at a time: ours, its baseline and its peers in turn, round after round.
import Benchmark from 'benchmark';
import type { DeviceName } from '../ts/tensor/index.ts';
import { disagreement } from './agreement.ts';
import type { BenchCase, Work } from './case.ts';
import { deviceSample } from './device-time.ts';
import { Peer, type PeerFacts } from './peer.ts';
import { residentPeak } from './resident-memory.ts';
import type { BenchResult } from './result.ts';
import { medianRatio, summarise } from './statistics.ts';
import { watchStolenTime } from './stolen-time.ts';

export interface MeasureOptions {
  rounds: number;
  threads: number;
  /** Where inputs lie and operations run; default the CPU. A GPU's times are device time between events. */
  device?: DeviceName;
  /** A Python with torch; absent: no comparison. */
  python?: string;
  /** Only these modes of the peers; default all that the case and the device have: {@link modesOf}. */
  modes?: readonly string[] | undefined;
}

/**
 * Of the CPU 'default' and 'tuned' (oneDNN float32 and an allocator that keeps its memory). On a GPU what the case names, else PyTorch as it comes:
 * there the modes are ways to compute the same.
 */
export function modesOf(c: BenchCase, { device = 'cpu', python, modes }: MeasureOptions): readonly string[] {
  if (!python || !c.peer) return [];
  const all = device === 'cpu' ? ['default', 'tuned'] : (c.peer.gpuModes ?? ['torch']);
  if (!modes) return all;
  return device === 'cpu' ? modes : modes.filter((mode) => all.includes(mode));
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

/** Share of stolen time up to which a round counts as undisturbed. */
export const quiet = 0.05;

/** As many rounds as asked for: the first ones that the host did not disturb; of at most three times as many, else the least disturbed. */
async function undisturbed(count: number, round: () => Promise<Round>): Promise<Round[]> {
  const all: Round[] = [];
  while (all.filter(({ stolen }) => stolen <= quiet).length < count && all.length < 3 * count)
    all.push(await round());
  return all.sort((a, b) => Math.max(a.stolen, quiet) - Math.max(b.stolen, quiet)).slice(0, count);
}

class Disagreement extends Error {}

/** The PyTorch processes of a run. On a GPU they are kept from case to case, as starting one takes longer than most cases. */
export class Peers {
  readonly #running = new Map<string, Peer>();
  constructor(readonly options: MeasureOptions) {}

  /** Ready for a case, its results compared with ours. */
  async opponent(
    c: BenchCase,
    mode: string,
    ours: () => Record<string, readonly number[]> | undefined,
  ): Promise<Opponent> {
    const { python, threads, device } = this.options;
    const { script, request } = c.peer!;
    const key = `${script} ${mode}`;
    const peer = this.#running.get(key) ?? new Peer(python!, script, mode, threads, device);
    this.#running.set(key, peer);
    // Layers of a real model take minutes on a CPU, most of them for drawing the weights.
    peer.patience = Math.max(240, c.flops / 1e9);
    try {
      const facts = await peer.setup(request);
      const theirs = await peer.results();
      const own = theirs && ours();
      const wrong = own && disagreement(own, theirs, c.tolerance ?? 0);
      if (wrong) throw new Disagreement(wrong);
      await peer.time(1);
      return { peer, facts, compared: own !== undefined };
    } catch (error) {
      this.#end(key);
      throw error;
    }
  }

  /** After a case: its inputs go, on the CPU the processes too. */
  async release(): Promise<void> {
    for (const [key, peer] of this.#running) {
      if ((this.options.device ?? 'cpu') === 'cpu') this.#end(key);
      else await peer.forget().catch(() => this.#end(key));
    }
  }

  end(): void {
    for (const key of [...this.#running.keys()]) this.#end(key);
  }

  #end(key: string): void {
    this.#running.get(key)?.end();
    this.#running.delete(key);
  }
}

/** Times a case. `disagrees`: a peer's results were not ours, and it was not timed. */
export async function measure(
  c: BenchCase,
  options: MeasureOptions,
  all: Peers,
): Promise<{ result: BenchResult; disagrees: boolean }> {
  let rounds: Round[] = [];
  const opponents = new Map<string, Opponent>();
  const peers: BenchResult['peers'] = {};
  let disagrees = false;
  const own: { memory?: number; savedBytes?: number } = {};
  const theirs = new Map<string, { memory?: number; savedBytes?: number }>();
  const resident = c.memory && (options.device ?? 'cpu') === 'cpu' ? residentPeak() : undefined;
  let work: Work | undefined;
  let baseline: Work | undefined;
  try {
    work = c.setup();
    baseline = c.baseline?.setup();
    const run = () => work!.run();
    run(); // pools and caches fill
    baseline?.run();
    let results: Record<string, readonly number[]> | undefined;
    for (const mode of modesOf(c, options)) {
      try {
        const ours = () => {
          results ??= work!.results?.();
          return results;
        };
        opponents.set(mode, await all.opponent(c, mode, ours));
      } catch (error) {
        disagrees ||= error instanceof Disagreement;
        peers[mode] = { error: error instanceof Error ? error.message : String(error) };
      }
    }
    rounds = await undisturbed(options.rounds, async () => {
      const stolen = watchStolenTime();
      const { seconds, calls } = sample(run, options.device);
      const times = new Map<string, number>();
      for (const [mode, { peer }] of opponents) times.set(mode, await peer.time(calls));
      const alone = { ours: seconds, theirs: times };
      if (!baseline) return { ...alone, stolen: stolen() };
      const other = sample(() => baseline!.run(), options.device).seconds;
      const processorRatio = processorTime(run) / processorTime(() => baseline!.run());
      return { ...alone, stolen: stolen(), baseline: other, processorRatio };
    });
    if (resident) own.memory = resident(run);
    if (work.saved) own.savedBytes = work.saved();
    for (const [mode, { peer }] of opponents)
      theirs.set(mode, {
        ...(resident && { memory: await peer.memory() }),
        ...(work.saved && { savedBytes: await peer.saved() }),
      });
  } finally {
    work?.dispose();
    baseline?.dispose();
    await all.release();
  }
  const ours = rounds.map((round) => round.ours);
  const summary = summarise(ours);
  for (const [mode, { facts, compared }] of opponents) {
    const seconds = rounds.map((round) => round.theirs.get(mode)!);
    const ratio = medianRatio(seconds, ours);
    peers[mode] = { ...summarise(seconds), ratio, compared, ...facts, ...theirs.get(mode) };
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
    ...own,
    ...(c.baseline && { baseline: againstBaseline(c, rounds, ours) }),
  };
  return { result, disagrees };
}

function againstBaseline(
  { flops, baseline }: BenchCase,
  rounds: readonly Round[],
  ours: readonly number[],
): NonNullable<BenchResult['baseline']> {
  const seconds = rounds.map((r) => r.baseline!);
  return {
    name: baseline!.name,
    ...summarise(seconds),
    ratio: 1 / medianRatio(seconds, ours),
    flopsRatio: flops / baseline!.flops,
    processorRatio: summarise(rounds.map((r) => r.processorRatio!)).median,
  };
}
