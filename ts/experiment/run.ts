import { existsSync } from 'node:fs';
import path from 'node:path';
import type { Results, Task } from '../evaluation/index.ts';
import { readModelWeights, writeModelFiles } from '../models/language/checkpoint.ts';
import { type LanguageModel, moeLayersOf, parameterReport } from '../models/language/index.ts';
import { fail } from '../native/index.ts';
import { readJournal, writeFileAtomically } from '../storage/index.ts';
import { nearestKey } from '../storage/schema-errors.ts';
import { onDevice } from '../tensor/index.ts';
import {
  type Callback,
  checkpointEvery,
  evaluateEvery,
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
import { evaluateInto, headlines, tasksOf } from './evaluation.ts';
import { makeModel } from './model.ts';
import { copyTokenizer, type Prepared, prepareData } from './prepare.ts';
import { checkRanks, deviceOfRank, joinRanks } from './ranks.ts';
import { openRecipe, type Recipe, type RecipeInput, recipeText } from './recipe.ts';
import { resolvedRecipe } from './resolve.ts';
import { routingLogger, routingProbe } from './routing-log.ts';
import { continued, defaultFolder, standingRun } from './standing.ts';

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
  flops: number;
  /** Absent when training was stopped early, and on other ranks than 0. */
  evaluation?: Results;
  /** The model's folder: `<out>/checkpoints/step-…`. */
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
  source: string | RecipeInput,
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
  source: string | RecipeInput,
  asked: Recipe,
  options: RunOptions,
): Promise<RunResult> {
  const resume = options.resume ?? false;
  const out = options.out ? path.resolve(options.out) : defaultFolder(source, asked, resume);
  const { signal } = options;
  checkRanks(asked);
  const standing = standingRun(out, asked, resume);
  const surroundings = environment(asked, options.command);
  const recipe = standing ? continued(asked, standing) : asked;
  const checkpoint = standing?.checkpoint?.path;

  const { strategy, leave } = await joinRanks(recipe);
  const { rank, worldSize: world } = strategy;
  const log = (rank === 0 && options.log) || (() => {});
  let prepared: Prepared | undefined;
  let model: LanguageModel | undefined;
  try {
    const preparing = { log, signal, checkpoint, shard: { rank, world } };
    // All have looked at the folder; one fills it.
    await strategy.reduceCounts([0]);
    await strategy.onFirstRank(async () => {
      prepared = await prepareData(recipe, out, preparing);
    });
    prepared ??= await prepareData(recipe, out, { ...preparing, ready: true });
    model = await makeModel(recipe, prepared.tokenizer, checkpoint, log);
    return await trainAndEvaluate({ recipe, out, log, options, surroundings, prepared, model, strategy });
  } finally {
    model?.dispose();
    prepared?.dataset.close();
    await leave();
  }
}

const json = (value: unknown): string => `${JSON.stringify(value, null, 2)}\n`;

/** What a run is made of. */
interface Parts {
  recipe: Recipe;
  out: string;
  log: (line: string) => void;
  options: RunOptions;
  surroundings: Environment;
  prepared: Prepared;
  model: LanguageModel;
  strategy: Strategy;
}

async function trainAndEvaluate(parts: Parts): Promise<RunResult> {
  const { recipe, out, log, options, prepared, model, strategy } = parts;
  const { training } = recipe;
  const first = strategy.rank === 0;
  const { signal } = options;
  model.activationCheckpointing = training.activationCheckpointing;
  const report = parameterReport(model.config, recipe.data.sequenceLength);
  log(
    `model: ${report.total.toLocaleString('en')} parameters, ${report.active.toLocaleString('en')} active per token`,
  );
  // What reads and writes beside training is rank 0's.
  const tasks = first ? await tasksOf(recipe, prepared.tokenizer) : [];
  const callbacks = first ? await callbacksOf(parts, tasks) : [];
  const optimizer = makeOptimizer(model.namedParameters(), training.optimizer);
  let last: StepReport | undefined;
  let summary: TrainingSummary;
  try {
    const steps = train(model, {
      data: prepared.loader,
      optimizer,
      schedule: schedule(training.schedule, training.steps),
      steps: training.steps,
      microBatches: training.microBatches,
      ...(training.clipNorm !== null && { clipNorm: training.clipNorm }),
      seed: recipe.seed,
      strategy,
      callbacks,
      out,
      resume: options.resume ?? false,
      retention: { keepLast: training.keepCheckpoints },
      saveModel: (folder) => {
        writeModelFiles(model, folder);
        copyTokenizer(prepared.tokenizerFolder, folder);
      },
      loadModel: (folder) => readModelWeights(model, folder),
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
  const result: RunResult = {
    name: recipe.name,
    out,
    training: summary,
    last,
    seconds: secondsIn(path.join(out, 'metrics.jsonl')),
    parameters: report.total,
    activeParameters: report.active,
    flops: report.flopsPerToken * summary.tokens,
    ...(summary.checkpoint && { checkpoint: summary.checkpoint }),
  };
  const { moe } = model.config;
  await strategy.onFirstRank(async () => {
    writeFileAtomically(
      path.join(out, 'summary.json'),
      json({
        model: moe ? `${moe.experts} experts, top ${moe.topK}, ${moe.router.name}` : 'dense',
        parameters: result.parameters,
        activeParameters: result.activeParameters,
        tokens: summary.tokens,
        flops: result.flops,
        seconds: Number(result.seconds.toFixed(3)),
      }),
    );
    if (!summary.completed || tasks.length === 0) return;
    const folder = path.join(out, 'eval', 'final');
    result.evaluation = await evaluateInto(model, prepared.tokenizer, recipe, folder, tasks, signal);
  });
  return result;
}

/** What happens beside training, in this order. */
async function callbacksOf(parts: Parts, tasks: (Task | string)[]): Promise<Callback[]> {
  const { recipe, out, log, options, prepared, model } = parts;
  const { checkpointEvery: every, evaluateEvery: evaluation, evaluateFirst } = recipe.training;
  const callbacks: Callback[] = [
    {
      name: 'run-folder',
      // Only now is it certain that there is a run: everything is made, and its checkpoint, if any, has been read.
      onStart({ step }) {
        recordEnvironment(out, parts.surroundings, step);
        const whole = resolvedRecipe(recipe, model.config.vocabularySize);
        writeFileAtomically(path.join(out, 'recipe.yaml'), recipeText(whole));
      },
    },
  ];
  if (evaluateFirst && tasks.length > 0) {
    callbacks.push({
      name: 'first-evaluation',
      async onStart({ step }) {
        if (step > 0) return;
        log('evaluating before the first step');
        await evaluateInto(
          model,
          prepared.tokenizer,
          recipe,
          path.join(out, 'eval', '0'),
          tasks,
          options.signal,
        );
      },
    });
  }
  if (evaluation !== null) {
    callbacks.push(
      evaluateEvery(evaluation, async ({ step }) => {
        const folder = path.join(out, 'eval', String(step));
        return headlines(await evaluateInto(model, prepared.tokenizer, recipe, folder, tasks));
      }),
    );
  }
  const { routing } = recipe.logging;
  if (routing && moeLayersOf(model.config).length > 0) {
    const probe = await routingProbe(recipe, prepared, routing.tokens);
    callbacks.push(routingLogger(model, probe, path.join(out, 'routing', 'tokens.records'), routing.every));
  } else if (routing) log('logging.routing: this model has no routers, nothing is recorded');
  callbacks.push(
    metricsLogger(path.join(out, 'metrics.jsonl')),
    tensorboardLogger(out),
    checkpointEvery(every),
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
