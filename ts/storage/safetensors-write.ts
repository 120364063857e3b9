import { join } from 'node:path';
import { fail } from '../native/index.ts';
import { bytesPerElement, type Tensor } from '../tensor/index.ts';
import { writeFileAtomically, writeFully } from './atomic.ts';
import { formatDtypeOf } from './safetensors-header.ts';

/** Tensors by name, in the order in which they are written. */
export type NamedTensors = ReadonlyMap<string, Tensor>;

/** What is stored beside the tensors. */
export interface SafetensorsWriteOptions {
  /** Free text stored in the header; transformers expects `format: "pt"` and gets it unless another is given. */
  metadata?: Readonly<Record<string, string>>;
}

/**
 * Writes tensors into one safetensors file, atomically. Tensors are fetched from their device one at a time.
 * Throws ERR_LIBMOE_ARGUMENT (a name of the format's own), ERR_LIBMOE_FILE.
 */
export function writeSafetensors(
  path: string,
  tensors: NamedTensors,
  options: SafetensorsWriteOptions = {},
): void {
  const metadata = { format: 'pt', ...options.metadata };
  for (const [key, value] of Object.entries(metadata)) {
    if (typeof value !== 'string')
      fail('ERR_LIBMOE_ARGUMENT', `safetensors metadata "${key}" must be a string`);
  }
  // Widest first: then every tensor is aligned to its element, which readers that map the file need.
  const order = [...tensors].sort(
    ([nameA, a], [nameB, b]) =>
      bytesPerElement(b.dtype) - bytesPerElement(a.dtype) || (nameA < nameB ? -1 : 1),
  );
  const header: Record<string, unknown> = { __metadata__: metadata };
  let at = 0;
  for (const [name, { dtype, shape, size }] of order) {
    if (name === '__metadata__') fail('ERR_LIBMOE_ARGUMENT', 'a tensor cannot be named "__metadata__"');
    const end = at + size * bytesPerElement(dtype);
    header[name] = { dtype: formatDtypeOf(dtype), shape, data_offsets: [at, end] };
    at = end;
  }
  const json = Buffer.from(JSON.stringify(header));
  const padded = Buffer.alloc(8 + Math.ceil(json.length / 8) * 8, ' ');
  padded.writeBigUInt64LE(BigInt(padded.length - 8));
  json.copy(padded, 8);
  writeFileAtomically(path, (descriptor) => {
    writeFully(descriptor, padded);
    for (const [, tensor] of order) {
      const host = tensor.readSync();
      writeFully(descriptor, new Uint8Array(host.buffer, host.byteOffset, host.byteLength));
    }
  });
}

/** How tensors are divided among files. */
export interface ShardOptions extends SafetensorsWriteOptions {
  /** File names begin with this; `model` makes `model.safetensors` or `model-00001-of-00003.safetensors`. */
  base?: string;
  /** A shard never holds more bytes of tensors than this, unless one tensor alone does. Default 5e9, as transformers. */
  maxShardBytes?: number;
}

/**
 * Writes tensors into `folder` as one file, or as shards with `<base>.safetensors.index.json`, in the layout of Hugging Face.
 * Returns the names of the files written. For a folder that must never be seen half-written, call it inside `writeFolderAtomically`.
 */
export function writeShardedSafetensors(
  folder: string,
  tensors: NamedTensors,
  options: ShardOptions = {},
): string[] {
  const { base = 'model', maxShardBytes = 5e9, metadata = {} } = options;
  if (!(maxShardBytes > 0))
    fail('ERR_LIBMOE_ARGUMENT', `maxShardBytes must be positive, got ${maxShardBytes}`);
  const shards = divide(tensors, maxShardBytes);
  if (shards.length === 1) {
    writeSafetensors(join(folder, `${base}.safetensors`), shards[0]!, { metadata });
    return [`${base}.safetensors`];
  }
  const number = (i: number) => String(i).padStart(5, '0');
  const weightMap: Record<string, string> = {};
  const files = shards.map((shard, index) => {
    const file = `${base}-${number(index + 1)}-of-${number(shards.length)}.safetensors`;
    for (const name of shard.keys()) weightMap[name] = file;
    writeSafetensors(join(folder, file), shard, { metadata });
    return file;
  });
  const total = [...tensors.values()].reduce(
    (sum, { dtype, size }) => sum + size * bytesPerElement(dtype),
    0,
  );
  const index = { metadata: { total_size: total }, weight_map: weightMap };
  writeFileAtomically(join(folder, `${base}.safetensors.index.json`), `${JSON.stringify(index, null, 2)}\n`);
  return [...files, `${base}.safetensors.index.json`];
}

function divide(tensors: NamedTensors, maxShardBytes: number): Map<string, Tensor>[] {
  const shards = [new Map<string, Tensor>()];
  let bytes = 0;
  for (const [name, tensor] of tensors) {
    const more = tensor.size * bytesPerElement(tensor.dtype);
    if (bytes > 0 && bytes + more > maxShardBytes) {
      shards.push(new Map());
      bytes = 0;
    }
    shards.at(-1)!.set(name, tensor);
    bytes += more;
  }
  return shards;
}
