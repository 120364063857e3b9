import { basename, isAbsolute, join, relative } from 'node:path';
import { fail } from '../../native/index.ts';
import { base64Image } from './base64-image.ts';
import { isFile, type MediaStore, mediaExtension, mediaName } from './media.ts';
import { LocalImage, type PlacedRow } from './row.ts';

const imageName = /\.(?:png|jpe?g|gif|webp|bmp|tiff?)$/i;
/** A value in a bundle. */
export type StoredValue = null | boolean | number | string | StoredValue[] | { [key: string]: StoredValue };

/**
 * Turns rows of one split into what is stored: bytes and image files become media, and are named `media/<sha256>.<ending>`; whole numbers
 * beyond 2^53 become strings, dates ISO 8601, NaN and the infinities null.
 */
export class RowStore {
  /** Media that rows of this split show. */
  readonly shown = new Set<string>();
  /** Types seen by column. */
  readonly types = new Map<string, Set<string>>();
  /** By column: whether its image names are files that are here. Settled by the first one. */
  private readonly imagesHere = new Map<string, boolean>();
  private readonly kept = new Map<string, string>();

  constructor(
    private readonly media: MediaStore,
    private readonly imageFolders: readonly string[],
    /** The name stands for an image that is not there. */
    private readonly mayMiss = false,
    /** Columns whose texts are images in base64. */
    private readonly base64Columns: readonly string[] = [],
  ) {}

  /** @throws ERR_LIBMOE_DATA naming the row for an image that is not there */
  store({ row, where }: PlacedRow): Record<string, StoredValue> {
    const stored: Record<string, StoredValue> = {};
    for (const [column, value] of Object.entries(row)) {
      // Assigning __proto__ would set a prototype and lose the column.
      if (column === '__proto__') fail('ERR_LIBMOE_DATA', `${where}: a column must not be named __proto__`);
      const it = this.base64Columns.includes(column)
        ? this.pictured(value, column, where)
        : this.value(value, column, where);
      stored[column] = it;
      this.note(column, typeOf(it));
    }
    return stored;
  }

  private note(column: string, type: string): void {
    const types = this.types.get(column);
    if (types) types.add(type);
    else this.types.set(column, new Set([type]));
  }

  /** A column that holds images as base64 text, or lists of them. Bytes are a picture, or such a text of a writer that did not say so. */
  private pictured(value: unknown, column: string, where: string): StoredValue {
    if (value === null || value === undefined) return null;
    if (Array.isArray(value)) return value.map((each) => this.pictured(each, column, where));
    if (value instanceof Uint8Array && mediaExtension(value) !== undefined)
      return this.keep(this.media.keep(value));
    const text = value instanceof Uint8Array ? Buffer.from(value).toString('latin1') : value;
    const bytes = typeof text === 'string' ? base64Image(text) : undefined;
    return bytes === undefined
      ? fail(
          'ERR_LIBMOE_DATA',
          `${where}: column "${column}" should hold an image as base64 text, got ${brief(text)}`,
        )
      : this.keep(this.media.keep(bytes));
  }

  private value(value: unknown, column: string, where: string): StoredValue {
    switch (typeof value) {
      case 'string':
        if (mediaName.test(value)) return this.ownMedia(value, column, where);
        return imageName.test(value) ? this.perhapsImage(value, column, where) : value;
      case 'number':
        return Number.isFinite(value) ? value : null;
      case 'boolean':
        return value;
      case 'bigint':
        return Number.isSafeInteger(Number(value)) ? Number(value) : String(value);
      case 'object':
        return value === null ? null : this.object(value, column, where);
      case 'undefined':
        return null;
      default:
        return fail('ERR_LIBMOE_DATA', `${where}: column "${column}" holds a ${typeof value}`);
    }
  }

  private object(value: object, column: string, where: string): StoredValue {
    if (value instanceof LocalImage) return this.file(value.file, column, where);
    if (value instanceof Uint8Array) return this.bytes(value);
    if (value instanceof Date) return Number.isNaN(value.getTime()) ? null : value.toISOString();
    if (Array.isArray(value)) return value.map((each) => this.value(each, column, where));
    if (ArrayBuffer.isView(value))
      return Array.from(value as unknown as ArrayLike<number | bigint>, (each) =>
        this.value(each, column, where),
      );
    const keys = Object.keys(value);
    if (keys.length === 2 && 'bytes' in value && 'path' in value) {
      const { bytes, path } = value as { bytes: unknown; path: unknown };
      if (bytes instanceof Uint8Array)
        return this.keep(this.media.keep(bytes, typeof path === 'string' ? path : ''));
      if (bytes === null || bytes === undefined) {
        if (path === null || path === undefined) return null;
        if (typeof path === 'string') {
          const file = this.find(path);
          return file === undefined ? this.missing(path, column, where) : this.file(file, column, where);
        }
      }
    }
    const stored: { [key: string]: StoredValue } = {};
    for (const key of keys) stored[key] = this.value((value as Record<string, unknown>)[key], column, where);
    return stored;
  }

  /** Bytes that stand alone: a picture, or a text of a writer that did not say so, or anything else. */
  private bytes(bytes: Uint8Array): StoredValue {
    if (mediaExtension(bytes) === undefined) {
      try {
        return new TextDecoder('utf-8', { fatal: true }).decode(bytes);
      } catch {
        // No text, then: kept as it is.
      }
    }
    return this.keep(this.media.keep(bytes));
  }

  /** A row of another bundle: its text means a file, and must go on doing so. */
  private ownMedia(name: string, column: string, where: string): string {
    const file = this.find(name);
    if (file === undefined)
      fail('ERR_LIBMOE_DATA', `${where}: column "${column}" names ${name}, which is not beside the records`);
    return this.file(file as string, column, where);
  }

  /** A text that looks like the name of an image is one when the file is here. */
  private perhapsImage(name: string, column: string, where: string): StoredValue {
    const file = this.find(name);
    const here = this.imagesHere.get(column);
    if (here === undefined) this.imagesHere.set(column, file !== undefined);
    else if (here && file === undefined) return this.missing(name, column, where);
    else if (!here && file !== undefined && !this.mayMiss)
      fail(
        'ERR_LIBMOE_DATA',
        `${where}: the image ${name} of column "${column}" is here, but those of earlier rows are not: complete them, or keep them away from the records`,
      );
    return file === undefined ? name : this.file(file, column, where);
  }

  /** Never outside of the folders that were named: a record must not be able to pull any file of the machine into a bundle. */
  private find(name: string): string | undefined {
    if (isAbsolute(name)) return undefined;
    for (const folder of this.imageFolders) {
      const file = join(folder, name);
      if (!relative(folder, file).startsWith('..') && isFile(file)) return file;
    }
    return undefined;
  }

  private missing(name: string, column: string, where: string): string {
    if (this.mayMiss) return name;
    return fail(
      'ERR_LIBMOE_DATA',
      `${where}: the image ${name} of column "${column}" is missing: looked in ${this.imageFolders.join(', ') || 'no folder'}. --images FOLDER names another`,
    );
  }

  private file(file: string, column: string, where: string): string {
    const known = this.kept.get(file);
    if (known !== undefined) return known;
    if (!isFile(file)) return this.missing(basename(file), column, where);
    const name = this.keep(this.media.keepFile(file));
    this.kept.set(file, name);
    return name;
  }

  private keep(name: string): string {
    this.shown.add(name);
    return name;
  }
}

function brief(value: unknown): string {
  const text =
    typeof value === 'string' ? JSON.stringify(value) : `a value that is no text (${typeof value})`;
  return text.length > 60 ? `${text.slice(0, 60)}…` : text;
}

function typeOf(value: StoredValue): string {
  if (value === null) return 'null';
  if (typeof value === 'string') return /^media\/[0-9a-f]{64}\./.test(value) ? 'media' : 'string';
  if (typeof value === 'number') return Number.isInteger(value) ? 'integer' : 'number';
  if (typeof value === 'boolean') return 'boolean';
  if (!Array.isArray(value)) return 'object';
  const items = [...new Set(value.map(typeOf))].sort();
  return items.length === 0 ? 'list' : `list<${items.join(' | ')}>`;
}
