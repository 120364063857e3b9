import { existsSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { fail } from '../native/index.ts';
import { Journal, readJournal, writeFileAtomically } from '../storage/index.ts';
import { nearestKey } from '../storage/schema-errors.ts';
import {
  type BestMetric,
  BestSoFar,
  type EarlyStopping,
  type EvaluationLine,
  evaluationsFile,
} from './best-so-far.ts';
import type { Callback, Run } from './callbacks.ts';
import { listCheckpoints, nameCheckpoint } from './checkpoint.ts';

/** When a training is evaluated, and what comes of it. */
export interface EvaluateDuringOptions {
  /**
   * Gives numbers by name, such as `{ 'piqa/acc': 0.61 }`; one that is not finite counts as none. The model is the caller's: training knows no tasks.
   * It must leave the parameters as they are.
   */
  evaluate: (run: Run) => Record<string, number> | Promise<Record<string, number>>;
  /** Marks what is asked, such as a hash: evaluations of an earlier start with another mark count neither as the best nor for stopping. */
  asked?: string;
  /** After every so many steps; below 1: after every such share of all steps. */
  every?: number;
  /** After these shares of all steps: `[0.25, 0.5]`. The end of the training is evaluated in any case. */
  at?: readonly number[];
  /** Before the first step too. That evaluation is never the best: it has no checkpoint. */
  first?: boolean;
  /** With an `out`: keeps the checkpoint of the best evaluation under the name `best`. */
  best?: BestMetric;
  /** Ends the training as complete when `best` no longer gets better. */
  earlyStopping?: EarlyStopping;
  /** Gets a line per evaluation. */
  log?: (line: string) => void;
}

/**
 * Evaluates while training goes on. The numbers go into the step's report and so into the logs, and with an `out` into `<out>/evaluations.jsonl`, a line
 * per evaluation ({@link EvaluationLine}). A resumed run ends with the same lines, the same best and the same stop as one that was never disturbed.
 * @throws ERR_LIBMOE_ARGUMENT for options that do not fit together, and, at the first evaluation, for a metric that it does not give
 */
export function evaluateDuring(options: EvaluateDuringOptions): Callback {
  checkOptions(options);
  const { evaluate, asked, first = false, best, log = () => {} } = options;
  let due: (step: number) => boolean = () => false;
  let follow: BestSoFar | undefined;
  let journal: Journal | undefined;

  const measure = async (run: Run): Promise<Record<string, number>> => {
    const given = await evaluate(run);
    if (best && !Object.hasOwn(given, best.metric)) unknownMetric(best.metric, Object.keys(given));
    const values = Object.entries(given).map(([name, value]) => [
      name,
      Number.isFinite(value) ? value : null,
    ]);
    const line = judged(
      {
        ...{ step: run.step, tokens: run.tokens },
        ...(asked !== undefined && { asked }),
        values: Object.fromEntries(values),
      },
      run.step > 0 ? follow : undefined,
      best,
      run.totalSteps,
    );
    journal?.append(line);
    if (line.best && run.out !== undefined) run.requestCheckpoint('best');
    log(described(line, run, follow));
    if (line.stop !== undefined) end(line.stop, run);
    return Object.fromEntries(Object.entries(given).filter(([, value]) => Number.isFinite(value)));
  };
  const end = (reason: string, run: Run): void => {
    log(`ending at step ${run.step} of ${run.totalSteps}: ${reason}`);
    run.finish(reason);
  };

  return {
    name: 'evaluation',
    async onStart(run) {
      due = dueSteps(options, run.totalSteps);
      follow = best && new BestSoFar(best, options.earlyStopping);
      if (run.out !== undefined) {
        const file = join(run.out, evaluationsFile);
        const kept = new Set(listCheckpoints(join(run.out, 'checkpoints')).map(({ step }) => step));
        // A number that this run does not ask for cannot be compared; of another metric than before the best may have no checkpoint.
        const counts = (line: EvaluationLine): boolean =>
          line.step > 0 &&
          best !== undefined &&
          line.asked === asked &&
          Object.hasOwn(line.values, best.metric) &&
          (line.metric === best.metric || kept.has(line.step));
        const lines = linesBefore(file, run.step).map((line) =>
          judged(line, counts(line) ? follow : undefined, best, run.totalSteps),
        );
        const others = follow ? lines.filter((line) => line.step > 0 && !counts(line)).length : 0;
        if (others > 0)
          log(`${others} earlier evaluations asked something else: they are not compared with those to come`);
        writeFileAtomically(file, lines.map((line) => `${JSON.stringify(line)}\n`).join(''));
        journal = new Journal(file);
        if (run.step > 0 && best) restoreName(run, follow?.best?.step, log);
        const stop = lines.at(-1)?.stop;
        if (stop !== undefined && run.step < run.totalSteps) end(stop, run);
      }
      if (!first || run.step > 0) return;
      log('evaluating before the first step');
      await measure(run);
    },
    async onStep(report, run) {
      if (!due(report.step)) return;
      report.evaluation = { ...report.evaluation, ...(await measure(run)) };
    },
    close() {
      journal?.close();
      journal = undefined;
    },
  };
}

/** Whether to evaluate after a step. */
function dueSteps({ every, at = [] }: EvaluateDuringOptions, total: number): (step: number) => boolean {
  if (every === undefined && at.length === 0) return () => false;
  const shares =
    every !== undefined && every < 1
      ? Array.from({ length: Math.round(1 / every) }, (_, i) => (i + 1) * every)
      : [];
  const steps = new Set([...at, ...shares].map((share) => Math.max(1, Math.round(share * total))));
  const period = every !== undefined && every >= 1 ? every : undefined;
  return (step) => step === total || steps.has(step) || (period !== undefined && step % period === 0);
}

/** The lines that an earlier start of the run wrote up to its checkpoint. */
function linesBefore(file: string, step: number): EvaluationLine[] {
  // Without a checkpoint the run begins anew.
  if (step === 0 || !existsSync(file)) return [];
  const lines = readJournal(file) as unknown as EvaluationLine[];
  return lines.filter((line) => line.step <= step);
}

/**
 * A line with what it means for best and stop, by the options at hand: those of an earlier start may have been others.
 * @param follow absent for a line that does not count, such as the one before the first step, which has no checkpoint to keep
 */
function judged(
  line: EvaluationLine,
  follow: BestSoFar | undefined,
  metric: BestMetric | undefined,
  totalSteps: number,
): EvaluationLine {
  const { step, tokens, asked, values } = line;
  const told = { step, tokens, ...(asked !== undefined && { asked }), values };
  if (!metric) return told;
  const { best, stop } = follow?.add(step, values[metric.metric]) ?? { best: false };
  return {
    ...told,
    ...metric,
    ...(best && { best }),
    ...(stop !== undefined && step < totalSteps && { stop }),
  };
}

/** After a crash, or with another metric than before, the name may stand at another checkpoint than the best. */
function restoreName(run: Run, step: number | undefined, log: (line: string) => void): void {
  const root = join(run.out!, 'checkpoints');
  if (step !== undefined && listCheckpoints(root).some((checkpoint) => checkpoint.step === step)) {
    nameCheckpoint(root, 'best', step);
    return;
  }
  rmSync(join(root, 'best'), { force: true });
  if (step !== undefined)
    log(
      `the best evaluation was at step ${step}, whose checkpoint is not there: "best" will be the next that is better`,
    );
}

function described(
  { step, values, metric, best }: EvaluationLine,
  { totalSteps }: Run,
  follow?: BestSoFar,
): string {
  const shown = Object.entries(values)
    .filter(([name]) => metric === undefined || name === metric)
    .slice(0, 4)
    .map(([name, value]) => `${name} ${value === null ? 'N/A' : value.toFixed(4)}`);
  const more = metric === undefined && Object.keys(values).length > 4 ? ', …' : '';
  const of = follow?.best;
  const rank =
    step === 0 || !of
      ? ''
      : best
        ? ', the best so far'
        : `; the best is ${of.value.toFixed(4)} of step ${of.step}`;
  return `evaluation at step ${step} of ${totalSteps}: ${shown.join(', ')}${more}${rank}`;
}

function unknownMetric(metric: string, known: readonly string[]): never {
  const near = nearestKey(metric, known);
  return fail(
    'ERR_LIBMOE_ARGUMENT',
    `no evaluation gives "${metric}"; ${near === undefined ? `there are ${known.join(', ') || 'none'}` : `did you mean "${near}"?`}`,
  );
}

function checkOptions({ every, at, first, best, earlyStopping }: EvaluateDuringOptions): void {
  const refuse = (message: string): never => fail('ERR_LIBMOE_ARGUMENT', `evaluateDuring: ${message}`);
  if (every === undefined && at === undefined && !first) refuse('give every, at or first');
  if (every !== undefined && !(every > 0 && (every < 1 || Number.isInteger(every))))
    refuse(`every must be a whole number of steps or a share below 1, got ${every}`);
  const wrong = at?.find((share) => !(share > 0 && share <= 1));
  if (wrong !== undefined) refuse(`at holds shares of all steps, above 0 and up to 1, got ${wrong}`);
  if (earlyStopping === undefined) return;
  const { patience, minDelta = 0 } = earlyStopping;
  if (best === undefined) refuse('earlyStopping needs best: what is to become better');
  if (!(Number.isInteger(patience) && patience > 0))
    refuse(`patience must be a positive integer, got ${patience}`);
  if (!(minDelta >= 0)) refuse(`minDelta must be 0 or more, got ${minDelta}`);
}
