// Starts the ranks of one machine and stays with them to the end: `libmoe launch`.
import { type ChildProcess, spawn } from 'node:child_process';
import { fail } from '../native/index.ts';
import { freePort } from './free-port.ts';
import { startWithMpirun } from './launch-mpirun.ts';
import {
  exitCode,
  type LaunchEnd,
  type LaunchOptions,
  lines,
  type RunningRanks,
  signalGroup,
  stoppedCode,
} from './launched.ts';

/**
 * Starts the ranks on this machine. When one fails all others are ended.
 * @throws ERR_LIBMOE_ARGUMENT, ERR_LIBMOE_UNSUPPORTED when mpirun is missing, ERR_LIBMOE_FILE when the program cannot be started
 */
export async function launchRanks(options: LaunchOptions): Promise<RunningRanks> {
  const { ranks, command, device } = options;
  if (!(Number.isInteger(ranks) && ranks > 0))
    fail('ERR_LIBMOE_ARGUMENT', `the number of ranks must be a positive integer, got ${ranks}`);
  if (command.length === 0) fail('ERR_LIBMOE_ARGUMENT', 'there is no command for the ranks');
  const environment = {
    MASTER_ADDR: '127.0.0.1',
    MASTER_PORT: String(await freePort()),
    ...options.environment,
  };
  return device === 'cpu'
    ? startWithMpirun({ ...options, environment })
    : startRanks({ ...options, environment });
}

/** Milliseconds that ranks get to end after one has failed. */
const grace = 5000;

/** One process per rank, children of this one. */
async function startRanks({ ranks, command, environment, onLine }: LaunchOptions): Promise<RunningRanks> {
  const [program = '', ...rest] = command;
  const children: ChildProcess[] = [];
  const kill = (name: NodeJS.Signals): void => {
    for (const child of children) signalGroup(child.pid, name);
  };
  let failed: LaunchEnd['failed'];
  let stopped = false;
  let killing: NodeJS.Timeout | undefined;
  const ends = Array.from({ length: ranks }, (_, rank) => {
    // Of its own process group: a Ctrl-C of the terminal reaches the launcher alone, which passes it on once.
    const child = spawn(program, rest, {
      detached: true,
      stdio: ['ignore', 'pipe', 'pipe'],
      env: { ...process.env, ...environment, ...torchrunVariables(rank, ranks) },
    });
    children.push(child);
    lines(child.stdout, (line) => onLine(rank, 'stdout', line));
    lines(child.stderr, (line) => onLine(rank, 'stderr', line));
    return new Promise<void>((resolve, reject) => {
      child.once('error', reject);
      child.once('close', (status, signal) => {
        const code = exitCode(status, signal);
        if (code === stoppedCode) stopped = true;
        else if (code !== 0 && !failed) {
          failed = { rank, code };
          kill('SIGTERM');
          killing = setTimeout(() => kill('SIGKILL'), grace);
        }
        resolve();
      });
    });
  });
  const ended = (async (): Promise<LaunchEnd> => {
    try {
      await Promise.all(ends);
    } catch (error) {
      kill('SIGKILL');
      return fail('ERR_LIBMOE_FILE', `cannot start ${program}: ${(error as Error).message}`, error);
    } finally {
      clearTimeout(killing);
    }
    return { code: failed?.code ?? (stopped ? stoppedCode : 0), ...(failed && { failed }) };
  })();
  ended.catch(() => {});
  return { signal: kill, kill: () => kill('SIGKILL'), ended };
}

const torchrunVariables = (rank: number, ranks: number): Record<string, string> => ({
  RANK: String(rank),
  WORLD_SIZE: String(ranks),
  LOCAL_RANK: String(rank),
  LOCAL_WORLD_SIZE: String(ranks),
});
