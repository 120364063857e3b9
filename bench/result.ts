import type { DeviceFacts } from './device-time.ts';
import type { PeerFacts } from './peer.ts';
import type { Summary } from './statistics.ts';

export interface PeerResult extends Summary, PeerFacts {
  /** Median over rounds of peer / ours: above 1, ours is faster. */
  ratio: number;
  /** Whether both sides were seen to compute the same. */
  compared: boolean;
  memory?: number;
  /** What its forward pass keeps for backward. */
  savedBytes?: number;
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
  /** Highest resident memory of one call above what the process held before the case, where that asks for it. */
  memory?: number;
  /** What the forward pass keeps for backward, weights not counted, where the case asks for it. */
  savedBytes?: number;
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
  /** Cases that threw, with what they said. */
  failed?: { name: string; error: string }[];
  /** Cases for which there was no time left. */
  notRun?: string[];
}

const milliseconds = (s: number) => (s * 1e3 >= 100 ? (s * 1e3).toFixed(1) : (s * 1e3).toPrecision(3));
const megabytes = (bytes: number) => `${(bytes / 1e6).toFixed(1)} MB`;

/** The table of a run, a case at a time. */
export class ResultTable {
  readonly #widths: readonly number[];
  readonly #modes: readonly string[];

  constructor(names: readonly string[], modes: readonly string[]) {
    this.#modes = modes;
    this.#widths = [Math.max(20, ...names.map((n) => n.length)), 9, 15, 9, 8, ...modes.map(() => 16)];
  }

  #line(cells: readonly string[]): string {
    return cells
      .map((cell, i) => (i === 0 ? cell.padEnd(this.#widths[i]!) : cell.padStart(this.#widths[i]!)))
      .join('  ');
  }

  head(): string {
    const peers = this.#modes.map((m) => `vs ${m}`);
    return this.#line(['case', 'ms', 'p10–p90', 'GFLOP/s', 'GB/s', ...peers]);
  }

  row(r: BenchResult): string {
    const ratios = this.#modes.map((mode) => {
      const peer = r.peers[mode];
      if (!peer) return '–';
      return 'error' in peer ? 'no figure' : `${peer.ratio.toFixed(2)}× (${milliseconds(peer.median)})`;
    });
    const spread = `${milliseconds(r.p10)}–${milliseconds(r.p90)}`;
    const rate = r.flops > 0 ? r.gflops.toFixed(1) : '–';
    return this.#line([r.name, milliseconds(r.median), spread, rate, r.gigabytes.toFixed(1), ...ratios]);
  }
}

/** What is to be said below the row of a case. `quiet` is the share of stolen time that does not count. */
export function remarks(r: BenchResult, quiet: number): string[] {
  const said: string[] = [];
  const b = r.baseline;
  if (b) {
    const time = `${b.ratio.toPrecision(3)}× the time of ${b.name} (${milliseconds(b.median)} ms)`;
    said.push(
      `${time}, ${b.processorRatio.toFixed(2)}× its processor time, ${b.flopsRatio.toPrecision(3)}× its operations`,
    );
  }
  if (r.stolen > quiet)
    said.push(`disturbed: the host took up to ${(r.stolen * 100).toFixed(0)} % of a round's processor time`);
  if (r.savedBytes !== undefined && Object.keys(r.peers).length === 0)
    said.push(`kept for backward: ${megabytes(r.savedBytes)}`);
  for (const [mode, peer] of Object.entries(r.peers)) {
    if ('error' in peer) {
      said.push(`${mode}: ${peer.error}`);
      continue;
    }
    if (peer.method && peer.method !== mode) said.push(`${mode} torch: ${peer.method} was its fastest way`);
    const against = (what: string, ours?: number, theirs?: number) => {
      if (ours !== undefined && theirs !== undefined)
        said.push(
          `${what}: ours ${megabytes(ours)}, ${mode} torch ${megabytes(theirs)} (${(ours / theirs).toFixed(2)}×)`,
        );
    };
    against('peak memory', r.memory, peer.memory);
    against('kept for backward', r.savedBytes, peer.savedBytes);
  }
  return said.map((text) => `    ${text}`);
}
