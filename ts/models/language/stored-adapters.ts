import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { fail } from '../../native/index.ts';
import type { Adapters } from '../../nn/adapters.ts';
import { LowRank } from '../../nn/low-rank.ts';
import { writeFileAtomically } from '../../storage/atomic.ts';
import { type JsonObject, readJsonObject } from '../../storage/json.ts';
import { openSafetensors, writeSafetensors } from '../../storage/safetensors.ts';
import { noGrad, type Tensor } from '../../tensor/index.ts';

/** What was learnt beside the matrices of a model lies in `lora.safetensors`, and in this file how it is to be taken. */
const describing = 'lora.json';
const base = 'lora';

/** In which form a checkpoint folder has adapters. */
export interface StoredAdapters {
  rank: number;
  alpha: number;
  /** The matrices in the folder have what was learnt in them; as they were without it they lie beside the adapters. Otherwise whoever loads them puts it in. */
  merged: boolean;
}

const numberIn = (json: JsonObject, key: string, file: string): number => {
  const value = json[key];
  return typeof value === 'number'
    ? value
    : fail(
        'ERR_LIBMOE_CHECKPOINT',
        `${file}: "${key}" must be a number, got ${JSON.stringify(value ?? null)}`,
      );
};

/** Writes adapters into a checkpoint folder, tensors named `<matrix>.down`, `<matrix>.up`, and `<matrix>.base` where the folder's matrices are merged. */
export function writeAdapters(
  folder: string,
  { all, weights }: Pick<Adapters, 'all' | 'weights'>,
  { rank, alpha, merged }: StoredAdapters,
): void {
  const tensors = new Map<string, Tensor>();
  for (const [name, { down, up }] of all) {
    tensors.set(`${name}.down`, down);
    tensors.set(`${name}.up`, up);
    if (merged) tensors.set(`${name}.base`, weights.get(name)!);
  }
  writeSafetensors(join(folder, `${base}.safetensors`), tensors);
  writeFileAtomically(join(folder, describing), `${JSON.stringify({ rank, alpha, merged }, null, 2)}\n`);
}

/** Reads what {@link writeAdapters} wrote into the same adapters; of merged matrices their bits without what was learnt too. @throws ERR_LIBMOE_CHECKPOINT */
export function readAdapters(folder: string, { all, weights }: Pick<Adapters, 'all' | 'weights'>): void {
  const file = join(folder, describing);
  if (!existsSync(file))
    fail(
      'ERR_LIBMOE_CHECKPOINT',
      `${folder} has no ${describing}: it was not written by a training with training.lora`,
    );
  const { merged } = readJsonObject(file);
  const files = openSafetensors(folder, { base });
  for (const [name, { down, up }] of all) {
    files.readInto(`${name}.down`, down);
    files.readInto(`${name}.up`, up);
    if (merged) files.readInto(`${name}.base`, weights.get(name)!);
  }
}

/**
 * Puts adapters that lie apart in a checkpoint folder into the matrices of a model that was read from it.
 * @param part what the folder's names of the model begin with where it is one part of what the folder holds (`vision.`): then adapters of the other
 *   parts, and of layers that were left in the files, are passed over
 * @throws ERR_LIBMOE_CHECKPOINT
 */
export function mergeStoredAdapters(folder: string, state: ReadonlyMap<string, Tensor>, part = ''): void {
  const file = join(folder, describing);
  if (!existsSync(file)) return;
  const json = readJsonObject(file);
  if (json.merged === true) return;
  const files = openSafetensors(folder, { base });
  const rank = numberIn(json, 'rank', file);
  const alpha = numberIn(json, 'alpha', file);
  for (const stored of files.names()) {
    if (!stored.endsWith('.up')) continue;
    const name = stored.slice(0, -'.up'.length);
    const own = name.startsWith(part) ? name.slice(part.length) : undefined;
    const weight = own === undefined ? undefined : (state.get(`${own}.weight`) ?? state.get(own));
    if (!weight && part !== '') continue;
    if (!weight)
      fail(
        'ERR_LIBMOE_CHECKPOINT',
        `${folder}: ${base}.safetensors has adapters of "${name}", which the model has not`,
      );
    using beside = new LowRank(weight, { rank, alpha }, 'later');
    files.readInto(`${name}.down`, beside.down);
    files.readInto(`${name}.up`, beside.up);
    using sum = beside.merged(weight);
    noGrad(() => weight.write(sum.readSync()));
  }
}
