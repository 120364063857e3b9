import { closeSync, existsSync, fstatSync, fsyncSync, ftruncateSync, mkdirSync, openSync } from 'node:fs';
import { dirname } from 'node:path';
import { crc32 } from 'node:zlib';
import { fail } from '../native/index.ts';
import { syncFolder, writeFully } from './atomic.ts';
import { reasonOf } from './json.ts';
import {
  type Attributes,
  align,
  blockMagic,
  type ColumnArray,
  type ColumnType,
  columnTypes,
  fileMagic,
  type RecordBlock,
  readBlocks,
  typeOfArray,
} from './records-read.ts';

export {
  type Attributes,
  type ColumnArray,
  type ColumnType,
  type RecordBlock,
  RecordReader,
} from './records-read.ts';

/** A column to write: one number per row, or `width` numbers per row (`[rows, width]`, row-major). */
export type Column = ColumnArray | { data: ColumnArray; width: number };

/**
 * Appends blocks of columns to a record file (docs/routing-records.md). A block is whole or absent: what a crash left of a half-written
 * one is cut off when the file is opened again.
 */
export class RecordWriter {
  readonly path: string;
  #descriptor: number | undefined;
  #at: number;

  /** Opens or makes the file. Throws ERR_LIBMOE_FILE (cannot be opened, or is not a record file). */
  constructor(path: string) {
    this.path = path;
    try {
      mkdirSync(dirname(path), { recursive: true });
      const isNew = !existsSync(path);
      this.#descriptor = openSync(path, isNew ? 'wx+' : 'r+');
      if (isNew) syncFolder(dirname(path));
    } catch (cause) {
      fail('ERR_LIBMOE_FILE', `cannot open ${path} (${reasonOf(cause)})`, cause);
    }
    try {
      if (fstatSync(this.#descriptor).size < fileMagic.length) {
        // New, or torn within its first bytes.
        ftruncateSync(this.#descriptor, 0);
        writeFully(this.#descriptor, fileMagic, 0);
        this.#at = fileMagic.length;
      } else {
        this.#at = fileMagic.length;
        for (const block of readBlocks(this.#descriptor, path)) this.#at = block.end;
        ftruncateSync(this.#descriptor, this.#at);
      }
    } catch (error) {
      closeSync(this.#descriptor);
      throw error;
    }
  }

  /**
   * Adds one block: rows of named columns, and attributes that hold for all of them (`step`, `layer`, …).
   * Throws ERR_LIBMOE_ARGUMENT (columns of different lengths, no column), ERR_LIBMOE_FILE.
   */
  append(attributes: Attributes, columns: Readonly<Record<string, Column>>): void {
    this.appendAll([[attributes, columns]]);
  }

  /** Adds blocks as {@link append} does, in one write. */
  appendAll(blocks: readonly (readonly [Attributes, Readonly<Record<string, Column>>])[]): void {
    const bytes = Buffer.concat(blocks.map(([attributes, columns]) => encoded(attributes, columns)));
    try {
      writeFully(this.#open(), bytes, this.#at);
    } catch (cause) {
      fail('ERR_LIBMOE_FILE', `cannot write to ${this.path} (${reasonOf(cause)})`, cause);
    }
    this.#at += bytes.length;
  }

  /** Cuts the file before its first block that `keep` refuses: for going back to a checkpoint. */
  truncate(keep: (block: RecordBlock) => boolean): void {
    const descriptor = this.#open();
    this.#at = fileMagic.length;
    for (const block of readBlocks(descriptor, this.path)) {
      if (!keep(block)) break;
      this.#at = block.end;
    }
    ftruncateSync(descriptor, this.#at);
  }

  /** Makes what was appended durable. */
  sync(): void {
    fsyncSync(this.#open());
  }

  /** Makes everything durable and closes the file. */
  close(): void {
    if (this.#descriptor === undefined) return;
    this.sync();
    closeSync(this.#descriptor);
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

/** A block as it stands in the file. */
function encoded(attributes: Attributes, columns: Readonly<Record<string, Column>>): Buffer {
  const described = Object.entries(columns).map(([name, column]) => {
    const { data, width } = 'data' in column ? column : { data: column, width: 1 };
    const type: ColumnType =
      typeOfArray(data) ?? fail('ERR_LIBMOE_ARGUMENT', `column "${name}" is not a typed array`);
    if (!(Number.isInteger(width) && width > 0) || data.length % width !== 0) {
      fail(
        'ERR_LIBMOE_ARGUMENT',
        `column "${name}" has ${data.length} values, not a multiple of its width ${width}`,
      );
    }
    return { name, type, width, data, rows: data.length / width };
  });
  const rows = described[0]?.rows ?? fail('ERR_LIBMOE_ARGUMENT', 'a block needs at least one column');
  for (const column of described) {
    if (column.rows !== rows) {
      fail(
        'ERR_LIBMOE_ARGUMENT',
        `column "${column.name}" has ${column.rows} rows, "${described[0]!.name}" ${rows}`,
      );
    }
  }
  let offset = 0;
  const parts: { offset: number; bytes: Uint8Array }[] = [];
  const directory = described.map(({ name, type, width, data }) => {
    const bytes = new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
    const entry = { name, type, width, offset };
    parts.push({ offset, bytes });
    offset = align(offset + rows * width * columnTypes[type].bytes);
    return entry;
  });
  const header = Buffer.from(JSON.stringify({ rows, attributes, columns: directory }));
  const start = align(24 + header.length);
  const block = Buffer.alloc(start + offset);
  blockMagic.copy(block);
  block.writeUInt32LE(header.length, 4);
  block.writeBigUInt64LE(BigInt(offset), 8);
  header.copy(block, 24);
  for (const part of parts) block.set(part.bytes, start + part.offset);
  block.writeUInt32LE(crc32(block.subarray(start)), 16);
  block.writeUInt32LE((crc32(block.subarray(0, 20)) ^ crc32(header)) >>> 0, 20);
  return block;
}
