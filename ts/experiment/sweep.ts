import { createHash } from 'node:crypto';
import { existsSync, renameSync, rmSync } from 'node:fs';
import path from 'node:path';
import { answerPriors } from '../evaluation/index.ts';
import { codeOf, fail } from '../native/index.ts';
import { readJsonObject, writeFileAtomically } from '../storage/index.ts';
import { nearestKey } from '../storage/schema-errors.ts';
import type { StatusOutput, StepReport } from '../training/index.ts';
import { type AnyRecipe, type AnyRecipeInput, loadAnyRecipe } from './recipe.ts';
import { runRecipe } from './run.ts';
import { differences, madeFolder } from './standing.ts';
import { copyFolder } from './sweep-copy.ts';
import {
  type LoadSweepOptions,
  openSweep,
  type Sweep,
  type SweepInput,
  type SweepRun,
} from './sweep-file.ts';
import { measure } from './sweep-measure.ts';
import { type SweepOutcome, type SweepResults, sweepResults } from './sweep-results.ts';
import { recordStart, startsAlike } from './sweep-start.ts';
import { sweepFigure, sweepTable } from './sweep-table.ts';

/** Where and how {@link runSweep} works. */
export interface SweepOptions extends LoadSweepOptions {
  /** The sweep's folder; default `runs/<name>`. A run goes to `<variant>/<seed>` in it. */
  out?: string;
  /** Only runs of these variants. */
  only?: readonly string[];
  /** `[1, 2]`: the first, third, … run; `[2, 2]`: the others. For several processes at once. */
  part?: readonly [number, number];
  /** Ends the present run after its step, with a checkpoint; the same call continues. */
  signal?: AbortSignal;
  /** Recorded in every run's environment.json. */
  command?: readonly string[];
  /** Gets one line for each thing that begins or ends. */
  log?: (line: string) => void;
  /** Where the status line of a run goes; null: nowhere. */
  status?: StatusOutput | null;
  /** Called after every step of every run. */
  onStep?: (report: StepReport, run: SweepRun) => void;
}

/** What {@link runSweep} did. */
export interface SweepSummary {
  out: string;
  results: SweepResults;
  /** The results as Markdown. */
  table: string;
  /** Whether the signal ended it. */
  stopped: boolean;
}

/** What may differ between a finished run and the sweep's recipe for it: nothing of this changes what was measured. */
const mayDiffer = [
  'name',
  'device',
  'data.cache',
  'data.workers',
  'training.activationCheckpointing',
  'training.checkpointEvery',
  'training.keepCheckpoints',
  'smoke',
];

/**
 * Carries out a sweep: every combination of its axes as an ordinary run, one after the other, then `results.json`, `results.md` and `results.svg`.
 * A run that is finished on disk with the same recipe is not done again; one that was interrupted goes on from its checkpoint; the folder of a run
 * whose recipe, or the checkpoint it starts from, has changed is renamed and the run done anew. A run that fails is recorded and the others go on; called again, it is tried again.
 * @throws ERR_LIBMOE_RECIPE, ERR_LIBMOE_FILE before anything is run
 */
export async function runSweep(
  source: string | SweepInput,
  options: SweepOptions = {},
): Promise<SweepSummary> {
  const sweep = await openSweep(source, options);
  const chosen = chosenRuns(sweep, options);
  const out = madeFolder(options.out ?? path.join('runs', sweep.name));
  const { log = () => {}, signal } = options;
  const waiting = chosen.filter((run) => statusOf(out, run) !== 'done');
  log(`${sweep.name}: ${chosen.length} runs, ${chosen.length - waiting.length} of them done`);
  let seconds = 0;
  for (const [i, run] of waiting.entries()) {
    if (signal?.aborted) break;
    const left = i === 0 ? '' : `, ${remaining((seconds / i) * (waiting.length - i))} left`;
    log(`── run ${i + 1} of ${waiting.length}: ${run.variant}, seed ${run.seed}${left}`);
    const started = performance.now();
    await carryOut(sweep, run, out, options);
    seconds += (performance.now() - started) / 1000;
  }
  return { out, ...(await writeResults(sweep, out)), stopped: signal?.aborted ?? false };
}

/** The runs that a sweep consists of, as they would be done, with what is on disk. */
export async function plannedRuns(
  source: string | SweepInput,
  options: SweepOptions = {},
): Promise<{ folder: string; variant: string; seed: number; status: SweepOutcome['status'] }[]> {
  const sweep = await openSweep(source, options);
  const out = path.resolve(options.out ?? path.join('runs', sweep.name));
  return chosenRuns(sweep, options).map((run) => ({
    folder: path.join(out, run.folder),
    variant: run.variant,
    seed: run.seed,
    status: statusOf(out, run),
  }));
}

function chosenRuns(sweep: Sweep, { only, part }: SweepOptions): SweepRun[] {
  for (const variant of only ?? []) {
    if (sweep.variants.includes(variant)) continue;
    const near = nearestKey(variant, sweep.variants);
    fail(
      'ERR_LIBMOE_ARGUMENT',
      `${sweep.name} has no variant "${variant}"${near ? `, did you mean "${near}"?` : ` (known: ${sweep.variants.join(', ')})`}`,
    );
  }
  const [number, parts] = part ?? [1, 1];
  if (!(Number.isInteger(number) && Number.isInteger(parts) && number >= 1 && number <= parts))
    fail('ERR_LIBMOE_ARGUMENT', `part must be such as [1, 2], the first of two, got [${number}, ${parts}]`);
  return sweep.runs
    .filter(({ variant }) => only?.includes(variant) ?? true)
    .filter((_, i) => i % parts === number - 1);
}

const remaining = (seconds: number): string =>
  seconds < 90 ? `about ${Math.ceil(seconds)} s` : `about ${Math.round(seconds / 60)} min`;

/** The recipe that a folder's run was done with; undefined when there is none, null when it cannot be read. */
function storedRecipe(folder: string): AnyRecipe | null | undefined {
  const file = path.join(folder, 'recipe.yaml');
  if (!existsSync(file)) return undefined;
  try {
    return loadAnyRecipe(file);
  } catch (error) {
    if (codeOf(error) === undefined) throw error;
    return null;
  }
}

/** Whether the run in a folder is that of the recipe. */
const isSame = (folder: string, stored: AnyRecipe | null | undefined, recipe: AnyRecipe): boolean =>
  !!stored && differences(stored, recipe, mayDiffer).length === 0 && startsAlike(folder, stored, recipe);

function statusOf(out: string, { folder, recipe }: SweepRun): SweepOutcome['status'] {
  const place = path.join(out, folder);
  const has = (...parts: string[]): boolean => existsSync(path.join(place, ...parts));
  if (!isSame(place, storedRecipe(place), recipe)) return has('failed.json') ? 'failed' : 'waiting';
  const done =
    has('summary.json') &&
    has('metrics.jsonl') &&
    readJsonObject(path.join(place, 'summary.json')).completed === true &&
    (!isEvaluated(recipe) || has('eval', 'final', 'results.json'));
  return done ? 'done' : has('failed.json') ? 'failed' : 'waiting';
}

function isEvaluated(recipe: AnyRecipe): boolean {
  if (recipe.kind === 'image-text') return false;
  if (recipe.evaluation.tasks.length > 0) return true;
  return (
    recipe.kind === 'language' &&
    (Object.keys(recipe.data.heldOut).length > 0 || recipe.evaluation.wordOrder !== undefined)
  );
}

/** One run of the sweep. Its error is recorded, not thrown. */
async function carryOut(sweep: Sweep, run: SweepRun, out: string, options: SweepOptions): Promise<void> {
  const { log = () => {}, signal } = options;
  const folder = path.join(out, run.folder);
  const stored = storedRecipe(folder);
  const goesOn = isSame(folder, stored, run.recipe);
  if (stored !== undefined && !goesOn) {
    let number = 1;
    while (existsSync(`${folder}.replaced-${number}`)) number += 1;
    log(`its recipe or its start has changed: the old run is kept as ${run.folder}.replaced-${number}`);
    renameSync(folder, `${folder}.replaced-${number}`);
  }
  const failure = path.join(folder, 'failed.json');
  rmSync(failure, { force: true });
  const { data } = run.recipe;
  const recipe = {
    ...run.recipe,
    data: { ...data, cache: data.cache ?? path.join(out, 'cache') },
  } as AnyRecipe;
  const tokenizer = sharedTokenizer(recipe, out);
  try {
    if (!goesOn) recordStart(folder, run.recipe);
    if (tokenizer !== undefined && existsSync(tokenizer) && !existsSync(path.join(folder, 'tokenizer')))
      copyFolder(tokenizer, path.join(folder, 'tokenizer'));
    const { training } = await runRecipe(
      recipe as AnyRecipeInput,
      {},
      {
        out: folder,
        resume: true,
        log,
        ...(options.status !== undefined && { status: options.status }),
        ...(signal && { signal }),
        ...(options.command && { command: options.command }),
        ...(options.onStep && { onStep: (report: StepReport) => options.onStep?.(report, run) }),
      },
    );
    if (tokenizer !== undefined && !existsSync(tokenizer))
      copyFolder(path.join(folder, 'tokenizer'), tokenizer);
    if (training.completed && sweep.checkpoints === 'none')
      rmSync(path.join(folder, 'checkpoints'), { recursive: true, force: true });
  } catch (error) {
    if (signal?.aborted) return;
    const message = error instanceof Error ? error.message : String(error);
    log(`failed: ${message}`);
    writeFileAtomically(failure, `${JSON.stringify({ error: message }, null, 2)}\n`);
  }
}

/** Where the tokenizer that runs train is kept for the next of them; undefined when they do not train one. */
function sharedTokenizer({ tokenizer, data }: AnyRecipe, out: string): string | undefined {
  if (typeof tokenizer !== 'object') return undefined;
  const key = JSON.stringify([tokenizer, data.train, 'separator' in data && data.separator]);
  return path.join(out, 'cache', `tokenizer-${createHash('sha256').update(key).digest('hex').slice(0, 16)}`);
}

/** Data that cannot be read cost a line of the table, not the table. */
function unlessOurs(error: unknown): undefined {
  if (codeOf(error) === undefined) throw error;
}

/** Reads all runs of the sweep from disk, those of other processes too, and writes what they say. */
async function writeResults(sweep: Sweep, out: string): Promise<Pick<SweepSummary, 'results' | 'table'>> {
  const outcomes = sweep.runs.map((run): SweepOutcome => {
    const { variant, seed, folder } = run;
    const place = path.join(out, folder);
    const status = statusOf(out, run);
    return {
      variant,
      seed,
      folder,
      status,
      ...(status === 'done' && { metrics: measure(place, sweep.task) }),
      ...(status === 'failed' && { error: String(readJsonObject(path.join(place, 'failed.json')).error) }),
    };
  });
  const { questions } = sweep.task ?? {};
  const { recipe } = sweep.runs[0]!;
  const limit = 'evaluation' in recipe ? recipe.evaluation.limit : undefined;
  const priors = questions && (await answerPriors(questions, { limit }).catch(unlessOurs));
  const results = { ...sweepResults(sweep, outcomes, out), ...(priors && { priors }) };
  const table = sweepTable(results, sweep.columns);
  const svg = await sweepFigure(results);
  writeFileAtomically(path.join(out, 'results.json'), `${JSON.stringify(results, null, 2)}\n`);
  writeFileAtomically(path.join(out, 'results.md'), table);
  if (svg !== undefined) writeFileAtomically(path.join(out, 'results.svg'), svg);
  return { results, table };
}
