import {
  appendFileSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { hostname } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { readJournal } from '../../ts/storage/index.ts';
import { type Dtype, setThreads, threads } from '../../ts/tensor/index.ts';
import {
  type Callback,
  checkpointEvery,
  metricsLogger,
  optimizer,
  type StepReport,
  schedule,
  type TrainOptions,
  tensorboardLogger,
  train,
} from '../../ts/training/index.ts';
import { temporaryFolder } from '../storage/temporary.ts';
import { Toy, ToyData } from './toy.ts';

const root = temporaryFolder();
const steps = 12;
let runs = 0;
const newRun = () => join(root, `run${runs++}`);

/** One process' worth of training: everything is made anew, so that only the folder connects two calls. */
async function session(out: string, options: Partial<TrainOptions> & { until?: number; dtype?: Dtype } = {}) {
  const { until, dtype = 'f32', callbacks = [], ...rest } = options;
  const toy = new Toy(dtype);
  const adam = optimizer(toy.namedParameters(), { name: 'adamw' });
  const reports: StepReport[] = [];
  try {
    for await (const report of train(toy, {
      data: new ToyData(),
      optimizer: adam,
      schedule: schedule({ name: 'cosine', learningRate: 0.02, warmupSteps: 3 }, steps),
      steps,
      clipNorm: 0.5,
      out,
      callbacks: [
        metricsLogger(join(out, 'metrics.jsonl')),
        tensorboardLogger(out),
        checkpointEvery(4),
        ...callbacks,
      ],
      ...rest,
    })) {
      reports.push(report);
      if (report.step === until) break; // as a crash would: no checkpoint is written here
    }
    return { reports, weights: toy.parameters().map((p) => p.readSync()) };
  } finally {
    adam.dispose();
    toy.dispose();
  }
}

const bits = (reports: StepReport[]) =>
  reports.map(({ step, loss, gradNorm, tokens }) => [step, loss, gradNorm, tokens]);
const host = hostname().replace(/[^A-Za-z0-9]/g, '') || 'host';
/** No process has this id: Linux gives at most 2^22. */
const nobody = 2 ** 22 + 12345;
const checkpoints = (out: string) => readdirSync(join(out, 'checkpoints')).sort();

describe('resume', () => {
  it.each(['f32', 'bf16'] as const)('repeats an undisturbed run bit for bit (%s)', async (dtype) => {
    const straight = await session(newRun(), { dtype });
    const out = newRun();
    await session(out, { dtype, until: 7 });
    const second = await session(out, { dtype, resume: true, until: 10 });
    expect(second.reports[0]!.step).toBe(5);
    const third = await session(out, { dtype, resume: true });
    expect(bits([...second.reports, ...third.reports].filter((_, i) => i < 4 || i >= 6))).toEqual(
      bits(straight.reports.slice(4)),
    );
    expect(third.weights).toEqual(straight.weights);
    const logged = readJournal(join(out, 'metrics.jsonl'));
    expect(logged.map(({ step, loss }) => [step, loss])).toEqual(
      straight.reports.map(({ step, loss }) => [step, loss]),
    );
  });

  it('goes on with another number of threads', async () => {
    const before = threads();
    try {
      setThreads(2);
      const straight = await session(newRun());
      const out = newRun();
      await session(out, { until: 6 });
      setThreads(1);
      const rest = await session(out, { resume: true });
      expect(bits(rest.reports)).toEqual(bits(straight.reports.slice(4)));
    } finally {
      setThreads(before);
    }
  });

  it('writes the folder of the contract and keeps the last two', async () => {
    const out = newRun();
    const { reports } = await session(out);
    expect(reports).toHaveLength(steps);
    expect(checkpoints(out)).toEqual(['latest', 'step-000008', 'step-000012']);
    expect(readFileSync(join(out, 'checkpoints/latest'), 'utf8')).toBe('step-000012\n');
    expect(readdirSync(join(out, 'checkpoints/step-000012')).sort()).toEqual([
      'checksums.json',
      'loader.json',
      'model.safetensors',
      'optimizer-00000.safetensors',
      'rng.json',
      'trainer.json',
    ]);
  });

  it('keeps every so many for ever', async () => {
    const out = newRun();
    await session(out, { retention: { keepLast: 1, keepEvery: 4 } });
    expect(checkpoints(out)).toEqual(['latest', 'step-000004', 'step-000008', 'step-000012']);
    const one = newRun();
    await session(one, { retention: { keepLast: 1 } });
    expect(checkpoints(one)).toEqual(['latest', 'step-000012']);
  });

  it('falls back to the checkpoint before a damaged one, with a warning', async () => {
    const straight = await session(newRun());
    const damages: ((folder: string) => void)[] = [
      (folder) => truncateSync(join(folder, 'model.safetensors'), 100),
      (folder) => rmSync(join(folder, 'trainer.json')),
      (folder) => rmSync(join(folder, 'checksums.json')),
      (folder) => {
        const path = join(folder, 'optimizer-00000.safetensors');
        const bytes = readFileSync(path);
        bytes[bytes.length - 1]! ^= 1;
        writeFileSync(path, bytes);
      },
    ];
    for (const damage of damages) {
      const out = newRun();
      await session(out, { until: 9 });
      damage(join(out, 'checkpoints/step-000008'));
      const warnings: string[] = [];
      const rest = await session(out, {
        resume: true,
        warn: (message) => warnings.push(message),
        retention: { keepLast: 1 },
      });
      expect(warnings).toHaveLength(1);
      expect(warnings[0]).toMatch(/ERR_LIBMOE_CHECKPOINT.*step-000008.*falling back/);
      expect(bits(rest.reports)).toEqual(bits(straight.reports.slice(4)));
    }
  });

  it('sweeps what a killed process left half-written, and takes back what it had set aside', async () => {
    const straight = await session(newRun());
    const out = newRun();
    await session(out, { until: 9 });
    const [at, mark] = [join(out, 'checkpoints'), `${host}-${nobody}-0-0123abcd`];
    // killed while writing step 12, and between the two renames of step 8
    mkdirSync(join(at, `.step-000012.tmp-${mark}`));
    writeFileSync(join(at, `.step-000012.tmp-${mark}`, 'model.safetensors'), 'half');
    writeFileSync(join(at, `.latest.tmp-${mark}`), 'step-0000');
    mkdirSync(join(at, `.step-000008.tmp-${mark}`));
    renameSync(join(at, 'step-000008'), join(at, `.step-000008.old-${mark}`));
    const living = `.step-000016.tmp-${host}-${process.ppid}-0-0123abcd`;
    mkdirSync(join(at, living));
    await expect(session(out)).rejects.toThrow(/ERR_LIBMOE_STATE.*holds a run already/);
    const resumed = await session(out, { resume: true });
    expect(resumed.reports[0]!.step).toBe(9);
    expect(resumed.weights).toEqual(straight.weights);
    expect(checkpoints(out)).toEqual([living, 'latest', 'step-000008', 'step-000012']);
  });

  it('says when nothing is left to fall back to', async () => {
    const out = newRun();
    await session(out, { until: 5 });
    rmSync(join(out, 'checkpoints/step-000004/model.safetensors'));
    await expect(session(out, { resume: true, warn() {} })).rejects.toThrow(
      /every checkpoint in .* is damaged/,
    );
  });

  it('starts anew when there is no checkpoint yet, and drops what a dead start logged', async () => {
    const out = newRun();
    await session(out, { until: 2 });
    appendFileSync(join(out, 'metrics.jsonl'), '{"step":3,"lo');
    const { reports } = await session(out, { resume: true });
    expect(reports.map(({ step }) => step)).toEqual(Array.from({ length: steps }, (_, i) => i + 1));
    expect(readJournal(join(out, 'metrics.jsonl'))).toHaveLength(steps);
  });

  it('does nothing when the training was complete', async () => {
    const out = newRun();
    await session(out);
    const { reports } = await session(out, { resume: true });
    expect(reports).toEqual([]);
    expect(readJournal(join(out, 'metrics.jsonl'))).toHaveLength(steps);
  });

  it('is not done by accident: a used folder is refused', async () => {
    const out = newRun();
    await session(out, { until: 5 });
    const before = readFileSync(join(out, 'metrics.jsonl'), 'utf8');
    await expect(session(out)).rejects.toThrow(/ERR_LIBMOE_STATE.*holds a run already/);
    rmSync(join(out, 'checkpoints'), { recursive: true });
    await expect(session(out)).rejects.toThrow(/holds a run already .*metrics\.jsonl/);
    expect(readFileSync(join(out, 'metrics.jsonl'), 'utf8')).toBe(before);
    expect(existsSync(join(out, 'checkpoints'))).toBe(false);
  });

  it('gives callbacks their state back', async () => {
    const counter = (): Callback & { count: number } => ({
      name: 'counter',
      count: 0,
      onStep() {
        this.count += 1;
      },
      state() {
        return { count: this.count };
      },
      restore(state) {
        this.count = (state as { count: number }).count;
      },
    });
    const out = newRun();
    await session(out, { until: 6, callbacks: [counter()] });
    const second = counter();
    await session(out, { resume: true, callbacks: [second] });
    expect(second.count).toBe(steps);
  });

  it('uses the seed of the checkpoint', async () => {
    const out = newRun();
    await session(out, { until: 5, seed: 7 });
    const warnings: string[] = [];
    await session(out, { resume: true, seed: 8, warn: (message) => warnings.push(message) });
    expect(warnings).toEqual([expect.stringContaining('the seed 7 of')]);
    expect(JSON.parse(readFileSync(join(out, 'checkpoints/step-000012/rng.json'), 'utf8'))).toEqual({
      seed: 7,
      step: 12,
    });
  });
});
