import { existsSync, readdirSync, readFileSync, renameSync, rmSync } from 'node:fs';
import { basename, join } from 'node:path';
import { fail } from '../native/index.ts';
import {
  isJsonObject,
  type JsonObject,
  type JsonValue,
  readJson,
  readJsonObject,
  recoverAll,
  verifyFolder,
  writeChecksums,
  writeFileAtomically,
  writeFolderAtomically,
} from '../storage/index.ts';
import type { Optimizer } from './optimizer.ts';
import { readOptimizerState, writeOptimizerState } from './optimizer-state.ts';

/** Everything that a training is, apart from what its options say. */
export interface TrainingState {
  /** Steps done. */
  step: number;
  tokens: number;
  totalSteps: number;
  /** With the step, the whole state of all random numbers: they are Philox counters. */
  seed: number;
  loader: JsonValue;
  callbacks: Record<string, JsonValue>;
  worldSize: number;
}

/** Which checkpoints of a run are kept. */
export interface Retention {
  /** The newest so many are kept; at least 1. Default 2: resume may need the one before the last. */
  keepLast?: number;
  /** Those of every so many steps are kept for ever. */
  keepEvery?: number;
}

/** A complete checkpoint on disk. */
export interface CheckpointFolder {
  step: number;
  path: string;
}

/** The file that names the newest complete checkpoint. */
const latestFile = 'latest';

/**
 * Writes `<root>/step-<step>`: the model by `saveModel`, `trainer.json`, `optimizer-00000.safetensors`, `loader.json`, `rng.json` and
 * `checksums.json`. It has its name only when it is whole and durable; then `latest` names it and old ones go. Returns the folder.
 * @param names other names that are to be its own from now on, such as `best`; a checkpoint that has one is kept
 */
export async function writeCheckpoint(
  root: string,
  state: TrainingState,
  optimizer: Optimizer,
  saveModel: (folder: string) => void | Promise<void>,
  retention: Retention = {},
  names: readonly string[] = [],
): Promise<string> {
  const { step, tokens, totalSteps, seed, loader, callbacks, worldSize } = state;
  const path = checkpointPath(root, step);
  const put = (folder: string, file: string, value: JsonValue) =>
    writeFileAtomically(join(folder, file), `${JSON.stringify(value, null, 2)}\n`);
  await writeFolderAtomically(path, async (folder) => {
    await saveModel(folder);
    put(folder, 'trainer.json', { format: 1, step, tokens, totalSteps, worldSize, callbacks });
    put(folder, 'loader.json', loader);
    put(folder, 'rng.json', { seed, step });
    writeOptimizerState(folder, optimizer);
    writeChecksums(folder);
  });
  for (const name of [latestFile, ...names]) nameCheckpoint(root, name, step);
  prune(root, step, retention);
  return path;
}

/** Where the checkpoint of a step lies. */
export const checkpointPath = (root: string, step: number): string =>
  join(root, `step-${String(step).padStart(6, '0')}`);

/** Lets a file of the folder `root` name the checkpoint of a step. A checkpoint that has a name is kept, whatever the retention says. */
export function nameCheckpoint(root: string, name: string, step: number): void {
  writeFileAtomically(join(root, name), `${basename(checkpointPath(root, step))}\n`);
}

/** The checkpoint that has a name, such as `best`; undefined when there is none. */
export function namedCheckpoint(root: string, name: string): CheckpointFolder | undefined {
  const file = join(root, name);
  if (!existsSync(file)) return undefined;
  const folder = readFileSync(file, 'utf8').trim();
  return listCheckpoints(root).find(({ path }) => basename(path) === folder);
}

/** The checkpoints of a folder, newest first. Half-written ones have no such name and are not among them. */
export function listCheckpoints(root: string): CheckpointFolder[] {
  if (!existsSync(root)) return [];
  return readdirSync(root, { withFileTypes: true })
    .flatMap((entry) => {
      const match = entry.isDirectory() ? /^step-(\d{6,})$/.exec(entry.name) : null;
      return match ? [{ step: Number(match[1]), path: join(root, entry.name) }] : [];
    })
    .sort((a, b) => b.step - a.step);
}

/**
 * The newest checkpoint whose files are all there and undamaged; `warn` hears of every newer one that is not. Undefined when the folder
 * has none at all. Throws ERR_LIBMOE_CHECKPOINT when every one is damaged.
 */
export function newestIntact(root: string, warn: (message: string) => void): CheckpointFolder | undefined {
  const all = listCheckpoints(root);
  for (const checkpoint of all) {
    try {
      verifyFolder(checkpoint.path);
      return checkpoint;
    } catch (error) {
      warn(`${(error as Error).message}; falling back to the checkpoint before it`);
    }
  }
  if (all.length === 0) return undefined;
  fail('ERR_LIBMOE_CHECKPOINT', `every checkpoint in ${root} is damaged; delete the folder to start anew`);
}

/** Reads a checkpoint into a model (by `loadModel`) and an optimizer; returns the rest. Throws ERR_LIBMOE_CHECKPOINT. */
export async function readCheckpoint(
  path: string,
  optimizer: Optimizer,
  loadModel: (folder: string) => void | Promise<void>,
): Promise<TrainingState> {
  const code = 'ERR_LIBMOE_CHECKPOINT';
  const trainer = readJsonObject(join(path, 'trainer.json'), code);
  const rng = readJsonObject(join(path, 'rng.json'), code);
  const number = (object: JsonObject, file: string, key: string): number => {
    const value = object[key];
    return typeof value === 'number' ? value : fail(code, `${join(path, file)} has no number "${key}"`);
  };
  if (trainer.format !== 1) {
    fail(
      code,
      `${join(path, 'trainer.json')} has the format ${JSON.stringify(trainer.format)}, this version reads 1`,
    );
  }
  const state: TrainingState = {
    step: number(trainer, 'trainer.json', 'step'),
    tokens: number(trainer, 'trainer.json', 'tokens'),
    totalSteps: number(trainer, 'trainer.json', 'totalSteps'),
    worldSize: number(trainer, 'trainer.json', 'worldSize'),
    seed: number(rng, 'rng.json', 'seed'),
    loader: readJson(join(path, 'loader.json'), code),
    callbacks: isJsonObject(trainer.callbacks) ? trainer.callbacks : {},
  };
  // The optimizer first: it checks everything before it writes, and a model that does not fit it would be of no use.
  readOptimizerState(path, optimizer);
  await loadModel(path);
  return state;
}

const going = '.removing-';

/** The steps whose checkpoints have a name. */
function namedSteps(root: string): Set<number> {
  const files = readdirSync(root, { withFileTypes: true }).filter(
    (entry) => entry.isFile() && !entry.name.startsWith('.'),
  );
  return new Set(files.flatMap(({ name }) => namedCheckpoint(root, name)?.step ?? []));
}

/** Removes old checkpoints. Those of later steps (damaged ones that a resume skipped) neither count nor go: training will replace them. */
function prune(root: string, step: number, { keepLast = 2, keepEvery }: Retention): void {
  recoverAll(root);
  sweep(root);
  const old = listCheckpoints(root).filter((checkpoint) => checkpoint.step <= step);
  const named = namedSteps(root);
  for (const checkpoint of old.slice(Math.max(1, keepLast))) {
    if (named.has(checkpoint.step)) continue;
    if (keepEvery !== undefined && checkpoint.step % keepEvery === 0) continue;
    // Out of sight in one rename, so that a crash never leaves half a checkpoint under a good name.
    renameSync(checkpoint.path, join(root, `${going}step-${checkpoint.step}`));
  }
  sweep(root);
}

function sweep(root: string): void {
  for (const name of readdirSync(root)) {
    if (name.startsWith(going)) rmSync(join(root, name), { recursive: true, force: true });
  }
}
