import { mkdirSync } from 'node:fs';
import path from 'node:path';
import type { Tokenizer } from '../data/index.ts';
import { evaluate, heldOutTextTask, type Results, type Task, wordOrderTask } from '../evaluation/index.ts';
import { languageAdapter } from '../evaluation/language-adapter.ts';
import { readModelWeights, writeModelFiles } from '../models/language/checkpoint.ts';
import { LanguageModel, loadModel, parameterReport } from '../models/language/index.ts';
import { fail } from '../native/index.ts';
import { writeFileAtomically } from '../storage/index.ts';
import {
  type Callback,
  checkpointEvery,
  chooseStrategy,
  evaluateEvery,
  listCheckpoints,
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
import { upcycleWithReport } from '../upcycling/index.ts';
import { resolveCheckpoint } from './checkpoint-path.ts';
import { environment } from './environment.ts';
import { copyTokenizer, type Prepared, prepareData } from './prepare.ts';
import { loadRecipe, type Recipe, type RecipeInput, recipeText } from './recipe.ts';
import { collect } from './sources.ts';

/** Where and how {@link runRecipe} carries out a recipe. */
export interface RunOptions {
  /** The run folder; default `runs/<name>`. */
  out?: string;
  /** Go on from the newest checkpoint of the run folder. */
  resume?: boolean;
  /** Laid over the recipe. */
  changes?: Record<string, unknown>;
  /** Ends training after the present step, with a checkpoint. */
  signal?: AbortSignal;
  /** Recorded in environment.json. */
  command?: readonly string[];
  /** Gets one line for each thing that begins or ends. */
  log?: (line: string) => void;
  /** Where the status line goes; null: nowhere. */
  status?: StatusOutput | null;
  /** Called after every step. */
  onStep?: (report: StepReport) => void;
}

/** What a run was and found. */
export interface RunResult {
  name: string;
  out: string;
  training: TrainingSummary;
  /** The last step's report; undefined when there was nothing left to train. */
  last: StepReport | undefined;
  seconds: number;
  parameters: number;
  activeParameters: number;
  flops: number;
  /** Absent when training was stopped early. */
  evaluation?: Results;
  /** The model's folder: `<out>/checkpoints/step-…`. */
  checkpoint?: string;
}

/**
 * Carries out a recipe: data, model (new, loaded, or upcycled), training with checkpoints and logs, evaluation at the end. Everything goes into the
 * run folder (docs/experiments.md). The same recipe and seed give the same bits; so does a run that was stopped and resumed.
 * @throws ERR_LIBMOE_RECIPE, ERR_LIBMOE_STATE (the folder holds a run and `resume` was not asked for), and what each room throws
 */
export async function runRecipe(source: string | RecipeInput, options: RunOptions = {}): Promise<RunResult> {
  const recipe = loadRecipe(source, options.changes);
  const out = path.resolve(options.out ?? path.join('runs', recipe.name));
  const log = options.log ?? (() => {});
  if (recipe.device !== 'cpu')
    fail('ERR_LIBMOE_DEVICE', `this build runs on the CPU only, the recipe says device: ${recipe.device}`);
  const strategy = chooseStrategy();
  if (!options.resume && listCheckpoints(path.join(out, 'checkpoints')).length > 0) {
    fail(
      'ERR_LIBMOE_STATE',
      `${out} holds a run already: go on with --resume, or choose another folder with --out`,
    );
  }
  mkdirSync(out, { recursive: true });
  writeFileAtomically(path.join(out, 'recipe.yaml'), recipeText(recipe));
  writeFileAtomically(path.join(out, 'environment.json'), json(environment(recipe.seed, options.command)));

  const prepared = await prepareData(recipe, out, log);
  const model = await makeModel(recipe, prepared.tokenizer, log);
  try {
    return await trainAndEvaluate(recipe, options, out, log, prepared, model, strategy);
  } finally {
    model.dispose();
    prepared.dataset.close();
  }
}

const json = (value: unknown): string => `${JSON.stringify(value, null, 2)}\n`;

async function makeModel(
  recipe: Recipe,
  tokenizer: Tokenizer,
  log: (line: string) => void,
): Promise<LanguageModel> {
  const dtype = recipe.precision;
  if (recipe.model) {
    const vocabularySize = recipe.model.vocabularySize ?? tokenizer.vocabularySize;
    if (vocabularySize < tokenizer.vocabularySize) {
      fail(
        'ERR_LIBMOE_RECIPE',
        `model.vocabularySize ${vocabularySize} is less than the tokenizer's ${tokenizer.vocabularySize}: leave it out`,
      );
    }
    return new LanguageModel({ ...recipe.model, vocabularySize }, { seed: recipe.seed, dtype });
  }
  const { checkpoint, upcycle } = recipe.start!;
  const loaded = await loadModel(resolveCheckpoint(checkpoint), { dtype });
  if (!upcycle) return loaded;
  try {
    const { model, report } = upcycleWithReport(loaded, upcycle);
    log(
      `upcycled layers ${report.layers.join(', ')}: ${report.parameters.before.toLocaleString('en')} → ${report.parameters.after.toLocaleString('en')} parameters, ` +
        `${report.initialised.length} new tensors`,
    );
    return model;
  } finally {
    loaded.dispose();
  }
}

/** The first characters of a text, up to a space. */
function beginning(text: string, characters: number | null): string {
  if (characters === null || text.length <= characters) return text;
  const space = text.lastIndexOf(' ', characters);
  return text.slice(0, space > 0 ? space : characters);
}

/** Held-out texts as tasks, and whatever else the recipe evaluates. */
async function tasksOf(recipe: Recipe): Promise<(Task | string)[]> {
  const texts: Task[] = [];
  for (const [name, source] of Object.entries(recipe.data.heldOut)) {
    const documents = (await collect(source)).map(({ id, text }) => ({
      id,
      text: beginning(text, recipe.evaluation.maxCharacters),
    }));
    texts.push(heldOutTextTask(name, documents));
  }
  if (recipe.evaluation.wordOrder) {
    const { source, pairs } = recipe.evaluation.wordOrder;
    const documents = (await collect(source)).map(({ text }) => text);
    texts.push(wordOrderTask('word-order', documents, { pairs, seed: 1 }));
  }
  return [...texts, ...recipe.evaluation.tasks];
}

async function evaluateInto(
  model: LanguageModel,
  tokenizer: Tokenizer,
  recipe: Recipe,
  folder: string,
  tasks: (Task | string)[],
  signal?: AbortSignal,
): Promise<Results> {
  mkdirSync(folder, { recursive: true });
  model.eval();
  const steps = evaluate(languageAdapter(model, { tokenizer, name: recipe.name }), {
    tasks,
    out: folder,
    scorer: recipe.evaluation.scorer,
    ...(recipe.evaluation.limit && { limit: recipe.evaluation.limit }),
    ...(signal && { signal }),
  });
  for (;;) {
    const step = await steps.next();
    if (step.done) return step.value;
  }
}

/** The headline number of every task: bits per byte, or accuracy. */
export function headlines(results: Results): Record<string, number> {
  const out: Record<string, number> = {};
  for (const [task, row] of Object.entries(results.results)) {
    const value = row['bits_per_byte,none'] ?? row['acc,none'];
    if (typeof value === 'number') out[task] = value;
  }
  return out;
}

async function trainAndEvaluate(
  recipe: Recipe,
  options: RunOptions,
  out: string,
  log: (line: string) => void,
  prepared: Prepared,
  model: LanguageModel,
  strategy: Strategy,
): Promise<RunResult> {
  const { training } = recipe;
  const { tokenizer, tokenizerFolder, loader } = prepared;
  model.activationCheckpointing = training.activationCheckpointing;
  const report = parameterReport(model.config, recipe.data.sequenceLength);
  log(
    `model: ${report.total.toLocaleString('en')} parameters, ${report.active.toLocaleString('en')} active per token`,
  );
  const tasks = await tasksOf(recipe);

  const callbacks: Callback[] = [];
  if (training.evaluateEvery !== null) {
    callbacks.push(
      evaluateEvery(training.evaluateEvery, async ({ step }) => {
        const results = await evaluateInto(
          model,
          tokenizer,
          recipe,
          path.join(out, 'eval', String(step)),
          tasks,
        );
        return headlines(results);
      }),
    );
  }
  callbacks.push(
    metricsLogger(path.join(out, 'metrics.jsonl')),
    tensorboardLogger(out),
    checkpointEvery(training.checkpointEvery),
  );
  if (options.status !== null)
    callbacks.push(statusLine({ label: recipe.name, ...(options.status && { output: options.status }) }));

  const started = performance.now();
  const optimizer = makeOptimizer(model.namedParameters(), training.optimizer);
  let last: StepReport | undefined;
  let seconds = 0;
  try {
    const steps = train(model, {
      data: loader,
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
        copyTokenizer(tokenizerFolder, folder);
      },
      loadModel: (folder) => readModelWeights(model, folder),
      ...(options.signal && { signal: options.signal }),
      warn: log,
    });
    let summary: TrainingSummary;
    for (;;) {
      const step = await steps.next();
      if (step.done) {
        summary = step.value;
        break;
      }
      last = step.value;
      seconds += step.value.seconds;
      options.onStep?.(step.value);
    }
    const flops = report.flopsPerToken * summary.tokens;
    const result: RunResult = {
      name: recipe.name,
      out,
      training: summary,
      last,
      seconds,
      parameters: report.total,
      activeParameters: report.active,
      flops,
      ...(summary.checkpoint && { checkpoint: summary.checkpoint }),
    };
    if (summary.completed && tasks.length > 0) {
      result.evaluation = await evaluateInto(
        model,
        tokenizer,
        recipe,
        path.join(out, 'eval', 'final'),
        tasks,
        options.signal,
      );
    }
    writeFileAtomically(
      path.join(out, 'summary.json'),
      json({
        model: model.config.moe
          ? `${model.config.moe.experts} experts, top ${model.config.moe.topK}, ${model.config.moe.router.name}`
          : 'dense',
        parameters: report.total,
        activeParameters: report.active,
        tokens: summary.tokens,
        flops,
        seconds: Number(seconds.toFixed(3)),
        wallSeconds: Number(((performance.now() - started) / 1000).toFixed(3)),
      }),
    );
    return result;
  } finally {
    optimizer.dispose();
  }
}
