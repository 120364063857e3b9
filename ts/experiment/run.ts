import { existsSync } from 'node:fs';
import path from 'node:path';
import type { Results } from '../evaluation/index.ts';
import { fail } from '../native/index.ts';
import { readJournal, writeFileAtomically } from '../storage/index.ts';
import { nearestKey } from '../storage/schema-errors.ts';
import { onDevice } from '../tensor/index.ts';
import {
  type Callback,
  checkpointEvery,
  optimizer as makeOptimizer,
  metricsLogger,
  type StatusOutput,
  type StepReport,
  type Strategy,
  schedule,
  statusLine,
  type TrainingSummary,
  tensorboardLogger,
  train,
} from '../training/index.ts';
import { type Environment, environment, recordEnvironment } from './environment.ts';
import { imageTextJob } from './image-text-job.ts';
import type { Job, JobSetting } from './job.ts';
import { languageJob } from './language-job.ts';
import { checkRanks, deviceOfRank, joinRanks } from './ranks.ts';
import { type AnyRecipe, type AnyRecipeInput, openRecipe, recipeText } from './recipe.ts';
import { type BestEvaluation, bestIn, type RunEvaluations, runEvaluations } from './run-evaluation.ts';
import { continued, defaultFolder, standingRun } from './standing.ts';
import { visionLanguageJob } from './vision-language-job.ts';

/** Where and how {@link runRecipe} carries out a recipe. */
export interface RunOptions {
  /** The run folder; default `runs/<name>`, for a run folder's own recipe.yaml see docs/experiments.md. */
  out?: string;
  /** Go on from the newest checkpoint of the run folder. */
  resume?: boolean;
  /** Ends training after the present step, with a checkpoint; while data are prepared, at once. */
  signal?: AbortSignal;
  /** Recorded in environment.json. */
  command?: readonly string[];
  /** Gets one line for each thing that begins or ends. */
  log?: (line: string) => void;
  /** Where the status line goes; null: nowhere. */
  status?: StatusOutput | null;
  /** Called after every step, on rank 0. */
  onStep?: (report: StepReport) => void;
}

const optionNames = ['out', 'resume', 'signal', 'command', 'log', 'status', 'onStep'];

/** What a run was and found. */
export interface RunResult {
  name: string;
  out: string;
  training: TrainingSummary;
  /** The last step's report; undefined when there was nothing left to train. */
  last: StepReport | undefined;
  /** Of all steps, those before a resume included. */
  seconds: number;
  parameters: number;
  activeParameters: number;
  /** Absent for models that see images: what they take depends on these. */
  flops?: number;
  /** Absent when training was stopped, and on other ranks than 0. */
  evaluation?: Results;
  /** Where the recipe looks for the best of the evaluations during training. */
  best?: BestEvaluation;
  /** The model's folder: `<out>/checkpoints/step-…`; the best one when the recipe says `evaluation.finalWeights: best`. */
  checkpoint?: string;
}

/**
 * Carries out a recipe: data, model (new, loaded, or upcycled), training with checkpoints and logs, evaluation at the end. Everything goes into the
 * run folder (docs/experiments.md). The same recipe and seed give the same bits; so does a run that was stopped and resumed. Of several ranks that a
 * launcher started each calls this; rank 0 writes and evaluates.
 * @param overrides laid over the recipe: `{ training: { steps: 20 } }`
 * @throws ERR_LIBMOE_RECIPE, ERR_LIBMOE_STATE (the folder holds a run and `resume` was not asked for, or the run of another recipe; nothing is
 * written then), ERR_LIBMOE_STOPPED (the signal, before or after training), and what each room throws
 */
export async function runRecipe(
  source: string | AnyRecipeInput,
  overrides: Record<string, unknown> = {},
  options: RunOptions = {},
): Promise<RunResult> {
  const wrong = Object.keys(options).find((key) => !optionNames.includes(key));
  if (wrong !== undefined)
    fail(
      'ERR_LIBMOE_ARGUMENT',
      `runRecipe(recipe, overrides, options): there is no option "${wrong}", did you mean "${nearestKey(wrong, optionNames) ?? optionNames.join('", "')}"?`,
    );
  const asked = await openRecipe(source, overrides);
  return onDevice(deviceOfRank(asked.device), () => runAsked(source, asked, options));
}

async function runAsked(
  source: string | AnyRecipeInput,
  asked: AnyRecipe,
  options: RunOptions,
): Promise<RunResult> {
  const resume = options.resume ?? false;
  const out = options.out ? path.resolve(options.out) : defaultFolder(source, asked, resume);
  const { signal } = options;
  checkRanks(asked);
  const standing = standingRun(out, asked, resume);
  const surroundings = environment(asked, options.command);
  const recipe = standing ? continued(asked, standing) : asked;

  const { strategy, leave } = await joinRanks(recipe);
  const log = (strategy.rank === 0 && options.log) || (() => {});
  try {
    const setting: JobSetting = { out, log, signal, strategy, checkpoint: standing?.checkpoint?.path };
    const parts = { recipe, out, log, options, surroundings, strategy };
    return recipe.kind === 'language'
      ? await trainAndEvaluate({ ...parts, job: await languageJob(recipe, setting) })
      : recipe.kind === 'vision-language'
        ? await trainAndEvaluate({ ...parts, job: await visionLanguageJob(recipe, setting) })
        : await trainAndEvaluate({ ...parts, job: await imageTextJob(recipe, setting) });
  } finally {
    await leave();
  }
}

const json = (value: unknown): string => `${JSON.stringify(value, null, 2)}\n`;

/** What a run is made of. */
interface Parts<Batch> {
  recipe: AnyRecipe;
  job: Job<Batch>;
  out: string;
  log: (line: string) => void;
  options: RunOptions;
  surroundings: Environment;
  strategy: Strategy;
}

async function trainAndEvaluate<Batch>(parts: Parts<Batch>): Promise<RunResult> {
  try {
    return await trained(parts);
  } finally {
    await parts.job.dispose();
  }
}

async function trained<Batch>(parts: Parts<Batch>): Promise<RunResult> {
  const { recipe, job, out, log, options, strategy } = parts;
  const { model, facts } = job;
  const { training } = recipe;
  const first = strategy.rank === 0;
  const { signal } = options;
  model.activationCheckpointing = training.activationCheckpointing;
  log(
    `model: ${facts.parameters.toLocaleString('en')} parameters, ${facts.activeParameters.toLocaleString('en')} active per token`,
  );
  // What reads and writes beside training is rank 0's.
  let evaluations: RunEvaluations | undefined;
  await strategy.onFirstRank(async () => {
    evaluations = await runEvaluations({ recipe, job, out, log, signal });
  });
  const callbacks = first ? await callbacksOf(parts, evaluations?.callback) : [];
  const optimizer = makeOptimizer(model.namedParameters(), training.optimizer);
  let last: StepReport | undefined;
  let summary: TrainingSummary;
  try {
    const steps = train(model, {
      data: job.loader,
      batches: job.batches,
      optimizer,
      schedule: schedule(training.schedule, job.steps),
      steps: job.steps,
      microBatches: training.microBatches,
      ...(training.clipNorm !== null && { clipNorm: training.clipNorm }),
      seed: recipe.seed,
      strategy,
      callbacks,
      out,
      resume: options.resume ?? false,
      retention: { keepLast: training.keepCheckpoints },
      saveModel: (folder) => job.saveModel(folder),
      loadModel: (folder) => job.loadModel(folder),
      ...(signal && { signal }),
      warn: log,
    });
    for (;;) {
      const step = await steps.next();
      if (step.done) {
        summary = step.value;
        break;
      }
      last = step.value;
      if (first) options.onStep?.(step.value);
    }
  } finally {
    optimizer.dispose();
  }
  const { parameters, activeParameters, flopsPerToken } = facts;
  const evaluation = recipe.kind === 'image-text' ? undefined : recipe.evaluation;
  const best = evaluation?.best ? bestIn(out) : undefined;
  const checkpoint =
    (summary.completed && evaluation?.finalWeights === 'best' && best?.checkpoint) || summary.checkpoint;
  const result: RunResult = {
    name: recipe.name,
    out,
    training: summary,
    last,
    seconds: secondsIn(path.join(out, 'metrics.jsonl')),
    parameters,
    activeParameters,
    ...(flopsPerToken !== undefined && { flops: flopsPerToken * summary.tokens }),
    ...(best && { best }),
    ...(checkpoint && { checkpoint }),
  };
  await strategy.onFirstRank(async () => {
    writeFileAtomically(
      path.join(out, 'summary.json'),
      json({
        model: facts.model,
        parameters,
        activeParameters,
        completed: summary.completed,
        step: summary.step,
        ...(summary.endedEarly !== undefined && { endedEarly: summary.endedEarly }),
        ...(best && { best: { metric: best.metric, step: best.step, value: best.value } }),
        tokens: summary.tokens,
        ...(result.flops !== undefined && { flops: result.flops }),
        seconds: Number(result.seconds.toFixed(3)),
      }),
    );
    const evaluation = await evaluations?.atEnd(summary);
    if (evaluation) result.evaluation = evaluation;
  });
  return result;
}

/** What happens beside training, in this order. */
async function callbacksOf<Batch>(
  parts: Parts<Batch>,
  evaluation: Callback | undefined,
): Promise<Callback[]> {
  const { recipe, job, out, options } = parts;
  const callbacks: Callback[] = [
    {
      name: 'run-folder',
      // Only now is it certain that there is a run: everything is made, and its checkpoint, if any, has been read.
      onStart({ step }) {
        recordEnvironment(out, parts.surroundings, step);
        writeFileAtomically(path.join(out, 'recipe.yaml'), recipeText(job.resolved));
      },
    },
  ];
  if (evaluation) callbacks.push(evaluation);
  callbacks.push(
    ...(await job.callbacks()),
    metricsLogger(path.join(out, 'metrics.jsonl')),
    tensorboardLogger(out),
    checkpointEvery(job.checkpointEvery),
  );
  if (options.status !== null)
    callbacks.push(statusLine({ label: recipe.name, ...(options.status && { output: options.status }) }));
  return callbacks;
}

/** The time of all steps that a metrics file tells of, whichever process did them. */
function secondsIn(metrics: string): number {
  if (!existsSync(metrics)) return 0;
  return readJournal(metrics).reduce((sum, { seconds }) => sum + (Number(seconds) || 0), 0);
}
