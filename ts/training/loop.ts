import type { TokenBatch } from '../data/batch.ts';
import { fail } from '../native/index.ts';
import type { JsonValue } from '../storage/index.ts';
import type { Tensor } from '../tensor/index.ts';
import { clipFactor, globalNorm } from '../tensor/optimizer.ts';
import type { Callback } from './callbacks.ts';
import type { Retention } from './checkpoint.ts';
import { assertFinite, firstNonFiniteLayer, type GuardedStep, guarded } from './finite.ts';
import { type BatchKind, tokenBatches } from './micro-batches.ts';
import type { TrainableModel } from './micro-step.ts';
import type { Optimizer } from './optimizer.ts';
import { routersAfterStep } from './routing-statistics.ts';
import { type OpenRun, openRun } from './run-folder.ts';
import type { Schedule } from './schedule.ts';
import { forwardBackward, passOptions, type StepOutcome, type StepPasses, stepBatches } from './step.ts';
import type { StepReport, TrainingSummary } from './step-report.ts';
import { chooseStrategy, type Strategy } from './strategy/strategy.ts';

/** Where batches come from; the loaders of the data room are such. */
export interface BatchSource<Batch> {
  /** The next batch, in an order that is always the same. */
  next(): Batch | Promise<Batch>;
  /** The place of the next batch. */
  state(): JsonValue;
  /** Goes to where {@link BatchSource.state} was asked for. */
  restore(state: JsonValue): void;
  /** Which part of every batch `next` gives: that of a rank, of so many. A source that says so is checked against the strategy. */
  readonly shard?: { readonly rank: number; readonly world: number };
}

/** What {@link train} needs and may be told. */
export interface TrainOptions<Batch = TokenBatch> {
  data: BatchSource<Batch>;
  optimizer: Optimizer;
  schedule: Schedule;
  /** Steps of the whole training, those before a resume included. */
  steps: number;
  /** Parts that each batch is cut into, one after the other through the model. Default 1. */
  microBatches?: number;
  /** Largest global norm of the gradients; they are scaled down to it. Default: no clipping. */
  clipNorm?: number;
  /** Of all random numbers of the training. Default 0. */
  seed?: number;
  /** They run on rank 0 alone, while the others wait. */
  callbacks?: readonly Callback[];
  /** How several ranks train together: see dataParallel. Default: one process, and an error when a launcher started several. */
  strategy?: Strategy;
  /** The run folder: checkpoints go to `<out>/checkpoints`. Without it nothing is written, and there is nothing to resume. */
  out?: string;
  /** Continue from the newest intact checkpoint in `out`, if there is one. Default false: a folder with checkpoints is refused. */
  resume?: boolean;
  retention?: Retention;
  /** Writes the model into a checkpoint folder. Default: its state dict as `model.safetensors`. */
  saveModel?: (folder: string) => void | Promise<void>;
  /** Reads back what `saveModel` wrote, into the model at hand. */
  loadModel?: (folder: string) => void | Promise<void>;
  /** Ends training after the step that is running; a checkpoint is written first. */
  signal?: AbortSignal;
  /** What kind of batches `data` gives. Default: packed text. */
  batches?: BatchKind<Batch>;
  /** Hears of damaged checkpoints and the like. Default: a line on stderr. */
  warn?: (message: string) => void;
}

type ResolvedOptions<Batch> = TrainOptions<Batch> & { strategy: Strategy };

/** A running training: iterate over its steps; `stop()` ends it after the present one. */
export interface Training extends AsyncGenerator<StepReport, TrainingSummary, void> {
  /** Ends training after the step that is running; a checkpoint is written first. */
  stop(): void;
}

/**
 * Trains a model. Yields a report per step, after the callbacks had it; returns a summary. The caller owns the model and the optimizer.
 * The same options, seed and instruction set give the same bits on any number of threads, and across a stop and resume.
 *
 * Throws ERR_LIBMOE_NOT_FINITE (a NaN; the step is not applied), ERR_LIBMOE_STATE (`out` holds a run already), ERR_LIBMOE_CHECKPOINT,
 * ERR_LIBMOE_UNSUPPORTED (a launcher started several ranks and there is no strategy for them), ERR_LIBMOE_COLLECTIVE (another rank failed), and what the data, the model and the callbacks throw.
 */
export function train<Batch = TokenBatch>(
  model: TrainableModel<Batch>,
  options: TrainOptions<Batch>,
): Training {
  checkOptions(options);
  const stopping = new AbortController();
  const strategy = options.strategy ?? chooseStrategy();
  const training = run(model, { ...options, strategy }, stopping) as Training;
  training.stop = () => stopping.abort();
  return training;
}

async function* run<Batch>(
  model: TrainableModel<Batch>,
  options: ResolvedOptions<Batch>,
  stopping: AbortController,
): AsyncGenerator<StepReport, TrainingSummary, void> {
  const { optimizer, steps, signal, strategy } = options;
  checkShard(options);
  const callbacks = strategy.rank === 0 ? (options.callbacks ?? []) : [];
  let endedEarly: string | undefined;
  let done = false;
  // A stop on any rank is one of all: they must do the same number of steps.
  const stopped = async () => {
    const here = stopping.signal.aborted || signal?.aborted === true;
    const asked = await strategy.reduceCounts([here ? 1 : 0, endedEarly === undefined ? 0 : 1]);
    done = asked[1]! > 0;
    return asked[0]! > 0 || done;
  };
  const opened = await openRun(
    model,
    { ...options, callbacks },
    {
      stop: () => stopping.abort(),
      finish: (reason) => {
        endedEarly ??= reason;
      },
    },
  );
  try {
    await strategy.share(tensorsOf(model, optimizer));
    await strategy.onFirstRank(async () => {
      for (const callback of callbacks) await callback.onStart?.(opened);
    });
    while (opened.step < steps && !(await stopped())) {
      const report = await trainStep(model, options, opened);
      await strategy.onFirstRank(async () => {
        for (const callback of callbacks) await callback.onStep?.(report, opened);
        if (opened.checkpointWanted) await opened.saveCheckpoint();
      });
      yield report;
      await turn();
    }
    if (opened.out !== undefined && opened.step > 0)
      await strategy.onFirstRank(async () => void (await opened.saveCheckpoint()));
    const all = opened.step >= steps;
    const summary = opened.summary(all || done, all ? undefined : endedEarly);
    await strategy.onFirstRank(async () => {
      for (const callback of callbacks) await callback.onEnd?.(summary, opened);
    });
    return summary;
  } finally {
    optimizer.zeroGrad();
    for (const callback of callbacks) callback.close?.();
  }
}

async function trainStep<Batch>(
  model: TrainableModel<Batch>,
  options: ResolvedOptions<Batch>,
  opened: OpenRun,
): Promise<StepReport> {
  const { optimizer, schedule, clipNorm, strategy } = options;
  const started = performance.now();
  const number = opened.step + 1;
  const learningRate = schedule(opened.step);
  optimizer.zeroGrad();
  model.train?.();
  const batch = await options.data.next();
  const kind = options.batches ?? (tokenBatches as unknown as BatchKind<Batch>);
  const batches = await stepBatches(batch, options.microBatches ?? 1, kind, strategy, opened.step);
  const { rank, worldSize } = strategy;
  const at = {
    step: opened.step,
    totalSteps: options.steps,
    seed: opened.seed,
    rank,
    ranks: worldSize,
    turn,
  };
  const guard = {
    number,
    rank,
    worldSize,
    parameters: optimizer.parameters,
    firstLayer: () =>
      firstNonFiniteLayer(
        model,
        batches.parts.map((part, i) => ({ batch: part, options: passOptions(at, i) })),
      ),
  };
  const passes = await guarded(guard, () =>
    forwardBackward(model, batches, optimizer.parameters, strategy, at),
  );
  const { outcome, gradNorm } = await (async () => {
    try {
      await strategy.reduceGradients(optimizer.parameters);
      return await update(passes, optimizer, learningRate, guard, strategy, clipNorm);
    } finally {
      passes.dispose();
    }
  })();
  optimizer.zeroGrad();
  routersAfterStep(model, outcome.choices, { step: number, totalSteps: options.steps });
  await model.afterStep?.({ step: number, layers: outcome.choices });
  opened.advance(number, outcome.tokens);
  const seconds = (performance.now() - started) / 1000;
  return {
    step: number,
    tokens: opened.tokens,
    loss: outcome.loss,
    crossEntropy: outcome.crossEntropy,
    balanceLoss: outcome.balanceLoss,
    routerZLoss: outcome.routerZLoss,
    learningRate,
    gradNorm,
    tokensPerSecond: outcome.tokens / seconds,
    routing: outcome.routing,
    seconds,
  };
}

/**
 * Updates the parameters, then waits for the device, the only time in a step: norm, clip factor and whether anything is not finite are
 * decided there. Where something is not, nothing has been updated, and this says what it was.
 */
async function update(
  passes: StepPasses,
  optimizer: Optimizer,
  learningRate: number,
  guard: GuardedStep,
  strategy: Strategy,
  clipNorm?: number,
): Promise<{ outcome: StepOutcome; gradNorm: number }> {
  const gradients = [...optimizer.parameters.values()].flatMap(({ grad }) => (grad ? [grad] : []));
  const counts = new Map(optimizer.steps);
  using norm = globalNorm(gradients);
  using factor = await commonFactor(norm, passes.losses, strategy, clipNorm);
  optimizer.step(learningRate, factor);
  // A fault of the device fails this read too; the step's factor was not finite then.
  const applied = factor.read().then(
    ([value]) => Number.isFinite(Number(value)),
    () => false,
  );
  try {
    const [outcome, read] = await guarded(guard, () => Promise.all([passes.outcome(), norm.read()]));
    const gradNorm = Number(read[0]);
    assertFinite(guard, outcome, gradNorm);
    return { outcome, gradNorm };
  } catch (error) {
    if (!(await applied)) for (const [name, count] of counts) optimizer.steps.set(name, count);
    throw error;
  }
}

/** The clip factor, not finite on every rank where it is not on one: all ranks update, or none does. */
async function commonFactor(
  norm: Tensor,
  losses: readonly Tensor[],
  strategy: Strategy,
  clipNorm?: number,
): Promise<Tensor> {
  if (strategy.worldSize === 1) return clipFactor(norm, losses, clipNorm);
  using own = clipFactor(norm, losses);
  const everyRank = await strategy.reduceStatistics([own]);
  try {
    return clipFactor(norm, everyRank, clipNorm);
  } finally {
    for (const sum of everyRank) sum.dispose();
  }
}

/** One turn of the event loop: signals, timers and the dashboard live between two micro-batches. */
const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

/** Everything that must be the same on all ranks. */
function tensorsOf<Batch>(model: TrainableModel<Batch>, { slots }: Optimizer): Map<string, Tensor> {
  const state = [...slots].flatMap(([parameter, own]) =>
    Object.entries(own).map(([slot, tensor]) => [`${slot}/${parameter}`, tensor] as const),
  );
  return new Map([...model.namedParameters(), ...(model.namedBuffers?.() ?? []), ...state]);
}

/** Ranks that read the same batches would train on each token several times. */
function checkShard<Batch>({ data: { shard }, strategy }: ResolvedOptions<Batch>): void {
  const { rank, worldSize } = strategy;
  if (shard && (shard.rank !== rank || shard.world !== worldSize))
    fail(
      'ERR_LIBMOE_CONFIG',
      `train: the loader gives part ${shard.rank} of ${shard.world} of each batch, this is rank ${rank} of ${worldSize}: ` +
        `make the loader with rank: ${rank}, world: ${worldSize} (those of the process group)`,
    );
}

function checkOptions<Batch>(options: TrainOptions<Batch>): void {
  const { steps, microBatches = 1, clipNorm, seed = 0 } = options;
  const refuse = (name: string, wanted: string, value: unknown) =>
    fail('ERR_LIBMOE_ARGUMENT', `train: ${name} must be ${wanted}, got ${String(value)}`);
  const positive = (value: number) => Number.isInteger(value) && value > 0;
  if (!positive(steps)) refuse('steps', 'a positive integer', steps);
  if (!positive(microBatches)) refuse('microBatches', 'a positive integer', microBatches);
  if (clipNorm !== undefined && !(clipNorm > 0)) refuse('clipNorm', 'positive', clipNorm);
  if (!(Number.isSafeInteger(seed) && seed >= 0)) refuse('seed', 'a non-negative integer', seed);
  const names = (options.callbacks ?? []).map(({ name }) => name);
  const twice = names.find((name, i) => names.indexOf(name) !== i);
  if (twice !== undefined)
    fail(
      'ERR_LIBMOE_ARGUMENT',
      `train: two callbacks are named "${twice}"; names must differ, states are kept by them`,
    );
}
