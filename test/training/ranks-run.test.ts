import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { PackedLoader, tokenDataset } from '../../ts/data/index.ts';
import type { ProcessGroup } from '../../ts/distributed/index.ts';
import { LanguageModel } from '../../ts/models/language/index.ts';
import { multiply } from '../../ts/tensor/elementwise.ts';
import { parameter, scope, setThreads, type Tensor, tensor, threads } from '../../ts/tensor/index.ts';
import { randn } from '../../ts/tensor/random.ts';
import { sum } from '../../ts/tensor/reduction.ts';
import {
  type Callback,
  checkpointEvery,
  dataParallel,
  evaluateDuring,
  listCheckpoints,
  metricsLogger,
  namedCheckpoint,
  optimizer,
  type StepReport,
  schedule,
  single,
  type TrainingSummary,
  type TrainOptions,
  train,
} from '../../ts/training/index.ts';
import { leaveToCollector } from '../collected.ts';
import { tinyConfig } from '../models/tiny.ts';
import { temporaryFolder } from '../storage/temporary.ts';
import { all, onRanks } from './ranks.ts';

leaveToCollector();
const before = threads();
beforeAll(() => setThreads(1));
afterAll(() => setThreads(before));

const root = temporaryFolder();
const steps = 8;
const tokens = Int32Array.from({ length: 3000 }, (_, i) => (i * i * 7 + 3 * i) % 61);

interface Outcome {
  reports: StepReport[];
  summary: TrainingSummary;
  weights: number[];
}

/** Changes to the training of one rank. */
type Changes = Partial<TrainOptions> & {
  seed?: number;
  onReport?: (report: StepReport, stop: () => void) => void;
};

async function session(
  group: ProcessGroup | undefined,
  { onReport, ...changes }: Changes = {},
  prepare: (model: LanguageModel) => void = () => {},
): Promise<Outcome> {
  const { rank = 0, worldSize: world = 1 } = group ?? {};
  using model = new LanguageModel(
    {
      ...tinyConfig,
      vocabularySize: 64,
      layers: 2,
      moe: {
        experts: 4,
        topK: 2,
        router: { name: 'shared-v3', biasUpdate: 0.05 },
        shared: { hidden: 8 },
        expert: { hidden: 8 },
      },
    },
    { seed: 1, dtype: 'f64' },
  );
  prepare(model);
  const adam = optimizer(model.namedParameters(), { name: 'adamw' });
  try {
    const training = train(model, {
      data: new PackedLoader(tokenDataset(tokens), { sequenceLength: 16, batchSequences: 8, rank, world }),
      optimizer: adam,
      schedule: schedule({ name: 'cosine', learningRate: 0.01 }, steps),
      steps,
      strategy: group ? dataParallel(group) : single(),
      warn: () => {},
      ...changes,
    });
    const reports: StepReport[] = [];
    for (;;) {
      const step = await training.next();
      if (step.done)
        return {
          reports,
          summary: step.value,
          weights: [...model.parameters(), ...model.namedBuffers().values()].flatMap((p) => p.toArray()),
        };
      reports.push(step.value);
      onReport?.(step.value, () => training.stop());
    }
  } finally {
    adam.dispose();
  }
}

const near = (is: readonly number[], was: readonly number[]) => {
  expect(is.length).toBe(was.length);
  for (const [i, value] of was.entries()) expect(Math.abs(is[i]! - value)).toBeLessThan(1e-9);
};
const lossesOf = ({ reports }: Outcome): number[] => reports.map(({ loss }) => loss);
const reasons = (results: readonly PromiseSettledResult<unknown>[]): string[] =>
  results.map((result) => (result.status === 'rejected' ? String(result.reason) : 'fine'));

describe('a data-parallel run', () => {
  it('goes on from 2 ranks to 1 to 4, as if it had never stopped', async () => {
    const whole = await session(undefined);
    const out = join(root, 'sizes');
    const until = (last: number): Changes => ({
      out,
      resume: true,
      onReport: ({ step }, stop) => {
        if (step === last) stop();
      },
    });
    const first = all(await onRanks(2, (group) => session(group, until(3))));
    expect(first.map(({ summary }) => summary.step)).toEqual([3, 3]);
    const second = await session(undefined, until(5));
    const third = all(await onRanks(4, (group) => session(group, until(steps))));
    near([...lossesOf(first[0]!), ...lossesOf(second), ...lossesOf(third[0]!)], lossesOf(whole));
    near(third[3]!.weights, whole.weights);
    const { worldSize } = JSON.parse(
      readFileSync(join(listCheckpoints(join(out, 'checkpoints'))[0]!.path, 'trainer.json'), 'utf8'),
    ) as { worldSize: number };
    expect(worldSize).toBe(4);
  });

  it('stops on all ranks after the same step when one is asked to, with one checkpoint', async () => {
    const out = join(root, 'stopped');
    const ranks = all(
      await onRanks(4, (group) =>
        session(group, {
          out,
          onReport: ({ step }, stop) => {
            if (group.rank === 2 && step === 4) stop();
          },
        }),
      ),
    );
    for (const { summary } of ranks)
      expect(summary).toEqual({
        step: 4,
        tokens: 4 * 128,
        completed: false,
        checkpoint: join(out, 'checkpoints', 'step-000004'),
      });
    expect(listCheckpoints(join(out, 'checkpoints')).map(({ step }) => step)).toEqual([4]);
  });

  it('ends early on all ranks after the same step, with the best checkpoint', async () => {
    const out = join(root, 'early');
    const during = () =>
      evaluateDuring({
        every: 1,
        evaluate: ({ step }) => ({ loss: Math.abs(step - 2) }),
        best: { metric: 'loss', higherIsBetter: false },
        earlyStopping: { patience: 2 },
      });
    const run = () =>
      onRanks(2, (group) =>
        session(group, { out, resume: true, retention: { keepLast: 1 }, callbacks: [during()] }),
      ).then(all);
    const ranks = await run();
    const reason = 'loss has not become better than 0 of step 2 in 2 evaluations, up to step 4';
    const ended = { step: 4, tokens: 4 * 128, completed: true };
    const checkpoint = join(out, 'checkpoints', 'step-000004');
    expect(ranks.map(({ summary }) => summary)).toEqual([
      { ...ended, endedEarly: reason, checkpoint },
      { ...ended, checkpoint },
    ]);
    expect(ranks[1]!.weights).toEqual(ranks[0]!.weights);
    expect(namedCheckpoint(join(out, 'checkpoints'), 'best')?.step).toBe(2);
    expect(listCheckpoints(join(out, 'checkpoints')).map(({ step }) => step)).toEqual([4, 2]);
    const again = await run();
    expect(again.map(({ reports, summary }) => [reports.length, summary.completed])).toEqual([
      [0, true],
      [0, true],
    ]);
  });

  it('runs callbacks on rank 0 alone, and the others wait for them', async () => {
    const out = join(root, 'callbacks');
    const heard: string[] = [];
    let working = false;
    const slow = (rank: number): Callback => ({
      name: 'slow',
      async onStep({ step }) {
        heard.push(`${rank}: ${step}`);
        working = true;
        await sleep(30);
        working = false;
      },
    });
    await onRanks(2, (group) =>
      session(group, {
        out,
        steps: 3,
        callbacks: [slow(group.rank), metricsLogger(join(out, 'metrics.jsonl')), checkpointEvery(2)],
        onReport: () => expect(working).toBe(false),
      }),
    ).then(all);
    expect(heard).toEqual(['0: 1', '0: 2', '0: 3']);
    const lines = readFileSync(join(out, 'metrics.jsonl'), 'utf8').trim().split('\n');
    expect(lines.map((line) => (JSON.parse(line) as { tokens: number }).tokens)).toEqual([128, 256, 384]);
    expect(listCheckpoints(join(out, 'checkpoints')).map(({ step }) => step)).toEqual([3, 2]);
  });

  it('ends on every rank when a callback of rank 0 fails', async () => {
    const failing: Callback = {
      name: 'failing',
      onStep() {
        throw new Error('the disk is full');
      },
    };
    expect(reasons(await onRanks(2, (group) => session(group, { callbacks: [failing] })))).toEqual([
      expect.stringContaining('the disk is full'),
      expect.stringMatching(/ERR_LIBMOE_COLLECTIVE: rank 0 failed between two steps/),
    ]);
  });

  it('names the rank whose loss is not finite, and applies nothing', async () => {
    const broken = (rank: number) => (model: LanguageModel) => {
      // Only token 63 has a broken vector, and only rank 1 meets it.
      const { embedding } = model;
      const values = embedding.weight.toArray();
      values.fill(Number.NaN, 63 * 24, 64 * 24);
      embedding.weight.write(values);
      expect(rank).toBeLessThan(2);
    };
    const results = await onRanks(2, (group) => {
      const data = {
        next: () => ({
          ids: Int32Array.from({ length: 32 }, (_, i) => (group.rank === 1 && i === 5 ? 63 : i)),
          targets: Int32Array.from({ length: 32 }, (_, i) => i + 1),
          sequenceOffsets: Int32Array.from([0, 16, 32]),
        }),
        state: () => null,
        restore() {},
      };
      return session(group, { data }, broken(group.rank));
    });
    const [first, second] = reasons(results);
    expect(second).toMatch(/ERR_LIBMOE_NOT_FINITE: step 1 on rank 1: parameter .*embedding.* holds a NaN/);
    expect(first).toMatch(/rank 1/);
  });

  it('refuses ranks with different models, loaders of other parts, and folders that only one sees', async () => {
    const models = await onRanks(3, async (group) => {
      const strategy = dataParallel(group);
      using weight = parameter(tensor([1, 2, 3]));
      using bias = parameter(tensor([1]));
      await strategy.share(
        new Map<string, Tensor>(
          group.rank === 2
            ? [
                ['weight', weight],
                ['bias', bias],
              ]
            : [['weight', weight]],
        ),
      );
    });
    expect(reasons(models)[0]).toMatch(/ERR_LIBMOE_CONFIG: .*rank 2 are not those of rank 0/);
    const loaders = await onRanks(2, (group) =>
      session(group, {
        data: new PackedLoader(tokenDataset(tokens), { sequenceLength: 16, batchSequences: 8 }),
      }),
    );
    expect(reasons(loaders)[1]).toMatch(
      /ERR_LIBMOE_CONFIG: train: the loader gives part 0 of 1 of each batch, this is rank 1 of 2/,
    );
    const one = join(root, 'one-sees');
    await session(undefined, { out: one, steps: 2 });
    const folders = await onRanks(2, (group) =>
      session(group, { out: group.rank === 0 ? one : join(root, 'nothing-here'), resume: true }),
    );
    for (const reason of reasons(folders))
      expect(reason).toMatch(
        /ERR_LIBMOE_CHECKPOINT: .*rank 0 finds .* step 2 and rank 1 that of step 0.*share/,
      );
    expect(() => dataParallel({ rank: 0, worldSize: 1 } as ProcessGroup, { bucketBytes: 0 })).toThrow(
      'ERR_LIBMOE_ARGUMENT',
    );
  });

  it('begins with the values of rank 0', async () => {
    const values = await onRanks(3, async (group) => {
      using weight = parameter(randn([40], { seed: 10 + group.rank }));
      using count = tensor(Int32Array.from([group.rank + 1]));
      await dataParallel(group).share(
        new Map([
          ['weight', weight],
          ['count', count],
        ]),
      );
      return [...weight.toArray(), ...count.toArray()];
    }).then(all);
    expect(values[1]).toEqual(values[0]);
    expect(values[2]).toEqual(values[0]);
    expect(values[0]!.at(-1)).toBe(1);
  });

  it('sends a bucket while backward still runs, and knows parameters that some or all ranks left out', async () => {
    const seen = await onRanks(2, async (group) => {
      const names = ['unused', 'a', 'b', 'c'];
      const parameters = new Map(names.map((name, i) => [name, parameter(tensor([i, 2]))] as const));
      const [unused, a, b, c] = names.map((name) => parameters.get(name)!) as [
        Tensor,
        Tensor,
        Tensor,
        Tensor,
      ];
      const sent: string[] = [];
      const watching: ProcessGroup = {
        ...group,
        allReduce(t, op) {
          sent.push(a.grad ? 'the gradient of a is there' : 'a has none yet');
          return group.allReduce(t, op);
        },
      };
      const strategy = dataParallel(watching, { bucketBytes: 1 });
      try {
        const done = strategy.watchGradients(parameters);
        // c is used on rank 1 alone.
        scope(() => {
          const product = multiply(a, b);
          (group.rank === 1 ? sum(multiply(product, c)) : sum(product)).backward();
        });
        done(true);
        const during = sent.length;
        await strategy.reduceGradients(parameters);
        expect(parameters.get('a')!.onGradReady).toBeUndefined();
        return { during, sent, gradients: [a, b, c, unused].map((p) => p.grad?.toArray()) };
      } finally {
        for (const p of parameters.values()) {
          p.grad?.dispose();
          p.dispose();
        }
      }
    }).then(all);
    // a, b, c are [1, 2], [2, 2], [3, 2]; the loss is Σ a b on rank 0 and Σ a b c on rank 1.
    expect(seen[0]!.gradients).toEqual([
      [2 + 2 * 3, 2 + 2 * 2],
      [1 + 1 * 3, 2 + 2 * 2],
      [1 * 2, 2 * 2],
      undefined,
    ]);
    expect(seen[1]!.gradients).toEqual(seen[0]!.gradients);
    // Rank 1 sends c before backward has come to a; rank 0, which waits for a gradient of c that never comes, only afterwards.
    expect(seen[1]!.sent[0]).toBe('a has none yet');
    expect(seen.map(({ during }) => during)).toEqual([0, 3]);
    expect(seen[0]!.sent).toHaveLength(4);
  });
});
