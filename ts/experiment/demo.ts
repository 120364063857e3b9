import path from 'node:path';
import { fail, packageRoot } from '../native/index.ts';
import { report } from '../report/index.ts';
import type { StatusOutput } from '../training/index.ts';
import { headlines } from './evaluation.ts';
import { loadRecipe } from './recipe.ts';
import { type RunResult, runRecipe } from './run.ts';
import { madeFolder } from './standing.ts';

/** What the demo may be told. */
export interface DemoOptions {
  /** Default `runs/demo`. */
  out?: string;
  /** Seeds model, data order and routers. Default 42. */
  seed?: number;
  /** Lay each recipe's `smoke` block over it: the same at toy size, in seconds, with numbers that say nothing. */
  smoke?: boolean;
  signal?: AbortSignal;
  /** Gets one line for each thing that begins or ends. */
  log?: (line: string) => void;
  status?: StatusOutput | null;
  command?: readonly string[];
}

/** One of the three runs of the demo. */
export interface DemoRun {
  name: string;
  parameters: number;
  activeParameters: number;
  tokens: number;
  flops: number;
  seconds: number;
  /** On the held-out addresses. */
  bitsPerByte: number;
  /** Every evaluated task's headline number. */
  tasks: Record<string, number>;
}

/** What the demo found and where its report is. */
export interface DemoResult {
  seconds: number;
  report: string;
  runs: DemoRun[];
  /** Who won, by a paired bootstrap over documents. */
  verdicts: string[];
}

const recipeFile = (name: string): string => path.join(packageRoot, 'recipes', 'demo', `${name}.yaml`);

/**
 * The whole library in a few minutes: a tokenizer and a small dense language model from 200 years of State-of-the-Union addresses, sparse upcycling
 * into a mixture of experts, training of both for the same number of tokens, evaluation on held-out addresses, on the late years and on word-order
 * pairs, and a report. Stopped and called again it continues.
 * @throws ERR_LIBMOE_STATE when `out` holds a demo of another seed, size or version, ERR_LIBMOE_STOPPED when the signal was aborted
 */
export async function runDemo(options: DemoOptions = {}): Promise<DemoResult> {
  const started = performance.now();
  if (options.signal?.aborted) fail('ERR_LIBMOE_STOPPED', 'the demo was stopped before it began');
  const out = madeFolder(options.out ?? path.join('runs', 'demo'));
  const log = options.log ?? (() => {});
  const runs: RunResult[] = [];
  const go = async (
    recipe: string,
    name: string,
    title: string,
    changes: Record<string, unknown> = {},
  ): Promise<RunResult> => {
    const file = recipeFile(recipe);
    const all = {
      ...(options.smoke && loadRecipe(file).smoke),
      ...changes,
      name,
      ...(options.seed !== undefined && { seed: options.seed }),
    };
    log(`── ${title}`);
    const result = await runRecipe(file, all, {
      out: path.join(out, name),
      resume: true,
      log,
      ...(options.status !== undefined && { status: options.status }),
      ...(options.signal && { signal: options.signal }),
      ...(options.command && { command: options.command }),
    });
    if (!result.training.completed)
      fail(
        'ERR_LIBMOE_STOPPED',
        `stopped at step ${result.training.step} of ${name}; the same command continues`,
      );
    runs.push(result);
    return result;
  };
  const dense = await go('dense', 'dense', 'dense language model');
  const start = { checkpoint: dense.checkpoint };
  await go('upcycled', 'moe', 'the same, upcycled to a mixture of experts and trained on', { start });
  await go('continued', 'dense-continued', 'the same, trained on as it is, for as many tokens', { start });

  const file = path.join(out, 'report.html');
  const { verdicts } = await report(
    runs.map((run) => run.out),
    file,
    { title: 'libmoe demo: sparse upcycling of a small language model', compare: ['moe', 'dense-continued'] },
  );
  return {
    seconds: (performance.now() - started) / 1000,
    report: file,
    verdicts,
    runs: runs.map((run) => {
      const tasks = run.evaluation ? headlines(run.evaluation) : {};
      return {
        name: run.name,
        parameters: run.parameters,
        activeParameters: run.activeParameters,
        tokens: run.training.tokens,
        flops: run.flops ?? Number.NaN,
        seconds: run.seconds,
        bitsPerByte: tasks['held-out'] ?? Number.NaN,
        tasks,
      };
    }),
  };
}
