import { closeSync, fstatSync, openSync } from 'node:fs';
import { fail } from '../native/index.ts';
import type { Dtype } from '../tensor/index.ts';
import { readAt } from './atomic.ts';
import { describeJson, isJsonObject, parseJson, reasonOf } from './json.ts';

/** The format's own limit: a longer header is taken for a damaged or hostile file. */
const longestHeader = 100_000_000;

/** Names of element types in the format, and ours where there is one. */
const formatDtypes: Record<string, { bytes: number; dtype?: Dtype }> = {
  F64: { bytes: 8, dtype: 'f64' },
  F32: { bytes: 4, dtype: 'f32' },
  F16: { bytes: 2, dtype: 'f16' },
  BF16: { bytes: 2, dtype: 'bf16' },
  I64: { bytes: 8, dtype: 'i64' },
  I32: { bytes: 4, dtype: 'i32' },
  U8: { bytes: 1, dtype: 'u8' },
  BOOL: { bytes: 1, dtype: 'bool' },
  U64: { bytes: 8 },
  U32: { bytes: 4 },
  I16: { bytes: 2 },
  U16: { bytes: 2 },
  I8: { bytes: 1 },
  F8_E4M3: { bytes: 1 },
  F8_E5M2: { bytes: 1 },
  F8_E8M0: { bytes: 1 },
};

/** The format's name of one of our element types. */
export function formatDtypeOf(dtype: Dtype): string {
  return Object.keys(formatDtypes).find((name) => formatDtypes[name]!.dtype === dtype)!;
}

/** One tensor of a safetensors file. */
export interface SafetensorsEntry {
  readonly name: string;
  /** The file that holds it (a shard of a sharded checkpoint). */
  readonly file: string;
  /** Our element type; undefined for those of the format that the library has no tensors of (8-bit floats, I16 …). */
  readonly dtype: Dtype | undefined;
  /** The format's name of the element type: `F32`, `BF16`, … */
  readonly formatDtype: string;
  readonly shape: readonly number[];
  /** Bytes from the beginning of the file, end exclusive. */
  readonly begin: number;
  readonly end: number;
  /** Bytes of the whole file when its header was read. */
  readonly fileSize: number;
}

/** What a safetensors file says of its contents. */
export interface SafetensorsHeader {
  readonly file: string;
  readonly metadata: Readonly<Record<string, string>>;
  /** In the order of their bytes. */
  readonly entries: readonly SafetensorsEntry[];
}

/**
 * Reads and checks the header of one safetensors file: length, JSON, element types, sizes, no overlap, no hole, exact file size.
 * Throws ERR_LIBMOE_CHECKPOINT naming the file and the tensor.
 */
export function readSafetensorsHeader(file: string): SafetensorsHeader {
  const damaged = (what: string): never => fail('ERR_LIBMOE_CHECKPOINT', `${file} ${what}`);
  let descriptor: number;
  try {
    descriptor = openSync(file, 'r');
  } catch (cause) {
    fail('ERR_LIBMOE_CHECKPOINT', `cannot read ${file} (${reasonOf(cause)})`, cause);
  }
  try {
    const { size } = fstatSync(descriptor);
    if (size < 8)
      damaged(`has ${size} bytes: too short for a safetensors file, it is truncated or something else`);
    const lengthBytes = Buffer.alloc(8);
    readFully(descriptor, lengthBytes, 0, file);
    const length = lengthBytes.readBigUInt64LE();
    if (length > longestHeader) {
      damaged(
        `announces a header of ${length} bytes (at most ${longestHeader}): it is not a safetensors file or is damaged`,
      );
    }
    const start = 8 + Number(length);
    if (start > size) damaged(`is truncated: its header ends at byte ${start}, the file at ${size}`);
    const header = Buffer.alloc(Number(length));
    readFully(descriptor, header, 8, file);
    return parseHeader(file, header, start, size);
  } finally {
    closeSync(descriptor);
  }
}

function parseHeader(file: string, header: Buffer, start: number, size: number): SafetensorsHeader {
  const damaged = (what: string): never => fail('ERR_LIBMOE_CHECKPOINT', `${file} ${what}`);
  let text: string;
  try {
    text = new TextDecoder('utf-8', { fatal: true }).decode(header);
  } catch {
    return damaged('has a header that is not UTF-8 text: it is not a safetensors file or is damaged');
  }
  const json = parseJson(text, `${file} (header)`, 'ERR_LIBMOE_CHECKPOINT');
  if (!isJsonObject(json)) return damaged(`has a header that is ${describeJson(json)} instead of an object`);
  const metadata: Record<string, string> = {};
  const entries: SafetensorsEntry[] = [];
  for (const [name, value] of Object.entries(json)) {
    if (name === '__metadata__') {
      if (!isJsonObject(value)) return damaged('has a __metadata__ that is not an object');
      for (const [key, item] of Object.entries(value)) {
        if (typeof item !== 'string')
          return damaged(`has metadata "${key}" that is ${describeJson(item)}, not a string`);
        metadata[key] = item;
      }
    } else entries.push(parseEntry(file, name, value, start, size));
  }
  entries.sort((a, b) => a.begin - b.begin || a.end - b.end);
  let at = start;
  for (const entry of entries) {
    if (entry.begin !== at) {
      const what = entry.begin < at ? 'overlaps the tensor before it' : 'leaves a hole before it';
      damaged(
        `: tensor "${entry.name}" ${what} (begins at byte ${entry.begin - start}, expected ${at - start})`,
      );
    }
    if (entry.end > size) {
      damaged(`is truncated: tensor "${entry.name}" ends at byte ${entry.end}, the file at ${size}`);
    }
    at = entry.end;
  }
  if (at !== size) damaged(`has ${size - at} bytes after its last tensor: it is damaged`);
  return { file, metadata, entries };
}

function parseEntry(
  file: string,
  name: string,
  value: unknown,
  start: number,
  fileSize: number,
): SafetensorsEntry {
  const damaged = (what: string): never => fail('ERR_LIBMOE_CHECKPOINT', `${file}: tensor "${name}" ${what}`);
  if (!isJsonObject(value)) return damaged(`must be described by an object, got ${describeJson(value)}`);
  const { dtype: formatDtype, shape, data_offsets: offsets } = value;
  const known = typeof formatDtype === 'string' && Object.hasOwn(formatDtypes, formatDtype);
  if (!known) return damaged(`has the unknown dtype ${JSON.stringify(formatDtype)}`);
  const { bytes, dtype } = formatDtypes[formatDtype]!;
  const natural = (x: unknown): x is number => typeof x === 'number' && Number.isSafeInteger(x) && x >= 0;
  if (!Array.isArray(shape) || !shape.every(natural)) {
    return damaged(`has the shape ${JSON.stringify(shape)}, expected a list of sizes`);
  }
  if (!Array.isArray(offsets) || offsets.length !== 2 || !offsets.every(natural)) {
    return damaged(`has the data_offsets ${JSON.stringify(offsets)}, expected [begin, end]`);
  }
  const [begin, end] = offsets as [number, number];
  const expected = (shape as number[]).reduce((a, b) => a * b, bytes);
  if (end - begin !== expected) {
    return damaged(
      `of dtype ${formatDtype} and shape [${shape.join(', ')}] needs ${expected} bytes, got ${end - begin}`,
    );
  }
  return {
    name,
    file,
    dtype,
    formatDtype,
    shape: shape as number[],
    begin: start + begin,
    end: start + end,
    fileSize,
  };
}

/** Fills `buffer` from byte `position` of the file. Throws ERR_LIBMOE_CHECKPOINT where the file ends before. */
export function readFully(descriptor: number, buffer: Uint8Array, position: number, file: string): void {
  const read = readAt(descriptor, buffer, position);
  if (read < buffer.byteLength)
    fail('ERR_LIBMOE_CHECKPOINT', `${file} ends at byte ${position + read}: it is truncated`);
}
