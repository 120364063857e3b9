import { existsSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { fail } from '../native/index.ts';
import type { JsonValue } from '../storage/index.ts';
import { readSafetensors, recoverAll, writeShardedSafetensors } from '../storage/index.ts';
import type { Run } from './callbacks.ts';
import {
  checkpointPath,
  listCheckpoints,
  nameCheckpoint,
  newestIntact,
  readCheckpoint,
  writeCheckpoint,
} from './checkpoint.ts';
import type { TrainOptions } from './loop.ts';
import type { TrainableModel } from './micro-step.ts';
import type { TrainingSummary } from './step-report.ts';
import type { Strategy } from './strategy/strategy.ts';

/** The state of a training that the loop moves on. */
export interface OpenRun extends Run {
  readonly seed: number;
  /** A step is done. */
  advance(step: number, tokens: number): void;
  /** A callback asked for a checkpoint of the present step. */
  readonly checkpointWanted: boolean;
  /** Writes a checkpoint of the present state, unless that was done already. */
  saveCheckpoint(): Promise<string>;
  summary(completed: boolean, endedEarly: string | undefined): TrainingSummary;
}

/** Begins a training or takes it up where its newest intact checkpoint left it. */
export async function openRun<Batch>(
  model: TrainableModel<Batch>,
  options: TrainOptions<Batch> & { strategy: Strategy },
  { stop, finish }: Pick<Run, 'stop' | 'finish'>,
): Promise<OpenRun> {
  const { out, optimizer, data, steps, strategy, retention, callbacks = [] } = options;
  const warn = options.warn ?? ((message: string) => process.stderr.write(`${message}\n`));
  const root = out === undefined ? undefined : join(out, 'checkpoints');
  const { save, load } = out === undefined ? {} : modelFiles(model, options);
  let [step, tokens, seed] = [0, 0, options.seed ?? 0];
  let wanted: Set<string> | undefined;
  let saved: { step: number; path: string } | undefined;

  if (out !== undefined && root !== undefined && load) {
    await strategy.onFirstRank(async () => recoverAll(root));
    if (options.resume) {
      const found = newestIntact(root, strategy.rank === 0 ? warn : () => {});
      await checkSame(strategy, root, found?.step ?? 0);
      if (found) {
        const state = await readCheckpoint(found.path, optimizer, load);
        if (options.seed !== undefined && options.seed !== state.seed) {
          warn(`the seed ${state.seed} of ${found.path} is used, not ${options.seed}`);
        }
        data.restore(state.loader);
        for (const callback of callbacks) {
          const own = state.callbacks[callback.name];
          if (own !== undefined) callback.restore?.(own);
        }
        ({ step, tokens, seed } = state);
        saved = found;
      }
    } else refuseUsed(out);
    // Nobody writes before all have looked.
    await strategy.reduceCounts([0]);
  }

  const opened: OpenRun = {
    get step() {
      return step;
    },
    get tokens() {
      return tokens;
    },
    totalSteps: steps,
    out,
    seed,
    stop,
    finish,
    advance(to, more) {
      step = to;
      tokens += more;
    },
    get checkpointWanted() {
      return wanted !== undefined;
    },
    requestCheckpoint(name) {
      if (!save) noFolder();
      wanted ??= new Set();
      if (name !== undefined) wanted.add(name);
    },
    async saveCheckpoint() {
      if (root === undefined || !save) return noFolder();
      const names = [...(wanted ?? [])];
      wanted = undefined;
      if (saved?.step === step) {
        for (const name of names) nameCheckpoint(root, name, step);
        return saved.path;
      }
      for (const callback of callbacks) await callback.onCheckpoint?.(opened);
      const states: Record<string, JsonValue> = {};
      for (const callback of callbacks) {
        const own = callback.state?.();
        if (own !== undefined) states[callback.name] = own;
      }
      const { worldSize } = strategy;
      const loader = data.state();
      const state = { step, tokens, seed, totalSteps: steps, loader, callbacks: states, worldSize };
      const path = await writeCheckpoint(root, state, optimizer, save, retention, names);
      saved = { step, path };
      return path;
    },
    summary(completed, endedEarly) {
      // Rank 0 writes for all.
      const path = saved?.path ?? (root !== undefined && step > 0 ? checkpointPath(root, step) : undefined);
      return {
        step,
        tokens,
        completed,
        ...(endedEarly !== undefined && { endedEarly }),
        ...(path !== undefined && { checkpoint: path }),
      };
    },
  };
  return opened;
}

/** Ranks that see other checkpoints would go on from other steps. */
async function checkSame(
  { rank, worldSize, reduceCounts }: Strategy,
  root: string,
  step: number,
): Promise<void> {
  const steps = await reduceCounts(Array.from({ length: worldSize }, (_, r) => (r === rank ? step : 0)));
  const other = steps.findIndex((found) => found !== steps[0]);
  if (other > 0)
    fail(
      'ERR_LIBMOE_CHECKPOINT',
      `in ${root} rank 0 finds the checkpoint of step ${steps[0]} and rank ${other} that of step ${steps[other]} (0: none): ` +
        'the run folder must lie on a file system that all ranks share',
    );
}

function noFolder(): never {
  fail('ERR_LIBMOE_STATE', 'there is no folder for a checkpoint: give train() an `out`');
}

/** The checkpoint or metrics file by which a folder is seen to hold a run; undefined when it holds none. */
export function usedBy(out: string): string | undefined {
  const metrics = join(out, 'metrics.jsonl');
  return (
    listCheckpoints(join(out, 'checkpoints'))[0]?.path ??
    (existsSync(metrics) && statSync(metrics).size > 0 ? metrics : undefined)
  );
}

/** A new run must not mix with an old one. */
function refuseUsed(out: string): void {
  const used = usedBy(out);
  if (used === undefined) return;
  fail('ERR_LIBMOE_STATE', `${out} holds a run already (${used}): resume it, or choose another folder`);
}

type ModelFiles = Record<'save' | 'load', (folder: string) => void | Promise<void>>;

/** How checkpoints hold the model: as the caller says, or its state dict. */
function modelFiles<Batch>(model: TrainableModel<Batch>, options: TrainOptions<Batch>): ModelFiles {
  const { saveModel, loadModel } = options;
  if ((saveModel === undefined) !== (loadModel === undefined)) {
    fail('ERR_LIBMOE_ARGUMENT', 'train: give both saveModel and loadModel, or neither');
  }
  if (saveModel && loadModel) return { save: saveModel, load: loadModel };
  if (!model.stateDict || !model.loadStateDict) {
    fail(
      'ERR_LIBMOE_ARGUMENT',
      'train: this model has no stateDict and loadStateDict, so give saveModel and loadModel',
    );
  }
  return {
    save: (folder) => {
      writeShardedSafetensors(folder, model.stateDict!());
    },
    load: (folder) => {
      const state = readSafetensors(folder);
      try {
        model.loadStateDict!(state);
      } finally {
        for (const tensor of state.values()) tensor.dispose();
      }
    },
  };
}
