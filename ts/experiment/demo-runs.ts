import path from 'node:path';
import { fail, packageRoot } from '../native/index.ts';
import type { StatusOutput } from '../training/index.ts';
import { loadAnyRecipe } from './recipe.ts';
import { type RunResult, runRecipe } from './run.ts';
import { madeFolder } from './standing.ts';

/** What the demo may be told. */
export interface DemoOptions {
  /** Default `runs/demo`, `runs/demo-vision`. */
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

/** The runs of a demo, one after the other in its folder. */
export interface DemoRuns {
  out: string;
  /** Those that are done. */
  runs: RunResult[];
  /** Carries out a recipe of the demo as the run `name`. @throws ERR_LIBMOE_STOPPED when the signal was aborted */
  go(recipe: string, name: string, title: string, changes?: Record<string, unknown>): Promise<RunResult>;
}

/** @param demo the folder of its recipes, and of its runs unless the options name another */
export function beginDemo(demo: string, options: DemoOptions): DemoRuns {
  if (options.signal?.aborted) fail('ERR_LIBMOE_STOPPED', 'the demo was stopped before it began');
  const out = madeFolder(options.out ?? path.join('runs', demo));
  const log = options.log ?? (() => {});
  const runs: RunResult[] = [];
  return {
    out,
    runs,
    async go(recipe, name, title, changes = {}) {
      const file = path.join(packageRoot, 'recipes', demo, `${recipe}.yaml`);
      const all = {
        ...(options.smoke && loadAnyRecipe(file).smoke),
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
    },
  };
}
