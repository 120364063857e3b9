import { spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, describe, expect, it, vi } from 'vitest';
import { stringify } from 'yaml';
import { launchRanks } from '../../ts/distributed/launch.ts';
import { verifyFolder } from '../../ts/storage/index.ts';
import { libmoe, type Outcome, root } from './libmoe.ts';

const folder = mkdtempSync(path.join(tmpdir(), 'libmoe-launch-test-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

/** Why ranks cannot be started here, or nothing. */
function noMpi(): string | undefined {
  if (spawnSync('mpirun', ['--version']).status !== 0)
    return 'mpirun is not in PATH (apt-get install openmpi-bin libopenmpi-dev)';
  if (!existsSync(path.join(root, 'build/Release/libmoe_mpi.so')))
    return 'build/Release/libmoe_mpi.so is missing: this checkout was built where there was no Open MPI';
  return undefined;
}
const missing = noMpi();
if (missing) console.log(`tests of ranks that MPI connects are skipped: ${missing}`);
const withMpi = describe.skipIf(missing !== undefined);

const launch = (args: readonly string[], options?: Parameters<typeof libmoe>[1]): Promise<Outcome> =>
  libmoe(['launch', ...args], options);

/** Lines that a rank printed. */
const linesOf = (text: string, rank: number): string[] =>
  text.split('\n').flatMap((line) => (line.startsWith(`[${rank}] `) ? [line.slice(4)] : []));

describe('libmoe launch', { timeout: 180_000 }, () => {
  it('explains every way of starting ranks', async () => {
    const { code, stdout } = await launch(['--help']);
    expect(code).toBe(0);
    for (const word of [
      'torchrun',
      'mpirun',
      'srun',
      'JOB_COMPLETION_INDEX',
      'MASTER_ADDR',
      'strategy.data=2',
    ])
      expect(stdout).toContain(word);
  });

  it.each<[string, string[], RegExp, Record<string, string>?]>([
    ['no number of ranks', ['--', 'true'], /ERR_LIBMOE_ARGUMENT: .*--nproc/],
    [
      'no ranks',
      ['--nproc', '0', '--', 'true'],
      /ERR_LIBMOE_ARGUMENT: --nproc expects a positive whole number/,
    ],
    ['no command', ['--nproc', '2'], /ERR_LIBMOE_ARGUMENT: .*command/],
    [
      'another device',
      ['--nproc', '2', '--device', 'tpu', '--', 'true'],
      /--device expects cpu, cuda, got "tpu"/,
    ],
    [
      'an mpirun that is not there',
      ['--nproc', '2', '--device', 'cpu', '--', 'true'],
      /ERR_LIBMOE_UNSUPPORTED: LIBMOE_MPIRUN names \/nowhere\/mpirun, which cannot be run.*apt-get install openmpi-bin/,
      { LIBMOE_MPIRUN: '/nowhere/mpirun' },
    ],
  ])('refuses %s', async (_, args, message, env = {}) => {
    const { code, stderr } = await launch(args, { env });
    expect(stderr).toMatch(message);
    expect(code).toBe(2);
  });

  it('says what to install where there is no mpirun', async () => {
    const { code, stderr } = await launch(['--nproc', '2', '--device', 'cpu', '--', 'true'], {
      env: { PATH: folder },
    });
    expect(stderr).toMatch(/ERR_LIBMOE_UNSUPPORTED: there is no mpirun in PATH.*apt-get install openmpi-bin/);
    expect(code).toBe(2);
  });
});

describe('ranks of an mpirun that does not end', () => {
  // Runs both ranks as mpirun would, one after the other, and then blocks.
  const mpirun = path.join(folder, 'mpirun-that-blocks');
  const body =
    'shift 6; for r in 0 1; do OMPI_COMM_WORLD_RANK=$r "$@"; sleep $LATE; done; echo last words; exec sleep 300';
  writeFileSync(mpirun, `#!/bin/sh\n${body}\n`, { mode: 0o755 });
  const heard: string[] = [];
  const start = (script: string, LATE = '0') =>
    launchRanks({
      ranks: 2,
      device: 'cpu',
      command: ['sh', '-c', script],
      environment: { LATE },
      onLine: (_, __, line) => heard.push(line),
    });

  it('are told of by their own words', async () => {
    vi.stubEnv('LIBMOE_MPIRUN', mpirun);
    const [well, failed, killed, late] = await Promise.all([
      start('exit 0'),
      start('exit $((7 * OMPI_COMM_WORLD_RANK))'),
      // The shell around it goes with it, as when mpirun kills a rank.
      start('kill -9 $PPID $$'),
      // Longer than mpirun would get after its last rank.
      start('echo rank $OMPI_COMM_WORLD_RANK is here', '11'),
    ]);
    vi.unstubAllEnvs();
    expect(await well.ended).toEqual({ code: 0 });
    expect(await failed.ended).toEqual({ code: 7, failed: { rank: 1, code: 7 } });
    expect(await killed.ended).toEqual({ code: 137 });
    expect(await late.ended).toEqual({ code: 0 });
    expect(heard).toContain('rank 1 is here');
  }, 90_000);
});

describe('ranks without MPI, as CUDA ranks are started', () => {
  const start = async (script: string, ranks = 3) => {
    const heard: string[] = [];
    const running = await launchRanks({
      ranks,
      device: 'cuda',
      command: ['sh', '-c', script],
      environment: { OWN: 'yes' },
      onLine: (rank, stream, line) => heard.push(`${rank} ${stream} ${line}`),
    });
    return { heard, running };
  };

  it('get the variables of torchrun', async () => {
    const variables = '$RANK/$WORLD_SIZE $LOCAL_RANK/$LOCAL_WORLD_SIZE $MASTER_ADDR:$MASTER_PORT $OWN';
    const { heard, running } = await start(`echo "${variables}"; echo bad >&2`);
    expect(await running.ended).toEqual({ code: 0 });
    const port = /:(\d+) /.exec(heard[0]!)?.[1];
    expect(Number(port)).toBeGreaterThan(1023);
    expect(heard.sort()).toEqual(
      [0, 1, 2].flatMap((rank) => [
        `${rank} stderr bad`,
        `${rank} stdout ${rank}/3 ${rank}/3 127.0.0.1:${port} yes`,
      ]),
    );
  });

  it('all end when one fails, whose code it is', async () => {
    const { running } = await start('[ $RANK = 1 ] && exit 7; exec sleep 60');
    expect(await running.ended).toEqual({ code: 7, failed: { rank: 1, code: 7 } });
  });

  it('all end when one is killed, even those that take no notice', async () => {
    const { heard, running } = await start(
      'if [ $RANK = 2 ]; then kill -9 $$; fi; trap "echo asked" TERM; while :; do sleep 0.2; done',
    );
    expect(await running.ended).toEqual({ code: 137, failed: { rank: 2, code: 137 } });
    expect(heard).toContain('0 stdout asked');
  });

  it('hear of a signal once, and may end in order', async () => {
    const { heard, running } = await start(
      'trap "echo saved; exit 130" INT; echo ready; while :; do sleep 0.1; done',
    );
    while (heard.length < 3) await sleep(20);
    running.signal('SIGINT');
    expect(await running.ended).toEqual({ code: 130 });
    expect(heard.filter((line) => line.endsWith('saved'))).toHaveLength(3);
  });

  it('name a program that cannot be started', async () => {
    const running = await launchRanks({ ranks: 2, device: 'cuda', command: ['/nowhere/x'], onLine() {} });
    await expect(running.ended).rejects.toThrow(/ERR_LIBMOE_FILE: cannot start \/nowhere\/x/);
  });
});

const words = 'one two three four five six seven eight nine ten eleven twelve'.split(' ');
const text = Array.from({ length: 3000 }, (_, i) => {
  const word = words[(i * i + 3 * i) % 13 === 0 ? 0 : (i * 7) % 12];
  return i % 37 === 36 ? `${word}\n\n` : `${word} `;
}).join('');
const corpus = path.join(folder, 'corpus.txt');
writeFileSync(corpus, text);
const recipe = path.join(folder, 'recipe.yaml');
writeFileSync(
  recipe,
  stringify({
    name: 'ranks',
    tokenizer: { train: { vocabularySize: 300, byteFallback: true } },
    data: {
      train: { files: corpus, textDocuments: 'blocks' },
      heldOut: { same: { files: corpus } },
      sequenceLength: 32,
      batchSequences: 8,
      workers: 0,
      cache: path.join(folder, 'cache'),
    },
    model: {
      dModel: 16,
      layers: 2,
      heads: 2,
      feedForward: { hidden: 16 },
      moe: {
        experts: 4,
        topK: 2,
        router: { name: 'shared-v3' },
        shared: { hidden: 16 },
        expert: { hidden: 16 },
      },
    },
    training: { steps: 12, schedule: { name: 'cosine', learningRate: 0.01 }, checkpointEvery: 4 },
    evaluation: { maxTokens: 200 },
  }),
);
const train = (ranks: number, run: string, ...more: string[]) => [
  ...['--nproc', String(ranks), '--device', 'cpu', '--', 'train', recipe, '--set', `strategy.data=${ranks}`],
  ...['--out', path.join(folder, run), ...more],
];
const metrics = (run: string): { step: number; loss: number }[] => {
  const file = path.join(folder, run, 'metrics.jsonl');
  if (!existsSync(file)) return [];
  const whole = readFileSync(file, 'utf8').split('\n').slice(0, -1);
  return whole.map((line) => JSON.parse(line) as { step: number; loss: number });
};
const checkpoints = (run: string): string[] => readdirSync(path.join(folder, run, 'checkpoints'));
const single = { env: { LIBMOE_THREADS: '1' } };

async function until(condition: () => boolean): Promise<void> {
  const end = Date.now() + 240_000;
  while (!condition()) {
    if (Date.now() > end) throw new Error('waited four minutes in vain');
    await sleep(20);
  }
}

withMpi('ranks that MPI connects', { timeout: 300_000 }, () => {
  it('print with their number, share the cores, and end with the first that failed', async () => {
    const ranks = ['--nproc', '4', '--device', 'cpu', '--'];
    const script =
      'echo "rank $OMPI_COMM_WORLD_RANK"; [ $OMPI_COMM_WORLD_RANK = 2 ] && exit 9; exec sleep 60';
    const { code, stdout, stderr } = await launch([...ranks, 'sh', '-c', script], single);
    expect(code).toBe(9);
    expect(stderr).toContain('rank 2 failed with exit code 9, the other ranks were ended');
    expect(stderr).not.toContain('mpirun detected');
    expect(linesOf(stdout, 3)).toEqual(['rank 3']);
    const json = await launch(['--json', ...ranks, 'sh', '-c', 'echo $LIBMOE_THREADS']);
    expect(JSON.parse(json.stdout)).toMatchObject({ ranks: 4, device: 'cpu', exitCode: 0, failed: null });
    expect(linesOf(json.stderr, 0)[0]).toMatch(/^\d+$/);
  });

  it('say what is wrong with a recipe for another number of ranks', async () => {
    const args = [
      '--nproc',
      '2',
      '--device',
      'cpu',
      '--',
      'train',
      recipe,
      '--out',
      path.join(folder, 'wrong'),
    ];
    const { code, stderr } = await launch(args, single);
    expect(code).toBe(2);
    expect(stderr).toMatch(
      /ERR_LIBMOE_CONFIG: the recipe trains on 1 rank \(strategy.data\), and this is rank \d of 2 from openmpi: --set strategy.data=2/,
    );
    const alone = await libmoe(['train', recipe, '--set', 'strategy.data=2'], single);
    expect(alone.stderr).toMatch(
      /ERR_LIBMOE_CONFIG: .*this is one process: start it with "libmoe launch --nproc 2/,
    );
    expect(alone.code).toBe(2);
  });

  it('give the same curve on 1, 2 and 4 ranks in a script: dense, smoe, sigmoid, shared-v3, remoe', async () => {
    const script = path.join(folder, 'curves.ts');
    writeFileSync(
      script,
      `import { data, dataParallel, initProcessGroup, LanguageModel, optim, schedules, train } from 'libmoe';
      const tokens = Int32Array.from({ length: 3000 }, (_, i) => (i * i * 7 + 3 * i) % 61);
      const documentOffsets = [0];
      for (let i = 1; documentOffsets.at(-1)! < 3000; i += 1)
        documentOffsets.push(Math.min(3000, documentOffsets.at(-1)! + 5 + ((i * 13) % 37)));
      const group = await initProcessGroup();
      const { rank, worldSize: world } = group;
      const routers = ['', 'smoe', 'sigmoid', 'shared-v3', 'remoe'];
      for (const name of routers) {
        const expert = { hidden: 16 };
        const model = new LanguageModel({
          vocabularySize: 64, dModel: 24, layers: 2, heads: 2, feedForward: { hidden: 32 },
          ...(name && { moe: { experts: 4, topK: 2, router: { name }, expert, ...(name === 'shared-v3' && { shared: expert }) } }),
        }, { seed: 3 });
        const optimizer = optim.optimizer(model.namedParameters(), { name: 'adamw' });
        const losses: number[] = [];
        for await (const step of train(model, {
          data: new data.PackedLoader(data.tokenDataset(tokens, { documentOffsets }), {
            sequenceLength: 24, batchSequences: 8, splitAtDocuments: true, rank, world,
          }),
          optimizer, schedule: schedules.schedule({ name: 'constant', learningRate: 0.003 }, 8), steps: 8, clipNorm: 1,
          strategy: dataParallel(group, { bucketBytes: 4096 }),
        })) losses.push(step.loss);
        console.log('curve ' + JSON.stringify({ name, losses }));
        optimizer.dispose();
        model.dispose();
      }
      await group.dispose();
      `,
    );
    const curves = async (ranks: number): Promise<Map<string, number[]>[]> => {
      const args = ['--nproc', String(ranks), '--device', 'cpu', '--', 'libmoe', 'run', script];
      const { code, stdout, stderr } = await launch(args, single);
      expect(code, stderr).toBe(0);
      return Array.from({ length: ranks }, (_, rank) => {
        const found = linesOf(stdout, rank).filter((line) => line.startsWith('curve '));
        const parsed = found.map((line) => JSON.parse(line.slice(6)) as { name: string; losses: number[] });
        return new Map(parsed.map(({ name, losses }) => [name, losses]));
      });
    };
    const [alone] = await curves(1);
    expect([...alone!.keys()]).toEqual(['', 'smoe', 'sigmoid', 'shared-v3', 'remoe']);
    for (const ranks of [2, 4]) {
      const all = await curves(ranks);
      for (const [name, losses] of alone!) {
        expect(losses).toHaveLength(8);
        for (const rank of all) expect(rank.get(name)).toEqual(all[0]!.get(name));
        for (const [i, loss] of losses.entries())
          expect(Math.abs(all[0]!.get(name)![i]! - loss), `${name || 'dense'}, step ${i + 1}`).toBeLessThan(
            1e-5,
          );
      }
    }
  }, 600_000);

  it('train a recipe on 2 ranks, are interrupted, and go on on 1 and on 4', async () => {
    const whole = await libmoe(['train', recipe, '--out', path.join(folder, 'whole')], single);
    expect(whole.code, whole.stderr).toBe(0);
    const first = await launch(train(2, 'sizes'), {
      ...single,
      during(child) {
        void until(() => metrics('sizes').length >= 2).then(() => child.kill('SIGINT'));
      },
    });
    expect(first.code, first.stderr).toBe(130);
    expect(first.stderr).not.toContain('ERR_');
    expect(linesOf(first.stdout, 0).join('\n')).toMatch(
      /go on with: libmoe launch --nproc 2 -- train .* --resume/,
    );
    expect(linesOf(first.stdout, 1)).toEqual([]);
    const stopped = metrics('sizes').at(-1)!.step;
    expect(stopped).toBeLessThan(12);
    expect(checkpoints('sizes')).toContain(`step-${String(stopped).padStart(6, '0')}`);
    const next = Math.min(11, stopped + 1);
    const second = await libmoe(['train', recipe, '--out', path.join(folder, 'sizes'), '--resume'], {
      ...single,
      during(child) {
        void until(() => metrics('sizes').length >= next).then(() => child.kill('SIGINT'));
      },
    });
    expect([0, 130]).toContain(second.code);
    const third = await launch(train(4, 'sizes', '--resume'), single);
    expect(third.code, third.stderr).toBe(0);
    const losses = metrics('sizes').map(({ loss }) => loss);
    expect(losses).toHaveLength(12);
    for (const [i, { loss }] of metrics('whole').entries())
      expect(Math.abs(losses[i]! - loss)).toBeLessThan(1e-5);
    expect(existsSync(path.join(folder, 'sizes/eval/final/results.json'))).toBe(true);
  }, 600_000);

  it('all end when one is killed, with whole checkpoints, and go on', async () => {
    const long = ['--set', 'training.steps=4000'];
    const killed = await launch(train(2, 'killed', ...long), {
      ...single,
      during(child) {
        void until(() => metrics('killed').length >= 6).then(() => {
          const ranks = spawnSync('pgrep', [
            '-f',
            `^\\S*node .*main.js train .*${path.join(folder, 'killed')}`,
          ]);
          const pids = ranks.stdout.toString().split('\n').filter(Boolean).map(Number);
          process.kill(pids.filter((pid) => pid !== child.pid).at(-1)!, 'SIGKILL');
        });
      },
    });
    expect(killed.code, killed.stderr).toBe(137);
    expect(killed.stderr).toMatch(
      /ERR_LIBMOE_COLLECTIVE: rank \d was ended by signal 9, the other ranks were ended/,
    );
    const found = checkpoints('killed').filter((name) => name.startsWith('step-'));
    expect(found.length).toBeGreaterThan(0);
    for (const name of found) verifyFolder(path.join(folder, 'killed/checkpoints', name));
    const before = metrics('killed').at(-1)!.step;
    const again = await launch(train(2, 'killed', '--resume', ...long), {
      ...single,
      during(child) {
        void until(() => (metrics('killed').at(-1)?.step ?? 0) > before).then(() => child.kill('SIGTERM'));
      },
    });
    expect(again.code, again.stderr).toBe(130);
    const done = metrics('killed').map(({ step }) => step);
    expect(done).toEqual(done.map((_, i) => i + 1));
  }, 600_000);
});
