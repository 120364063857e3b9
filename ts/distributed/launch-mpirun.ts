// Ranks on the CPU: only mpirun can start processes that MPI then connects.
import { spawn } from 'node:child_process';
import {
  accessSync,
  constants,
  existsSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { delimiter, join } from 'node:path';
import { fail } from '../native/index.ts';
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
 * Runs in a shell around each rank: writes down the rank's process, to which signals go (mpirun turns those it gets into a kill), and how it
 * ended, as mpirun only says that something failed. The shell outlives a signal that its process group gets. A rank that stopped in order must not make
 * mpirun kill the others, which may still be saving.
 */
const wrapper = `
trap : INT TERM
at="$0/\${OMPI_COMM_WORLD_RANK:?mpirun is not that of Open MPI}"
sh -c 'echo $$ > "$0.pid"; exec "$@"' "$at" "$@"
code=$?
echo $code > "$at.exit"
[ $code = ${stoppedCode} ] && exit 0
exit $code`;

/** A line of a rank as mpirun marks it: \`[1,0]<stdout>:\` (Open MPI 4), \`[prterun-host-1@1,0]<stdout>: \` (5). */
const marked = /^\[[^\]]*?(\d+)\]<(stdout|stderr|stddiag)>: ?(.*)$/;

/** Starts the ranks with mpirun, which must be Open MPI's. @throws ERR_LIBMOE_UNSUPPORTED when there is none */
export function startWithMpirun({ ranks, command, environment, onLine }: LaunchOptions): RunningRanks {
  const folder = mkdtempSync(join(tmpdir(), 'libmoe-launch-'));
  const args = ['--oversubscribe', '--bind-to', 'none', '--tag-output', '-n', String(ranks)];
  const mpirun = findMpirun();
  // Of its own process group: a Ctrl-C of the terminal must not reach mpirun, which would kill ranks that want to save.
  const child = spawn(mpirun, [...args, 'sh', '-c', wrapper, folder, ...command], {
    detached: true,
    stdio: ['ignore', 'pipe', 'pipe'],
    env: {
      ...process.env,
      // Ranks share cores: one that waits must let the others compute.
      OMPI_MCA_mpi_yield_when_idle: '1',
      ...(process.getuid?.() === 0 && { OMPI_ALLOW_RUN_AS_ROOT: '1', OMPI_ALLOW_RUN_AS_ROOT_CONFIRM: '1' }),
      ...environment,
    },
  });
  let heard = performance.now();
  const hear = (stream: 'stdout' | 'stderr') => (line: string) => {
    heard = performance.now();
    const [, rank, , text] = marked.exec(line) ?? [];
    if (rank === undefined) onLine(undefined, stream, line);
    else onLine(Number(rank), stream, text!);
  };
  lines(child.stdout, hear('stdout'));
  lines(child.stderr, hear('stderr'));
  const all = (name: NodeJS.Signals): void => {
    for (const pid of processesIn(folder)) {
      try {
        process.kill(pid, name);
      } catch {
        // It has ended.
      }
    }
  };
  let stuck = false;
  const watch = setInterval(() => {
    if (!allOver(folder, ranks)) heard = performance.now();
    else if (performance.now() - heard > grace) {
      stuck = true;
      signalGroup(child.pid, 'SIGKILL');
    }
  }, 1000);
  const ended = new Promise<LaunchEnd>((resolve, reject) => {
    child.once('error', reject);
    child.once('close', (status, signal) => {
      try {
        // What a stuck mpirun would have said, the ranks have said themselves if all of them could.
        const allHeard = endsIn(folder).length === ranks;
        resolve(endOf(folder, stuck && allHeard ? 0 : exitCode(status, signal)));
      } catch (error) {
        reject(error as Error);
      }
    });
  }).finally(() => {
    clearInterval(watch);
    rmSync(folder, { recursive: true, force: true });
  });
  ended.catch(() => {});
  return {
    signal: all,
    kill() {
      all('SIGKILL');
      signalGroup(child.pid, 'SIGKILL');
    },
    ended,
  };
}

/**
 * Milliseconds that mpirun gets to end after its last rank and last word. It may never end by itself: that of Open MPI 4.1.4 can block in PMIx_server_finalize when
 * ranks have left without MPI_Finalize, as they do when one has failed.
 */
const grace = 10_000;

/** Whether no rank will do anything any more: all have begun, or one has failed, and none is alive. Ranks on other machines are not seen and count as alive. */
function allOver(folder: string, ranks: number): boolean {
  try {
    const begun = processesIn(folder);
    const failed = endsIn(folder).some(({ code }) => code !== 0 && code !== stoppedCode);
    return (begun.length === ranks || failed) && !begun.some(runs);
  } catch {
    return false; // the folder cannot be read at the moment
  }
}

/** Whether a process is there and no zombie, which nobody may come to collect in a container. */
function runs(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return !/^State:\tZ/m.test(readFileSync(`/proc/${pid}/status`, 'utf8'));
  } catch (error) {
    // There is no /proc on macOS; another user's process is none of ours.
    return (error as NodeJS.ErrnoException).syscall === 'open' && !existsSync('/proc/self');
  }
}

function processesIn(folder: string): number[] {
  return readdirSync(folder)
    .filter((name) => name.endsWith('.pid'))
    .map((name) => Number(readFileSync(join(folder, name), 'utf8')))
    .filter((pid) => Number.isInteger(pid) && pid > 0);
}

/** How the ranks ended that could write it down, the first one first. */
function endsIn(folder: string): { rank: number; code: number }[] {
  return readdirSync(folder)
    .filter((name) => name.endsWith('.exit'))
    .map((name) => ({
      rank: Number.parseInt(name, 10),
      code: Number(readFileSync(join(folder, name), 'utf8')),
      at: statSync(join(folder, name), { bigint: true }).mtimeNs,
    }))
    .sort((a, b) => (a.at < b.at ? -1 : a.at > b.at ? 1 : 0));
}

/** The first rank that failed is the one whose end was written down first; later ones were mostly killed for it. */
function endOf(folder: string, mpirunCode: number): LaunchEnd {
  const ends = endsIn(folder);
  const first = ends.find(({ code }) => code !== 0 && code !== stoppedCode);
  if (first) return { code: first.code, failed: { rank: first.rank, code: first.code } };
  if (mpirunCode !== 0) return { code: mpirunCode };
  return { code: ends.some(({ code }) => code === stoppedCode) ? stoppedCode : 0 };
}

function findMpirun(): string {
  const given = process.env.LIBMOE_MPIRUN;
  for (const file of given
    ? [given]
    : (process.env.PATH ?? '').split(delimiter).map((dir) => join(dir, 'mpirun'))) {
    try {
      accessSync(file, constants.X_OK);
      return file;
    } catch {
      // Not here.
    }
  }
  return fail(
    'ERR_LIBMOE_UNSUPPORTED',
    `${given ? `LIBMOE_MPIRUN names ${given}, which cannot be run` : 'there is no mpirun in PATH'}: ranks on the CPU work together through Open MPI. ` +
      'Install it (Debian, Ubuntu: apt-get install openmpi-bin libopenmpi-dev; Fedora: dnf install openmpi openmpi-devel, then module load mpi; ' +
      'macOS: brew install open-mpi) and run "libmoe build" or "npm run build:native" once',
  );
}
