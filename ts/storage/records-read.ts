import { closeSync, fstatSync, openSync } from 'node:fs';
import { crc32 } from 'node:zlib';
import { fail } from '../native/index.ts';
import { readAt } from './atomic.ts';
import { isJsonObject, type JsonValue, parseJson, reasonOf } from './json.ts';

/** The values of a column, by its type. */
export type ColumnArray = Float32Array | Float64Array | Int32Array | Uint32Array | Uint16Array | Uint8Array;
/** Element type of a column. */
export type ColumnType = 'f32' | 'f64' | 'i32' | 'u32' | 'u16' | 'u8';
/** What holds for all rows of a block. */
export type Attributes = Readonly<Record<string, JsonValue>>;

export const fileMagic = Buffer.from('LMRECORD\x01\0\0\0\0\0\0\0', 'latin1');
export const blockMagic = Buffer.from('BLK1', 'latin1');

export const columnTypes: Record<ColumnType, { bytes: number; make(buffer: ArrayBuffer): ColumnArray }> = {
  f32: { bytes: 4, make: (buffer) => new Float32Array(buffer) },
  f64: { bytes: 8, make: (buffer) => new Float64Array(buffer) },
  i32: { bytes: 4, make: (buffer) => new Int32Array(buffer) },
  u32: { bytes: 4, make: (buffer) => new Uint32Array(buffer) },
  u16: { bytes: 2, make: (buffer) => new Uint16Array(buffer) },
  u8: { bytes: 1, make: (buffer) => new Uint8Array(buffer) },
};

export function typeOfArray(data: unknown): ColumnType | undefined {
  if (data instanceof Float32Array) return 'f32';
  if (data instanceof Float64Array) return 'f64';
  if (data instanceof Int32Array) return 'i32';
  if (data instanceof Uint32Array) return 'u32';
  if (data instanceof Uint16Array) return 'u16';
  return data instanceof Uint8Array ? 'u8' : undefined;
}

/** The next multiple of eight: every column begins aligned for its widest type. */
export const align = (bytes: number): number => Math.ceil(bytes / 8) * 8;

export interface ColumnEntry {
  readonly name: string;
  readonly type: ColumnType;
  /** Numbers per row. */
  readonly width: number;
  /** Bytes from the beginning of the block's data. */
  readonly offset: number;
}

/** What is known of a block without reading its columns. */
export interface RecordBlock {
  readonly rows: number;
  readonly attributes: Attributes;
  readonly columns: readonly ColumnEntry[];
  /** Bytes from the beginning of the file: of the data, and of the end. */
  readonly dataStart: number;
  readonly end: number;
  readonly dataCrc: number;
}

/** Reads record files in parts: {@link blocks} lists what there is, {@link column} fetches one column or some of its rows. */
export class RecordReader {
  readonly path: string;
  #descriptor: number | undefined;

  /** Throws ERR_LIBMOE_FILE (cannot be read, or is not a record file). */
  constructor(path: string) {
    this.path = path;
    try {
      this.#descriptor = openSync(path, 'r');
    } catch (cause) {
      fail('ERR_LIBMOE_FILE', `cannot read ${path} (${reasonOf(cause)})`, cause);
    }
  }

  /** Every whole block, in the order of writing. A torn last one is left out. Throws ERR_LIBMOE_FILE where a block is damaged. */
  blocks(): Generator<RecordBlock, void> {
    return readBlocks(this.#open(), this.path);
  }

  /**
   * The rows `[start, end)` of one column, `(end − start) · width` numbers row-major; all rows by default.
   * Throws ERR_LIBMOE_ARGUMENT (no such column, rows out of range), ERR_LIBMOE_FILE.
   */
  column(block: RecordBlock, name: string, start = 0, end = block.rows): ColumnArray {
    const column = block.columns.find((entry) => entry.name === name);
    if (!column) {
      const others = block.columns.map((entry) => entry.name).join(', ');
      fail('ERR_LIBMOE_ARGUMENT', `${this.path} has no column "${name}" in this block, only ${others}`);
    }
    if (!(start >= 0 && start <= end && end <= block.rows)) {
      fail(
        'ERR_LIBMOE_ARGUMENT',
        `rows [${start}, ${end}) are not within the ${block.rows} rows of the block`,
      );
    }
    const type = columnTypes[column.type];
    const rowBytes = column.width * type.bytes;
    const buffer = new ArrayBuffer((end - start) * rowBytes);
    const at = block.dataStart + column.offset + start * rowBytes;
    if (readAt(this.#open(), new Uint8Array(buffer), at) < buffer.byteLength) {
      fail('ERR_LIBMOE_FILE', `${this.path} ends within column "${name}"`);
    }
    return type.make(buffer);
  }

  /** Compares the block's data with its checksum. Throws ERR_LIBMOE_FILE. */
  verify(block: RecordBlock): void {
    const data = new Uint8Array(block.end - block.dataStart);
    readAt(this.#open(), data, block.dataStart);
    if (crc32(data) !== block.dataCrc) {
      fail(
        'ERR_LIBMOE_FILE',
        `${this.path}: the block with data at byte ${block.dataStart} is damaged (checksum)`,
      );
    }
  }

  /** Closes the file. */
  close(): void {
    if (this.#descriptor !== undefined) closeSync(this.#descriptor);
    this.#descriptor = undefined;
  }

  /** As {@link close}, for `using`. */
  [Symbol.dispose](): void {
    this.close();
  }

  #open(): number {
    return this.#descriptor ?? fail('ERR_LIBMOE_STATE', `the record file ${this.path} is closed`);
  }
}

/** Walks the block headers, seeking over the data. Ends before a torn last block. */
export function* readBlocks(descriptor: number, path: string): Generator<RecordBlock, void> {
  const { size } = fstatSync(descriptor);
  const magic = Buffer.alloc(fileMagic.length);
  if (readAt(descriptor, magic, 0) < magic.length) {
    if (fileMagic.subarray(0, size).equals(magic.subarray(0, size))) return; // torn at birth: no block yet
  }
  if (!magic.equals(fileMagic)) fail('ERR_LIBMOE_FILE', `${path} is not a libmoe record file`);
  for (let at = fileMagic.length; at + 24 <= size; ) {
    const fixed = Buffer.alloc(24);
    readAt(descriptor, fixed, at);
    const headerLength = fixed.readUInt32LE(4);
    const dataStart = at + align(24 + headerLength);
    const end = dataStart + Number(fixed.readBigUInt64LE(8));
    const where = `${path}: the block at byte ${at}`;
    if (!fixed.subarray(0, 4).equals(blockMagic))
      fail('ERR_LIBMOE_FILE', `${where} does not begin as a block: damaged`);
    if (at + 24 + headerLength > size) return;
    const header = Buffer.alloc(headerLength);
    readAt(descriptor, header, at + 24);
    if ((crc32(fixed.subarray(0, 20)) ^ crc32(header)) >>> 0 !== fixed.readUInt32LE(20)) {
      fail('ERR_LIBMOE_FILE', `${where} has a damaged header (checksum)`);
    }
    if (end > size) return; // the header is whole, so this is a torn end and not a damaged length
    const json = parseJson(header.toString('utf8'), where);
    if (!isJsonObject(json)) fail('ERR_LIBMOE_FILE', `${where} has a header that is not an object`);
    yield {
      rows: json.rows as number,
      attributes: json.attributes as Attributes,
      columns: json.columns as unknown as readonly ColumnEntry[],
      dataStart,
      end,
      dataCrc: fixed.readUInt32LE(16),
    };
    at = end;
  }
}
