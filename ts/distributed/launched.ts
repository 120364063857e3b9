import { constants } from 'node:os';
import { createInterface } from 'node:readline';
import type { Readable } from 'node:stream';

/** What launchRanks starts. */
export interface LaunchOptions {
  /** How many ranks. */
  ranks: number;
  /** Program and arguments of every rank. */
  command: readonly string[];
  /** `cpu`: mpirun starts the ranks, as only it can connect them. `cuda`: they are started here, with torchrun's variables. */
  device: 'cpu' | 'cuda';
  /** Set for every rank besides this process's own. */
  environment?: Readonly<Record<string, string>>;
  /** Gets what the ranks print, line by line. `rank` is undefined for what mpirun says itself. */
  onLine(rank: number | undefined, stream: 'stdout' | 'stderr', line: string): void;
}

/** How the ranks ended. */
export interface LaunchEnd {
  /** 0 when all ended well, 130 when they were asked to stop and did, else that of the first rank that failed. */
  code: number;
  /** The first rank that failed. */
  failed?: { rank: number; code: number };
}

/** Ranks that run. */
export interface RunningRanks {
  /** Passes a signal to every rank; what they do then is theirs. */
  signal(name: 'SIGINT' | 'SIGTERM'): void;
  /** Ends all of them at once. */
  kill(): void;
  readonly ended: Promise<LaunchEnd>;
}

/** Exit code of a program that was asked to stop and did so in order. */
export const stoppedCode = 130;

/** Signals a process and what it has started; one that has ended is none. */
export function signalGroup(pid: number | undefined, name: NodeJS.Signals): void {
  if (pid === undefined) return;
  try {
    process.kill(-pid, name);
  } catch {
    // It is gone.
  }
}

/** As a shell gives it. */
export function exitCode(status: number | null, signal: NodeJS.Signals | null): number {
  return status ?? 128 + (signal ? constants.signals[signal] : 0);
}

/** Calls `use` for every line. */
export function lines(stream: Readable, use: (line: string) => void): void {
  createInterface({ input: stream, crlfDelay: Number.POSITIVE_INFINITY }).on('line', use);
}
