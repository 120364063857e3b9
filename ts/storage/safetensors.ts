import { existsSync, readdirSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { fail, native } from '../native/index.ts';
import { stridesOf } from '../tensor/broadcast.ts';
import { dtypeCode } from '../tensor/dtype.ts';
import { type DeviceName, type Dtype, empty, type Tensor, view } from '../tensor/index.ts';
import { isJsonObject, readJsonObject, reasonOf } from './json.ts';
import { readSafetensorsHeader, type SafetensorsEntry } from './safetensors-header.ts';

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

/** Which elements of a stored tensor are meant: the first, and the step from one to the next along each axis of what they are read into. */
export interface StoredBox {
  offset: number;
  strides: readonly number[];
}

/**
 * Bytes of a file between the first rows that are mapped at a time: what its pages add to what the process holds while rows lie one after another.
 * Of a transposed box, whose rows reach over the whole tensor, that can be as much as the tensor.
 */
const mappedAtOnce = 32 << 20;

/**
 * The tensors of one file or of a sharded folder. Values go from the mapped file, a piece at a time (a transposed tensor at once), straight to where
 * they are wanted: no second copy of the weights is made, and no tensor ever shares memory with the file. The size of a file is checked at every read; one that is cut short
 * in the very moment of a read kills the process (SIGBUS), as with every mapped file: replace checkpoints by renaming, never write into them.
 */
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
    const dtype = dtypeOfEntry(entry);
    const tensor = empty(entry.shape, {
      dtype: options.dtype ?? dtype,
      ...(options.device && { device: options.device }),
    });
    try {
      this.readInto(name, tensor);
    } catch (error) {
      tensor.dispose();
      throw error;
    }
    return tensor;
  }

  /**
   * Overwrites `target` with elements of a stored tensor, converted to its dtype: all of them in their order, or those that `box` names.
   * Throws ERR_LIBMOE_CHECKPOINT (missing, or the file is no longer what it was), ERR_LIBMOE_UNSUPPORTED, ERR_LIBMOE_SHAPE.
   */
  readInto(name: string, target: Tensor, box?: StoredBox): void {
    const entry = this.entry(name);
    const dtype = dtypeOfEntry(entry);
    const { file, fileSize, begin, end, formatDtype } = entry;
    const stored = entry.shape.reduce((a, b) => a * b, 1);
    const bytes = stored === 0 ? 1 : (end - begin) / stored;
    const shape = target.rank === 0 ? [1] : target.shape;
    const strides = target.rank === 0 ? [1] : (box?.strides ?? stridesOf(shape));
    const offset = box?.offset ?? 0;
    const last = shape.reduce((at, size, axis) => at + (size - 1) * strides[axis]!, offset);
    if (target.size > 0 && (last >= stored || (box === undefined && target.size !== stored))) {
      fail(
        'ERR_LIBMOE_SHAPE',
        `${file}: tensor "${name}" (${formatDtype} [${entry.shape.join(', ')}]) does not fill [${target.shape.join(', ')}]`,
      );
    }
    const [rows, rowStride] = [shape[0]!, strides[0]!];
    const width = rows === 0 ? 0 : target.size / rows;
    const atOnce = Math.max(1, Math.floor(mappedAtOnce / Math.max(1, rowStride * bytes)));
    for (let row = 0; row < rows && width > 0; row += atOnce) {
      using piece = view(target, [Math.min(atOnce, rows - row), ...shape.slice(1)], row * width);
      const from = begin + (offset + row * rowStride) * bytes;
      native().readFile(piece.handle, file, fileSize, from, dtypeCode(dtype), strides);
    }
  }
}

function dtypeOfEntry({ dtype, file, name, formatDtype }: SafetensorsEntry): Dtype {
  return (
    dtype ??
    fail(
      'ERR_LIBMOE_UNSUPPORTED',
      `${file}: tensor "${name}" has the dtype ${formatDtype}, which cannot be loaded`,
    )
  );
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
