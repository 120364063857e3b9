import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it, vi } from 'vitest';
import type { TokenBatch } from '../../ts/data/batch.ts';
import { memory } from '../../ts/tensor/index.ts';
import {
  type Callback,
  checkpointEvery,
  type OptimizerOptions,
  optimizer,
  type StepReport,
  schedule,
  type TrainingSummary,
  type TrainOptions,
  tokenBatches,
  train,
} from '../../ts/training/index.ts';
import { temporaryFolder } from '../storage/temporary.ts';
import { Toy, ToyData } from './toy.ts';

const root = temporaryFolder();

interface Outcome {
  reports: StepReport[];
  summary: TrainingSummary;
  toy: Toy;
}

/** Trains a toy, iterating by hand so that the summary is seen too; frees everything. */
async function run(
  options: Partial<TrainOptions> = {},
  inside?: (report: StepReport, stop: () => void) => void,
  optimizerOptions: OptimizerOptions = { name: 'adamw' },
  toy = new Toy(),
): Promise<Outcome> {
  const steps = options.steps ?? 6;
  const adam = optimizer(toy.namedParameters(), optimizerOptions);
  try {
    const training = train(toy, {
      data: new ToyData(),
      optimizer: adam,
      schedule: schedule({ name: 'constant', learningRate: 0.01 }, Math.max(1, steps)),
      steps,
      ...options,
    });
    const reports: StepReport[] = [];
    for (;;) {
      const next = await training.next();
      if (next.done) return { reports, summary: next.value, toy };
      reports.push(next.value);
      inside?.(next.value, training.stop);
    }
  } finally {
    adam.dispose();
    toy.dispose();
  }
}

describe('train', () => {
  it('lowers the loss and reports every step', async () => {
    const { reports, summary, toy } = await run({ steps: 40 });
    expect(summary).toEqual({ step: 40, tokens: 40 * 64, completed: true });
    expect(reports.map(({ step }) => step)).toEqual(Array.from({ length: 40 }, (_, i) => i + 1));
    expect(reports.at(-1)!.crossEntropy).toBeLessThan(0.8 * reports[0]!.crossEntropy);
    for (const report of reports) {
      expect(report.loss).toBeCloseTo(report.crossEntropy + 0.01 * report.balanceLoss, 12);
      expect(report.balanceLoss).toBeGreaterThan(0);
      expect(report.gradNorm).toBeGreaterThan(0);
      expect(report.tokens).toBe(report.step * 64);
      expect(report.learningRate).toBe(0.01);
    }
    expect(toy.seen).toEqual(reports.map(({ step }) => step));
  });

  it('leaves no tensor behind', async () => {
    const before = memory().tensors;
    await run({ microBatches: 2 });
    expect(memory().tensors).toBe(before);
  });

  it('accumulates micro-batches to the gradient of the whole batch', async () => {
    const whole = await run({ steps: 3 });
    for (const microBatches of [2, 3, 4, 9]) {
      const parts = await run({ steps: 3, microBatches });
      for (const [i, report] of parts.reports.entries()) {
        expect(report.loss).toBeCloseTo(whole.reports[i]!.loss, 5);
        expect(report.gradNorm).toBeCloseTo(whole.reports[i]!.gradNorm, 5);
      }
    }
  });

  it('weights micro-batches by their counted tokens', async () => {
    const data = new ToyData();
    const masked = {
      state: () => data.state(),
      restore: (state: never) => data.restore(state),
      next: (): TokenBatch => {
        const batch = data.next();
        // The first sequence counts not at all, the second by half.
        const targets = batch.targets.map((target, i) => (i < 24 ? -1 : target));
        return { ...batch, targets };
      },
    };
    const weights: number[] = [];
    const toy = new Toy();
    const loss = toy.loss.bind(toy);
    toy.loss = (batch, context) => {
      weights.push(tokenBatches.targets(batch));
      return loss({ ...batch, targets: batch.targets.map((target) => Math.max(0, target)) }, context);
    };
    const { reports } = await run({ steps: 1, microBatches: 4, data: masked }, undefined, undefined, toy);
    expect(weights).toEqual([8, 16, 16]);
    expect(reports[0]!.tokens).toBe(64);
  });

  it('clips the global norm', async () => {
    const sgd: OptimizerOptions = { name: 'sgd' };
    const toy = new Toy();
    const before = toy.parameters().map((p) => p.toArray());
    let moved = 0;
    await run(
      { steps: 1, clipNorm: 1e-3 },
      () => {
        for (const [i, p] of toy.parameters().entries()) {
          for (const [j, value] of p.toArray().entries()) moved += (value - before[i]![j]!) ** 2;
        }
      },
      sgd,
      toy,
    );
    // Learning rate 0.01 times a gradient of norm 0.001.
    expect(Math.sqrt(moved)).toBeCloseTo(1e-5, 7);
  });

  it('gives the same bits on one thread and on two', async () => {
    const { setThreads, threads } = await import('../../ts/tensor/index.ts');
    const before = threads();
    try {
      const results: number[][] = [];
      for (const count of [1, 2]) {
        setThreads(count);
        results.push((await run({ steps: 8 })).reports.flatMap(({ loss, gradNorm }) => [loss, gradNorm]));
      }
      expect(results[0]).toEqual(results[1]);
    } finally {
      setThreads(before);
    }
  });

  it('lets timers run in the middle of a step', async () => {
    let ticks = 0;
    const timer = setInterval(() => {
      ticks += 1;
    }, 0);
    await run({ steps: 30 });
    clearInterval(timer);
    expect(ticks).toBeGreaterThan(5);
  });

  it('calls callbacks in their order, and closes them whatever happens', async () => {
    const calls: string[] = [];
    const recorder = (name: string, failing = false): Callback => ({
      name,
      onStart: (at) => void calls.push(`${name} start ${at.step}`),
      onStep: (report) => {
        calls.push(`${name} step ${report.step}`);
        if (failing) throw new Error('enough');
      },
      onEnd: (summary) => void calls.push(`${name} end ${summary.completed}`),
      close: () => void calls.push(`${name} close`),
    });
    await run({ steps: 1, callbacks: [recorder('a'), recorder('b')] });
    const order = [
      'a start 0',
      'b start 0',
      'a step 1',
      'b step 1',
      'a end true',
      'b end true',
      'a close',
      'b close',
    ];
    expect(calls).toEqual(order);
    calls.length = 0;
    await expect(run({ callbacks: [recorder('a', true), recorder('b')] })).rejects.toThrow('enough');
    expect(calls).toEqual(['a start 0', 'b start 0', 'a step 1', 'a close', 'b close']);
  });

  it('is closed when the caller breaks out', async () => {
    const toy = new Toy();
    const adam = optimizer(toy.namedParameters(), { name: 'adamw' });
    let closed = 0;
    const rate = schedule({ name: 'constant', learningRate: 0.01 }, 9);
    const close = () => {
      closed += 1;
    };
    const callbacks = [{ name: 'c', close }];
    for await (const report of train(toy, {
      data: new ToyData(),
      optimizer: adam,
      schedule: rate,
      steps: 9,
      callbacks,
    })) {
      if (report.step === 2) break;
    }
    expect([closed, toy.seen.length]).toEqual([1, 2]);
    adam.dispose();
    toy.dispose();
  });

  it('ends when a callback says that it is done', async () => {
    const enough: Callback = {
      name: 'enough',
      onStep({ loss, step }, at) {
        if (step === 2) at.finish(`a loss of ${loss > 0 ? 'more than' : ''} 0`);
      },
    };
    const out = join(root, 'finished');
    const { reports, summary } = await run({ steps: 5, out, callbacks: [enough] });
    expect(reports).toHaveLength(2);
    expect(summary).toEqual({
      step: 2,
      tokens: 128,
      completed: true,
      endedEarly: 'a loss of more than 0',
      checkpoint: join(out, 'checkpoints/step-000002'),
    });
  });
});

describe('a stop', () => {
  it.each(['signal', 'method'])('by %s finishes the step, writes a checkpoint and ends', async (how) => {
    const out = join(root, how);
    const controller = new AbortController();
    const { reports, summary } = await run({ steps: 9, out, signal: controller.signal }, (report, stop) => {
      if (report.step === 3) how === 'signal' ? controller.abort() : stop();
    });
    expect(reports).toHaveLength(3);
    expect(summary).toEqual({
      step: 3,
      tokens: 192,
      completed: false,
      checkpoint: join(out, 'checkpoints/step-000003'),
    });
    expect(existsSync(join(summary.checkpoint!, 'checksums.json'))).toBe(true);
  });

  it('before the first step does nothing', async () => {
    const { reports, summary } = await run({ signal: AbortSignal.abort(), out: join(root, 'never') });
    expect([reports.length, summary.step, existsSync(join(root, 'never'))]).toEqual([0, 0, false]);
  });
});

describe('the guard against NaN', () => {
  /** Runs until it throws; returns the message and the values before and after the bad step. */
  async function poisoned(poison: (toy: Toy) => void, message: RegExp): Promise<void> {
    const toy = new Toy();
    const snapshot = () => toy.parameters().map((p) => Array.from(p.readSync() as Float32Array));
    let before: number[][] = [];
    let after: number[][] = [];
    const close = () => {
      after = snapshot();
    };
    const callback: Callback = { name: 'snapshot', close };
    const training = run(
      { callbacks: [callback] },
      ({ step }) => {
        if (step !== 2) return;
        poison(toy);
        before = snapshot();
      },
      undefined,
      toy,
    );
    await expect(training).rejects.toThrow(message);
    await expect(training).rejects.toMatchObject({ code: 'ERR_LIBMOE_NOT_FINITE' });
    expect(after).toEqual(before);
    expect(toy.seen).toEqual([1, 2]);
  }

  it('names the step and the parameter that is broken', async () => {
    await poisoned((toy) => {
      const values = toy.output.readSync() as Float32Array;
      values.fill(Number.NaN);
      toy.output.write(values);
    }, /step 3: parameter output holds a NaN/);
  });

  it('names the auxiliary loss and its layer', async () => {
    await poisoned((toy) => {
      const values = toy.gate.readSync() as Float32Array;
      values[0] = 1e30; // its square is beyond f32
      toy.gate.write(values);
    }, /step 3: the balance loss of layer gate is Infinity/);
  });

  it('names the parameter at which gradients broke', async () => {
    await poisoned((toy) => {
      const loss = toy.loss.bind(toy);
      toy.loss = (batch, context) => {
        const value = loss(batch, context);
        toy.output.onGradReady = (leaf) => leaf.grad!.write(new Float32Array(leaf.size).fill(Number.NaN));
        return value;
      };
    }, /step 3: the loss is finite, but the gradient of output is not/);
  });
});

describe('bad options', () => {
  it.each([
    [{ steps: 0 }, 'steps must be a positive integer'],
    [{ microBatches: 1.5 }, 'microBatches'],
    [{ clipNorm: 0 }, 'clipNorm'],
    [{ seed: -1 }, 'seed'],
    [{ callbacks: [{ name: 'a' }, { name: 'a' }] }, 'two callbacks are named "a"'],
    [{ out: join(root, 'half'), saveModel() {} }, 'give both saveModel and loadModel'],
  ])('%j', async (options, message) => {
    await expect(run({ steps: 2, ...options })).rejects.toThrow(message);
  });

  it('several ranks that nothing brings together', async () => {
    vi.stubEnv('WORLD_SIZE', '2').stubEnv('RANK', '1');
    await expect(run()).rejects.toThrow('ERR_LIBMOE_UNSUPPORTED');
    vi.unstubAllEnvs();
  });

  it('a checkpoint without a folder', async () => {
    await expect(run({ callbacks: [checkpointEvery(2)] })).rejects.toThrow(
      'ERR_LIBMOE_STATE: there is no folder',
    );
  });

  it('a batch in which nothing counts', async () => {
    const data = new ToyData();
    const next = data.next.bind(data);
    data.next = () => ({ ...next(), targets: new Int32Array(64).fill(-1) });
    await expect(run({ data })).rejects.toThrow('ERR_LIBMOE_DATA: the batch of step 1 has no token');
  });
});
