import { closeSync, existsSync, openSync, readdirSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { fail, native } from '../native/index.ts';
import {
  type DeviceName,
  type Dtype,
  empty,
  emptyLike,
  type HostArray,
  scope,
  type Tensor,
} from '../tensor/index.ts';
import { isJsonObject, readJsonObject, reasonOf } from './json.ts';
import { readFully, readSafetensorsHeader, type SafetensorsEntry } from './safetensors-header.ts';

export {
  readSafetensorsHeader,
  type SafetensorsEntry,
  type SafetensorsHeader,
} from './safetensors-header.ts';
export {
  type NamedTensors,
  type SafetensorsWriteOptions,
  type ShardOptions,
  writeSafetensors,
  writeShardedSafetensors,
} from './safetensors-write.ts';

/** As what a stored tensor is read. */
export interface ReadTensorOptions {
  /** Converted to this element type when given; the stored one otherwise. */
  dtype?: Dtype;
  device?: DeviceName;
}

/** The tensors of one file or of a sharded folder, read one at a time so that no second copy of the whole ever exists. */
export class Safetensors {
  readonly entries: ReadonlyMap<string, SafetensorsEntry>;
  readonly metadata: Readonly<Record<string, string>>;

  constructor(entries: ReadonlyMap<string, SafetensorsEntry>, metadata: Readonly<Record<string, string>>) {
    this.entries = entries;
    this.metadata = metadata;
  }

  /** Names of the stored tensors. */
  names(): string[] {
    return [...this.entries.keys()];
  }

  /** Whether a tensor of this name is stored. */
  has(name: string): boolean {
    return this.entries.has(name);
  }

  /** The description of a tensor. Throws ERR_LIBMOE_CHECKPOINT when there is none of that name. */
  entry(name: string): SafetensorsEntry {
    const entry = this.entries.get(name);
    if (entry) return entry;
    const file = [...this.entries.values()][0]?.file ?? 'the checkpoint';
    fail('ERR_LIBMOE_CHECKPOINT', `${file} has no tensor "${name}" (it has ${this.entries.size} others)`);
  }

  /**
   * Reads one tensor. Throws ERR_LIBMOE_CHECKPOINT (missing, truncated), ERR_LIBMOE_UNSUPPORTED (an element type of the format
   * that the library has no tensors of).
   */
  read(name: string, options: ReadTensorOptions = {}): Tensor {
    const entry = this.entry(name);
    const { dtype } = entry;
    if (dtype === undefined) {
      fail(
        'ERR_LIBMOE_UNSUPPORTED',
        `${entry.file}: tensor "${name}" has the dtype ${entry.formatDtype}, which cannot be loaded`,
      );
    }
    return scope(() => {
      const stored = empty(entry.shape, { dtype, ...(options.device && { device: options.device }) });
      if (stored.size > 0) stored.write(readHost(entry, dtype));
      if (options.dtype === undefined || options.dtype === dtype) return stored;
      const converted = emptyLike(stored, { dtype: options.dtype });
      native().cast(stored.handle, converted.handle);
      return converted;
    });
  }
}

/**
 * Opens a safetensors file, or a folder with `<base>.safetensors` or shards and their `<base>.safetensors.index.json`.
 * Reads and checks every header; no tensor is read yet. Throws ERR_LIBMOE_CHECKPOINT.
 */
export function openSafetensors(path: string, options: { base?: string } = {}): Safetensors {
  const { base = 'model' } = options;
  let isFolder: boolean;
  try {
    isFolder = statSync(path).isDirectory();
  } catch (cause) {
    fail('ERR_LIBMOE_CHECKPOINT', `cannot read ${path} (${reasonOf(cause)})`, cause);
  }
  if (!isFolder) return openFiles([path]);
  const index = join(path, `${base}.safetensors.index.json`);
  const single = join(path, `${base}.safetensors`);
  if (existsSync(index)) return openIndex(path, index);
  if (existsSync(single)) return openFiles([single]);
  const shard = readdirSync(path).find((name) => name.endsWith('.safetensors'));
  const found =
    shard === undefined
      ? ''
      : `; it has ${shard}, but without the index nothing says which shards belong to it`;
  fail(
    'ERR_LIBMOE_CHECKPOINT',
    `${path} has neither ${base}.safetensors nor ${base}.safetensors.index.json${found}`,
  );
}

/** Reads every tensor of a file or sharded folder. The caller owns them. Throws ERR_LIBMOE_CHECKPOINT. */
export function readSafetensors(
  path: string,
  options: ReadTensorOptions & { base?: string } = {},
): Map<string, Tensor> {
  const source = openSafetensors(path, options);
  const tensors = new Map<string, Tensor>();
  try {
    for (const name of source.names()) tensors.set(name, source.read(name, options));
  } catch (error) {
    for (const tensor of tensors.values()) tensor.dispose();
    throw error;
  }
  return tensors;
}

function openFiles(files: readonly string[]): Safetensors {
  const entries = new Map<string, SafetensorsEntry>();
  const metadata: Record<string, string> = {};
  for (const file of files) {
    const header = readSafetensorsHeader(file);
    Object.assign(metadata, header.metadata);
    for (const entry of header.entries) {
      const other = entries.get(entry.name);
      if (other) fail('ERR_LIBMOE_CHECKPOINT', `tensor "${entry.name}" is in both ${other.file} and ${file}`);
      entries.set(entry.name, entry);
    }
  }
  return new Safetensors(entries, metadata);
}

function openIndex(folder: string, index: string): Safetensors {
  const map = readJsonObject(index, 'ERR_LIBMOE_CHECKPOINT').weight_map;
  if (!isJsonObject(map)) fail('ERR_LIBMOE_CHECKPOINT', `${index} has no "weight_map" object`);
  const files = new Set<string>();
  for (const [name, file] of Object.entries(map)) {
    // The index is data from outside: it must not lead out of its folder.
    if (typeof file !== 'string' || file.includes('/') || file.includes('\\')) {
      fail(
        'ERR_LIBMOE_CHECKPOINT',
        `${index}: tensor "${name}" must name a file of the same folder, got ${JSON.stringify(file)}`,
      );
    }
    files.add(file);
  }
  for (const file of files) {
    if (existsSync(join(folder, file))) continue;
    const lost = Object.values(map).filter((other) => other === file).length;
    fail(
      'ERR_LIBMOE_CHECKPOINT',
      `${index} names ${file}, which is missing, and with it ${lost} tensors: download the shard again`,
    );
  }
  const source = openFiles([...files].map((file) => join(folder, file)));
  for (const [name, file] of Object.entries(map)) {
    const found = source.entries.get(name)?.file;
    if (found !== join(folder, file as string)) {
      fail(
        'ERR_LIBMOE_CHECKPOINT',
        `${index} says that tensor "${name}" is in ${file}, but it is ${found ? `in ${found}` : 'not'}`,
      );
    }
  }
  return source;
}

function readHost(entry: SafetensorsEntry, dtype: Dtype): HostArray {
  const bytes = new ArrayBuffer(entry.end - entry.begin);
  let descriptor: number;
  try {
    descriptor = openSync(entry.file, 'r');
  } catch (cause) {
    fail('ERR_LIBMOE_CHECKPOINT', `cannot read ${entry.file} (${reasonOf(cause)})`, cause);
  }
  try {
    readFully(descriptor, new Uint8Array(bytes), entry.begin, entry.file);
  } finally {
    closeSync(descriptor);
  }
  switch (dtype) {
    case 'f64':
      return new Float64Array(bytes);
    case 'f32':
      return new Float32Array(bytes);
    case 'i64':
      return new BigInt64Array(bytes);
    case 'i32':
      return new Int32Array(bytes);
    case 'f16':
    case 'bf16':
      return new Uint16Array(bytes);
    default:
      return new Uint8Array(bytes);
  }
}
