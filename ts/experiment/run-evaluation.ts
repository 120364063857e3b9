import { existsSync, mkdirSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { chooseTasks, type Results } from '../evaluation/index.ts';
import { rehearse } from '../evaluation/rehearsal.ts';
import { sha256, taskRecord } from '../evaluation/results.ts';
import { readJournal, writeFileAtomically } from '../storage/index.ts';
import {
  type BestMetric,
  type Callback,
  type EvaluationLine,
  evaluateDuring,
  evaluationsFile,
  namedCheckpoint,
  type TrainingSummary,
} from '../training/index.ts';
import { type AskedHow, evaluateInto } from './evaluation.ts';
import type { Job } from './job.ts';
import { askedDuring, refuseMetric } from './metric-names.ts';
import type { AnyRecipe } from './recipe.ts';

/** What the evaluations of a run need of it. */
export interface EvaluatedRun<Batch> {
  recipe: AnyRecipe;
  job: Job<Batch>;
  out: string;
  log: (line: string) => void;
  signal: AbortSignal | undefined;
}

/** The evaluations of a run, on rank 0. */
export interface RunEvaluations {
  /** Evaluates while training goes on, where the recipe says so. */
  callback: Callback | undefined;
  /** Evaluates what training has left. Undefined where there is nothing to ask, or where training was stopped. */
  atEnd(summary: TrainingSummary): Promise<Results | undefined>;
}

/** The best evaluation during a training. */
export interface BestEvaluation {
  metric: string;
  step: number;
  value: number;
  /** The model's folder; absent when its checkpoint is not there. */
  checkpoint?: string;
}

/**
 * What a recipe says of evaluation, made ready.
 * @throws ERR_LIBMOE_RECIPE for a metric that no evaluation gives, and, where a best is looked for, what is wrong with the tasks and their data
 */
export async function runEvaluations<Batch>(run: EvaluatedRun<Batch>): Promise<RunEvaluations> {
  const { recipe, job, out, log, signal } = run;
  if (recipe.kind === 'image-text') return { callback: undefined, atEnd: async () => undefined };
  const { scorer, limit, during, best: wanted, earlyStopping, finalWeights } = recipe.evaluation;
  const { evaluateEvery: every, evaluateAt: at, evaluateFirst: first } = recipe.training;
  const tasks = await job.tasks();
  const asked = { tasks: askedDuring(recipe, tasks), scorer, limit: during?.limit ?? limit };
  const place = (label: string | number): string => path.join(out, 'eval', String(label));
  const repeated = (every !== null || at.length > 0 || first) && asked.tasks.length > 0;
  const best = wanted && (await metricOf(wanted.metric, job, asked));
  return {
    callback: repeated
      ? evaluateDuring({
          ...(every !== null && { every }),
          at,
          first,
          log,
          ...(best && { best }),
          ...(earlyStopping && { earlyStopping }),
          asked: markOf(asked),
          evaluate: async ({ step }) =>
            numbersOf(
              await evaluateInto(
                job.evaluated({ training_step: step }),
                asked,
                place(step),
                // Before the first step there is nothing to save that a stop should wait for.
                step === 0 ? signal : undefined,
              ),
            ),
        })
      : undefined,
    async atEnd(summary) {
      if (!summary.completed || tasks.length === 0) return undefined;
      const found =
        finalWeights === 'best' ? namedCheckpoint(path.join(out, 'checkpoints'), 'best') : undefined;
      if (finalWeights === 'best' && !found)
        log('there is no checkpoint of a best evaluation: the weights of the last step are evaluated');
      const step = found?.step ?? summary.step;
      if (found && step !== summary.step) {
        log(`evaluating the best checkpoint, that of step ${step}`);
        await job.loadModel(found.path);
      }
      takeAnswers(place(step), place('final'));
      const facts = { training_step: step, weights: found ? 'best' : 'last' };
      return evaluateInto(job.evaluated(facts), { tasks, scorer, limit }, place('final'), signal);
    },
  };
}

/** Stands for what the evaluations of a run ask: tasks, documents, scorer. */
function markOf({ tasks, scorer, limit }: AskedHow): string {
  const records = chooseTasks(tasks).tasks.map(taskRecord);
  return sha256(JSON.stringify([records, scorer ?? null, limit ?? null])).slice(0, 12);
}

/** What was asked of the same weights is not asked again: answers are kept by weights and question. */
function takeAnswers(from: string, to: string): void {
  const [given, taken] = [from, to].map((folder) => path.join(folder, 'journal.jsonl'));
  if (!existsSync(given!) || existsSync(taken!)) return;
  mkdirSync(to, { recursive: true });
  writeFileAtomically(taken!, readFileSync(given!));
}

/** Every number of an evaluation as `TASK/METRIC` (with `,FILTER` where responses are filtered); NaN where there is none. */
export function numbersOf(results: Results): Record<string, number> {
  const numbers: Record<string, number> = {};
  for (const [task, row] of Object.entries({ ...results.results, ...results.groups }))
    for (const [key, value] of Object.entries(row)) {
      const [metric = '', filter] = key.split(',');
      if (filter === undefined || metric.endsWith('_stderr')) continue;
      const name = `${task}/${metric}${filter === 'none' ? '' : `,${filter}`}`;
      numbers[name] = typeof value === 'number' ? value : Number.NaN;
    }
  return numbers;
}

/** A metric that the evaluations during training will give, and whether more of it is better. */
async function metricOf<Batch>(metric: string, job: Job<Batch>, asked: AskedHow): Promise<BestMetric> {
  const { tasks, scorer, limit } = asked;
  const results = await rehearse(job.evaluated({}), { tasks, scorer, ...(limit && { limit }) });
  const known = Object.keys(numbersOf(results));
  if (!known.includes(metric)) refuseMetric(metric, known);
  const task = Object.keys(results.higher_is_better)
    .filter((name) => metric.startsWith(`${name}/`))
    .sort((a, b) => b.length - a.length)[0]!;
  const [plain = ''] = metric.slice(task.length + 1).split(/[/,]/);
  return { metric, higherIsBetter: results.higher_is_better[task]?.[plain] ?? true };
}

/** The best evaluation that a run folder tells of. */
export function bestIn(out: string): BestEvaluation | undefined {
  const file = path.join(out, evaluationsFile);
  if (!existsSync(file)) return undefined;
  const line = (readJournal(file) as unknown as EvaluationLine[]).findLast(({ best }) => best);
  const value = line?.values[line.metric!];
  if (line === undefined || typeof value !== 'number') return undefined;
  const checkpoint = namedCheckpoint(path.join(out, 'checkpoints'), 'best')?.path;
  return { metric: line.metric!, step: line.step, value, ...(checkpoint !== undefined && { checkpoint }) };
}
