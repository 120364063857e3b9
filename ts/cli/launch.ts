import { availableParallelism } from 'node:os';
import { Command } from 'commander';
import { launchRanks } from '../distributed/launch.ts';
import type { LaunchEnd } from '../distributed/launched.ts';
import { fail } from '../native/index.ts';
import { devices } from '../tensor/index.ts';
import { interrupted } from './interrupt.ts';
import { oneOf, whole } from './options.ts';
import { log, printJson } from './output.ts';

interface Options {
  nproc: string;
  device?: string;
  json?: boolean;
}

const help = `
COMMAND is any program; "train …", "run …" and other commands of libmoe may be written without "libmoe".

Examples:
  libmoe launch --nproc 2 -- train recipes/demo/moe.yaml --set strategy.data=2
  libmoe launch --nproc 4 -- run train.ts

On the CPU the ranks are started by mpirun (Open MPI), on CUDA by this command, with torchrun's variables and one GPU each.
Each rank gets cores / N threads unless LIBMOE_THREADS is set. Lines begin with the rank that printed them. When one rank
fails all are ended; the exit code is that of the first that failed. Ctrl-C goes to every rank once, so that training saves
its checkpoint (exit code 130); a second one ends all at once.

On several machines each launcher that sets ranks will do; the master's address must be reachable from all.
  torchrun-style (CUDA), on each machine:
    RANK=0 WORLD_SIZE=2 LOCAL_RANK=0 MASTER_ADDR=node0 MASTER_PORT=29500 libmoe train recipe.yaml --set strategy.data=2
    torchrun --nnodes 2 --nproc-per-node 8 --rdzv-backend c10d --rdzv-endpoint node0:29500 --no-python libmoe train recipe.yaml
  mpirun (CPU):    mpirun -n 8 --hostfile hosts -x MASTER_ADDR=node0 -x MASTER_PORT=29500 libmoe train recipe.yaml
  Slurm (CUDA):    srun --ntasks-per-node 8 --gpus-per-node 8 env MASTER_ADDR=node0 MASTER_PORT=29500 libmoe train recipe.yaml
  Kubernetes:      an Indexed Job whose pods run "libmoe train recipe.yaml" with WORLD_SIZE, MASTER_ADDR (the first pod's name in
                   a headless service) and MASTER_PORT set; the rank is JOB_COMPLETION_INDEX
More: docs/distributed.md, docs/training.md`;

/** Commands of libmoe that make sense on several ranks. */
const short = ['train', 'run', 'inspect'];

/** The device that a command names by itself. */
const named = (command: readonly string[]): string | undefined =>
  /(?:--device[ =]|\bdevice=)(cpu|cuda)\b/.exec(command.join(' '))?.[1];

/**
 * The program of a rank: the commands of libmoe are this very installation. Training on CUDA is told so, whatever its recipe says: each rank then takes the
 * GPU of its number.
 */
function programOf(command: readonly string[], device: 'cpu' | 'cuda'): string[] {
  const mine = command[0] === 'libmoe' ? command.slice(1) : short.includes(command[0]!) ? command : undefined;
  if (!mine) return [...command];
  const trains = mine[0] === 'train' && device === 'cuda' && !named(command);
  return [
    process.execPath,
    ...process.execArgv,
    process.argv[1]!,
    ...mine,
    ...(trains ? ['--device', 'cuda:0'] : []),
  ];
}

/** CUDA where there is a GPU, unless the command itself says that it is for the CPU. */
function deviceFor(command: readonly string[], asked: string | undefined): 'cpu' | 'cuda' {
  if (asked !== undefined) return oneOf('--device', asked, ['cpu', 'cuda']) as 'cpu' | 'cuda';
  if (named(command) === 'cpu') return 'cpu';
  return devices().some((name) => name.startsWith('cuda')) ? 'cuda' : 'cpu';
}

function environmentOf(ranks: number): Record<string, string> {
  if (process.env.LIBMOE_THREADS) return {};
  return { LIBMOE_THREADS: String(Math.max(1, Math.floor(availableParallelism() / ranks))) };
}

/** Stays with the ranks: the first signal is theirs, the second ends all. */
async function attend(command: readonly string[], ranks: number, device: 'cpu' | 'cuda', json: boolean) {
  const width = String(ranks - 1).length;
  // What mpirun says itself about a rank that failed is long, and said better below.
  const ownWords: string[] = [];
  const running = await launchRanks({
    ranks,
    command,
    device,
    environment: environmentOf(ranks),
    onLine(rank, stream, line) {
      if (rank === undefined) {
        ownWords.push(line);
        return;
      }
      const to = stream === 'stdout' && !json ? process.stdout : process.stderr;
      to.write(`[${String(rank).padStart(width)}] ${line}\n`);
    },
  });
  let asked = false;
  const pass = (name: NodeJS.Signals) => {
    if (asked) {
      running.kill();
      process.exit(interrupted);
    }
    asked = true;
    running.signal(name === 'SIGTERM' ? 'SIGTERM' : 'SIGINT');
  };
  process.on('SIGINT', pass);
  process.on('SIGTERM', pass);
  try {
    const end = await running.ended;
    if (!end.failed) for (const line of ownWords) log(line);
    return { end, asked };
  } finally {
    process.off('SIGINT', pass);
    process.off('SIGTERM', pass);
  }
}

/** `libmoe launch`. */
export function launchCommand(): Command {
  return new Command('launch')
    .description('start several ranks of a command on this machine')
    .requiredOption('--nproc <n>', 'how many ranks')
    .option('--device <kind>', 'cpu (through mpirun) or cuda (default: cuda where there is a GPU)')
    .option('--json', 'print one JSON object at the end; what the ranks print goes to stderr')
    .argument('<command...>', 'what every rank runs, after --')
    .passThroughOptions()
    .addHelpText('after', help)
    .action(async (command: string[], o: Options) => {
      const ranks = whole('--nproc', o.nproc);
      const device = deviceFor(command, o.device);
      const gpus = devices().filter((name) => name.startsWith('cuda')).length;
      if (device === 'cuda' && gpus < ranks)
        fail(
          'ERR_LIBMOE_ARGUMENT',
          `--nproc ${ranks} needs as many GPUs, this machine has ${gpus} (libmoe inspect says why): lower it, or give --device cpu`,
        );
      const started = performance.now();
      const { end, asked } = await attend(programOf(command, device), ranks, device, o.json ?? false);
      const seconds = Number(((performance.now() - started) / 1000).toFixed(3));
      report(end, asked);
      if (o.json) printJson({ ranks, device, exitCode: end.code, failed: end.failed ?? null, seconds });
      process.exitCode = end.code;
    });
}

function report({ failed, code }: LaunchEnd, asked: boolean): void {
  if (failed) {
    const how =
      failed.code > 128 ? `was ended by signal ${failed.code - 128}` : `failed with exit code ${failed.code}`;
    log(
      `ERR_LIBMOE_COLLECTIVE: rank ${failed.rank} ${how}, the other ranks were ended; its own lines say why`,
    );
  } else if (code !== 0 && code !== interrupted && !asked)
    log(
      `ERR_LIBMOE_COLLECTIVE: the ranks could not be started, or mpirun failed (exit code ${code}); its own lines say why`,
    );
}
