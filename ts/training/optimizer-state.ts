import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { fail } from '../native/index.ts';
import {
  isJsonObject,
  type JsonObject,
  openSafetensors,
  parseJson,
  type Safetensors,
  writeSafetensors,
} from '../storage/index.ts';
import { scope, type Tensor, view } from '../tensor/index.ts';
import type { Optimizer } from './optimizer.ts';

/**
 * Where a stored tensor belongs: the elements `[begin, end)` of the row-major, flattened whole of shape `shape`. So shards may be cut
 * anywhere, and a run with another number of ranks finds its part.
 */
interface Placement {
  parameter: string;
  slot: string;
  shape: number[];
  range: [number, number];
}

/** Writes the optimizer's state as shard `shard` of a checkpoint folder: `optimizer-<shard>.safetensors`. */
export function writeOptimizerState(folder: string, optimizer: Optimizer, shard = 0): void {
  const tensors = new Map<string, Tensor>();
  const layout: Record<string, Placement> = {};
  for (const [parameter, slots] of optimizer.slots) {
    for (const [slot, tensor] of Object.entries(slots)) {
      const name = `${slot}/${parameter}`;
      tensors.set(name, tensor);
      layout[name] = { parameter, slot, shape: [...tensor.shape], range: [0, tensor.size] };
    }
  }
  writeSafetensors(join(folder, `optimizer-${String(shard).padStart(5, '0')}.safetensors`), tensors, {
    metadata: {
      optimizer: optimizer.name,
      steps: JSON.stringify(Object.fromEntries(optimizer.steps)),
      layout: JSON.stringify(layout),
    },
  });
}

/**
 * Fills the optimizer's state from all `optimizer-*.safetensors` of a folder, however many ranks wrote them. Everything is checked before
 * anything is written. Throws ERR_LIBMOE_CHECKPOINT naming what is missing, unexpected or of another shape.
 */
export function readOptimizerState(folder: string, optimizer: Optimizer): void {
  const files = readdirSync(folder)
    .filter((name) => /^optimizer-\d+\.safetensors$/.test(name))
    .sort();
  if (files.length === 0) fail('ERR_LIBMOE_CHECKPOINT', `${folder} has no optimizer-*.safetensors`);
  const pieces = new Map<string, Piece[]>();
  const steps = new Map<string, number>();
  for (const file of files) collect(join(folder, file), optimizer, pieces, steps);

  const wanted = new Map<string, Tensor>();
  for (const [parameter, slots] of optimizer.slots) {
    for (const [slot, tensor] of Object.entries(slots)) wanted.set(`${slot}/${parameter}`, tensor);
  }
  const missing = [...wanted.keys()].filter((name) => !pieces.has(name));
  const unexpected = [...pieces.keys()].filter((name) => !wanted.has(name));
  if (missing.length + unexpected.length > 0) {
    const list = (names: string[]) => `${names.slice(0, 4).join(', ')}${names.length > 4 ? ', …' : ''}`;
    fail(
      'ERR_LIBMOE_CHECKPOINT',
      `the optimizer state in ${folder} is not that of this model's trained parameters` +
        `${missing.length ? `; missing: ${list(missing)}` : ''}${unexpected.length ? `; unexpected: ${list(unexpected)}` : ''}`,
    );
  }
  for (const [name, tensor] of wanted) checkCover(folder, name, tensor, pieces.get(name)!);
  for (const [name, tensor] of wanted) {
    for (const { source, entry, range } of pieces.get(name)!) {
      scope(() => {
        const part = source.read(entry, { dtype: tensor.dtype });
        view(tensor, [range[1] - range[0]], range[0]).write(part.readSync());
      });
    }
  }
  for (const name of optimizer.steps.keys()) optimizer.steps.set(name, steps.get(name) ?? 0);
}

interface Piece {
  source: Safetensors;
  entry: string;
  shape: number[];
  range: [number, number];
}

function collect(
  path: string,
  optimizer: Optimizer,
  pieces: Map<string, Piece[]>,
  steps: Map<string, number>,
): void {
  const source = openSafetensors(path);
  const { optimizer: name } = source.metadata;
  if (name !== optimizer.name) {
    fail(
      'ERR_LIBMOE_CHECKPOINT',
      `${path} holds the state of the optimizer "${name}", this run uses "${optimizer.name}"`,
    );
  }
  const layout = objectOf(path, source, 'layout');
  for (const [parameter, count] of Object.entries(objectOf(path, source, 'steps')))
    steps.set(parameter, Number(count));
  for (const entry of source.names()) {
    const place = layout[entry];
    if (!isPlacement(place))
      fail('ERR_LIBMOE_CHECKPOINT', `${path} does not say where its tensor "${entry}" belongs`);
    const whole = `${place.slot}/${place.parameter}`;
    const piece = { source, entry, shape: place.shape, range: place.range };
    pieces.set(whole, [...(pieces.get(whole) ?? []), piece]);
  }
}

function objectOf(path: string, source: Safetensors, key: string): JsonObject {
  const value = parseJson(source.metadata[key] ?? '', `${path} (metadata "${key}")`, 'ERR_LIBMOE_CHECKPOINT');
  return isJsonObject(value)
    ? value
    : fail('ERR_LIBMOE_CHECKPOINT', `${path}: metadata "${key}" is not an object`);
}

function isPlacement(value: unknown): value is Placement {
  if (!isJsonObject(value)) return false;
  const { parameter, slot, shape, range } = value;
  const numbers = (list: unknown) => Array.isArray(list) && list.every((x) => Number.isSafeInteger(x));
  return typeof parameter === 'string' && typeof slot === 'string' && numbers(shape) && numbers(range);
}

/** The pieces must have the shape of the whole, and lie side by side from its first element to its last. */
function checkCover(folder: string, name: string, tensor: Tensor, pieces: Piece[]): void {
  pieces.sort((a, b) => a.range[0] - b.range[0]);
  let at = 0;
  for (const { source, entry, shape, range } of pieces) {
    if (shape.join() !== tensor.shape.join()) {
      const shapes = `[${shape.join(', ')}], this model needs [${tensor.shape.join(', ')}]`;
      fail('ERR_LIBMOE_CHECKPOINT', `the optimizer state ${name} in ${folder} has the shape ${shapes}`);
    }
    const count = source.entry(entry).shape.reduce((a, b) => a * b, 1);
    if (range[0] !== at || range[1] - range[0] !== count) {
      fail(
        'ERR_LIBMOE_CHECKPOINT',
        `the shards of ${name} in ${folder} overlap or leave a gap at element ${at}`,
      );
    }
    at = range[1];
  }
  if (at !== tensor.size) {
    fail(
      'ERR_LIBMOE_CHECKPOINT',
      `the shards of ${name} in ${folder} end at element ${at} of ${tensor.size}: one is missing`,
    );
  }
}
