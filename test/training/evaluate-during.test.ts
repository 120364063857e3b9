import { existsSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { readJournal } from '../../ts/storage/index.ts';
import {
  BestSoFar,
  type Callback,
  checkpointEvery,
  type EvaluateDuringOptions,
  evaluateDuring,
  metricsLogger,
  namedCheckpoint,
  optimizer,
  type StepReport,
  schedule,
  type TrainingSummary,
  type TrainOptions,
  train,
} from '../../ts/training/index.ts';
import { temporaryFolder } from '../storage/temporary.ts';
import { Toy, ToyData } from './toy.ts';

const root = temporaryFolder();
const steps = 12;
let runs = 0;
const newRun = () => join(root, `run${runs++}`);

interface Changes extends Partial<TrainOptions> {
  /** Breaks off after this step as a crash would. */
  until?: number;
  during?: Partial<EvaluateDuringOptions> | null;
}

/** What an evaluation after each step gives: down to step 6, then up again. */
const curve = (step: number): number => Math.abs(step - 6) + 1;
const lower = { metric: 'held/bits', higherIsBetter: false };

/** One process' worth of training. */
async function session(out: string | undefined, { until, during = {}, ...rest }: Changes = {}) {
  const reports: StepReport[] = [];
  const lines: string[] = [];
  const log = (line: string) => void lines.push(line);
  const evaluation =
    during &&
    evaluateDuring({ every: 2, evaluate: ({ step }) => ({ 'held/bits': curve(step) }), log, ...during });
  const callbacks: Callback[] = [
    ...(evaluation ? [evaluation] : []),
    ...(out === undefined ? [] : [metricsLogger(join(out, 'metrics.jsonl')), checkpointEvery(5)]),
  ];
  let summary: TrainingSummary | undefined;
  const toy = new Toy('f32');
  const adam = optimizer(toy.namedParameters(), { name: 'adamw' });
  try {
    const training = train(toy, {
      data: new ToyData(),
      optimizer: adam,
      schedule: schedule({ name: 'cosine', learningRate: 0.02, warmupSteps: 3 }, steps),
      steps,
      ...(out !== undefined && { out }),
      callbacks,
      retention: { keepLast: 1 },
      warn: log,
      ...rest,
    });
    for (;;) {
      const step = await training.next();
      if (step.done) {
        summary = step.value;
        break;
      }
      reports.push(step.value);
      if (step.value.step === until) {
        await training.return(undefined as never);
        break;
      }
    }
    return { reports, lines, summary, weights: toy.parameters().map((p) => p.readSync()) };
  } finally {
    adam.dispose();
    toy.dispose();
  }
}

const evaluated = (reports: StepReport[]) =>
  reports.flatMap(({ step, evaluation }) => (evaluation ? [step] : []));
const file = (out: string) => readFileSync(join(out, 'evaluations.jsonl'), 'utf8');
const kept = (out: string) => readdirSync(join(out, 'checkpoints')).sort();
const named = (out: string) => namedCheckpoint(join(out, 'checkpoints'), 'best')?.step;

describe('evaluation during training', () => {
  it.each([
    [{ every: 5 }, [5, 10, 12]],
    [{ every: 0.25 }, [3, 6, 9, 12]],
    [{ every: 0.3 }, [4, 7, 11, 12]],
    [{ every: undefined, at: [0.3, 0.5] }, [4, 6, 12]],
    [{ every: 10, at: [0.01] }, [1, 10, 12]],
  ])('comes when it is asked for: %j', async (during, when) => {
    const { reports } = await session(undefined, { during: during as Partial<EvaluateDuringOptions> });
    expect(evaluated(reports)).toEqual(when);
    expect(reports.at(-1)!.evaluation).toEqual({ 'held/bits': 7 });
  });

  it('writes a line per evaluation and tells of it', async () => {
    const out = newRun();
    const { lines } = await session(out, {
      during: { every: 6, first: true, evaluate: ({ step }) => ({ a: step, b: Number.NaN }) },
    });
    expect(readJournal(join(out, 'evaluations.jsonl'))).toEqual([
      { step: 0, tokens: 0, values: { a: 0, b: null } },
      { step: 6, tokens: 384, values: { a: 6, b: null } },
      { step: 12, tokens: 768, values: { a: 12, b: null } },
    ]);
    expect(lines).toContain('evaluation at step 6 of 12: a 6.0000, b N/A');
    expect(readJournal(join(out, 'metrics.jsonl'))[5]!.evaluation).toEqual({ a: 6 });
  });

  it('leaves the training as it is', async () => {
    const plain = await session(undefined, { during: null });
    const watched = await session(newRun(), { during: { best: lower, first: true } });
    expect(watched.weights).toEqual(plain.weights);
  });
});

describe('the best checkpoint', () => {
  it('is kept under its name, whatever is kept of the others', async () => {
    const out = newRun();
    const { lines } = await session(out, { during: { best: lower } });
    expect(kept(out)).toEqual(['best', 'latest', 'step-000006', 'step-000012']);
    expect(readFileSync(join(out, 'checkpoints/best'), 'utf8')).toBe('step-000006\n');
    const best = readJournal(join(out, 'evaluations.jsonl')).filter((line) => line.best);
    expect(best.map(({ step }) => step)).toEqual([2, 4, 6]);
    expect(lines).toContain('evaluation at step 6 of 12: held/bits 1.0000, the best so far');
    expect(lines.at(-1)).toBe('evaluation at step 12 of 12: held/bits 7.0000; the best is 1.0000 of step 6');
  });

  it('may be one whose checkpoint is written anyway, and the first of equals', async () => {
    const out = newRun();
    await session(out, {
      during: { every: 5, evaluate: () => ({ x: 1 }), best: { metric: 'x', higherIsBetter: true } },
    });
    expect([named(out), kept(out)]).toEqual([5, ['best', 'latest', 'step-000005', 'step-000012']]);
  });

  it('needs a metric that the evaluation gives', async () => {
    await expect(
      session(undefined, { during: { best: { metric: 'held/bitz', higherIsBetter: false } } }),
    ).rejects.toThrow(/ERR_LIBMOE_ARGUMENT: no evaluation gives "held\/bitz"; did you mean "held\/bits"/);
  });
});

describe('early stopping', () => {
  const earlyStopping = { patience: 2 };

  it('ends the training as complete, says why, and a resume takes no step', async () => {
    const out = newRun();
    const { summary, reports } = await session(out, { during: { best: lower, earlyStopping } });
    expect(reports).toHaveLength(10);
    expect(summary).toMatchObject({ step: 10, completed: true });
    const reason = 'held/bits has not become better than 1 of step 6 in 2 evaluations, up to step 10';
    expect(summary!.endedEarly).toBe(reason);
    expect(readJournal(join(out, 'evaluations.jsonl')).at(-1)).toMatchObject({ step: 10, stop: reason });
    expect(kept(out)).toEqual(['best', 'latest', 'step-000006', 'step-000010']);
    const before = file(out);
    const again = await session(out, { resume: true, during: { best: lower, earlyStopping } });
    expect(again.reports).toEqual([]);
    expect(again.summary).toEqual(summary);
    expect(file(out)).toBe(before);
  });

  it('goes on where it has got more patience, and is the same as with as much from the beginning', async () => {
    const [out, straight] = [newRun(), newRun()];
    await session(out, { during: { best: lower, earlyStopping } });
    const patient = { best: lower, earlyStopping: { patience: 3 } };
    const { summary } = await session(out, { resume: true, during: patient });
    const { summary: whole } = await session(straight, { during: patient });
    // After the last step there is nothing to stop.
    expect([summary!.step, summary!.endedEarly, whole!.endedEarly]).toEqual([12, undefined, undefined]);
    expect(file(out)).toBe(file(straight));
  });

  it('heeds the last evaluation, not a standstill of long ago', async () => {
    const out = newRun();
    const evaluate = ({ step }: { step: number }) => ({ 'held/bits': step < 7 ? 5 : 12 - step });
    await session(out, { until: 10, during: { evaluate, best: lower } });
    const { summary } = await session(out, {
      resume: true,
      during: { evaluate, best: lower, earlyStopping },
    });
    expect([summary!.step, summary!.endedEarly]).toEqual([12, undefined]);
  });

  it.each([
    ['another number', { best: { metric: 'acc', higherIsBetter: true } }],
    ['other documents', { best: lower, asked: 'ten documents' }],
  ])('does not count evaluations of %s', async (_, changed) => {
    const out = newRun();
    const evaluate = () => ({ 'held/bits': 1 });
    await session(out, { until: 10, during: { evaluate, best: lower, asked: 'all' } });
    const { summary, lines } = await session(out, {
      resume: true,
      during: { evaluate: () => ({ 'held/bits': 2, acc: 1 }), ...changed, earlyStopping },
    });
    expect([summary!.step, summary!.endedEarly]).toEqual([12, undefined]);
    expect(lines).toContainEqual(expect.stringMatching(/earlier evaluations asked something else/));
    expect(named(out)).toBe(12);
  });

  it('is decided by gains above minDelta and by numbers alone', () => {
    const follow = new BestSoFar({ metric: 'acc', higherIsBetter: true }, { patience: 2, minDelta: 0.1 });
    const values = [0.5, 0.55, 0.62, Number.NaN, 0.7];
    const said = values.map((value, i) => follow.add(i + 1, value));
    expect(said.map(({ best }) => best)).toEqual([true, true, true, false, true]);
    expect(said.map(({ stop }) => stop !== undefined)).toEqual([false, false, false, false, true]);
    expect(said.at(-1)!.stop).toMatch(
      /acc has not become better than 0\.62 of step 3 by more than 0\.1 in 2/,
    );
    const never = new BestSoFar(lower, { patience: 1 });
    expect(never.add(1, null)).toEqual({ best: false, stop: expect.stringContaining('has given no number') });
  });

  it.each([
    [{ earlyStopping }, /earlyStopping needs best/],
    [{ best: lower, earlyStopping: { patience: 0 } }, /patience must be a positive integer, got 0/],
    [{ best: lower, earlyStopping: { patience: 1, minDelta: -1 } }, /minDelta must be 0 or more/],
    [{ every: 1.5 }, /every must be a whole number of steps or a share below 1, got 1\.5/],
    [{ at: [0.5, 2] }, /at holds shares .* got 2/],
    [{ every: undefined }, /give every, at or first/],
  ])('refuses %j', async (during, message) => {
    await expect(session(undefined, { during: during as Partial<EvaluateDuringOptions> })).rejects.toThrow(
      message,
    );
  });
});

describe('a run that was killed', () => {
  it('after any step ends with the same evaluations, best, stop and weights', async () => {
    const during = { best: lower, earlyStopping: { patience: 2 }, first: true };
    const straight = newRun();
    const whole = await session(straight, { during });
    for (const until of [1, 5, 6, 7, 9, 10]) {
      const out = newRun();
      await session(out, { during, until });
      const { summary, weights } = await session(out, { during, resume: true });
      expect(summary).toEqual({ ...whole.summary, checkpoint: join(out, 'checkpoints/step-000010') });
      expect(weights).toEqual(whole.weights);
      expect(file(out), `killed after ${until}`).toBe(file(straight));
      expect(named(out)).toBe(6);
    }
  });

  it('between a checkpoint and its name gets the name back; the best by another metric is one whose checkpoint is there', async () => {
    const out = newRun();
    await session(out, { during: { best: lower }, until: 6 });
    writeFileSync(join(out, 'checkpoints/best'), 'step-000004\n');
    await session(out, { during: { best: lower }, resume: true, until: 7 });
    expect(named(out)).toBe(6);
    // By the other metric step 2 was better, but is gone.
    const other = { evaluate: ({ step }: { step: number }) => ({ 'held/bits': step, other: -step }) };
    const changed = newRun();
    await session(changed, {
      during: { ...other, best: { metric: 'other', higherIsBetter: false } },
      until: 6,
    });
    const { lines } = await session(changed, { during: { ...other, best: lower }, resume: true });
    expect(lines.at(-1)).toMatch(/the best is 6\.0000 of step 6$/);
    expect(named(changed)).toBe(6);
    // Somebody has removed the best.
    await session(out, { during: { best: lower }, resume: true, until: 10 });
    rmSync(join(out, 'checkpoints/step-000006'), { recursive: true });
    const without = await session(out, { during: { best: lower }, resume: true });
    expect(without.lines.join('\n')).toMatch(
      /the best evaluation was at step 6, whose checkpoint is not there/,
    );
    expect(existsSync(join(out, 'checkpoints/best'))).toBe(false);
  });
});
