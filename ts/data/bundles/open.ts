import { createHash } from 'node:crypto';
import { closeSync, existsSync, fstatSync, openSync, readSync } from 'node:fs';
import { join } from 'node:path';
import { fail } from '../../native/index.ts';
import { readAt } from '../../storage/atomic.ts';
import { isJsonObject } from '../../storage/json.ts';
import { type BundleManifest, type BundleSplitEntry, readBundleManifest } from './manifest.ts';
import { mediaName } from './media.ts';

/** A row of a bundle; media are absolute paths of files. */
export type BundleRow = Readonly<Record<string, unknown>>;

/**
 * The rows of one split, read when they are asked for. Between reads no file is open: an evaluation of many bundles would else run out of
 * descriptors.
 */
export interface BundleRows extends Iterable<BundleRow> {
  readonly entry: BundleSplitEntry;
  readonly length: number;
  /** A row by number from 0, read from disk now. Throws ERR_LIBMOE_ARGUMENT for one that is not there. */
  at(index: number): BundleRow;
  /** The same as it is stored: media by their names in the bundle. */
  stored(index: number): BundleRow;
  /** All rows as they are stored, in order; the file stays open from the first to the last. */
  allStored(): Iterable<BundleRow>;
}

/** A bundle whose manifest has been read. */
export interface Bundle {
  folder: string;
  manifest: BundleManifest;
  /**
   * Opens a split: reads its file through once, compares it with the manifest and remembers where rows begin (8 bytes a row).
   * @throws ERR_LIBMOE_BUNDLE for an unknown split or config, and for a file that is missing or not the one that was imported
   */
  rows(split: string, config?: string | null): BundleRows;
}

/** @throws ERR_LIBMOE_BUNDLE when the folder is no bundle */
export function openBundle(folder: string): Bundle {
  const manifest = readBundleManifest(folder);
  return {
    folder,
    manifest,
    rows: (split, config) => openRows(folder, entryOf(folder, manifest, split, config)),
  };
}

function entryOf(
  folder: string,
  manifest: BundleManifest,
  split: string,
  config: string | null | undefined,
): BundleSplitEntry {
  const named = manifest.splits.filter((each) => each.split === split);
  const found = config === undefined ? named : named.filter((each) => each.config === config);
  if (found.length === 1) return found[0]!;
  const known = manifest.splits.map((each) => each.file.slice(0, -'.jsonl'.length)).join(', ');
  const asked = config === undefined || config === null ? split : `${config}/${split}`;
  const problem =
    found.length > 1 ? `has "${split}" in several configs, name one` : `has no split "${asked}"`;
  return fail('ERR_LIBMOE_BUNDLE', `the bundle ${folder} ${problem}: it has ${known}`);
}

function openRows(folder: string, entry: BundleSplitEntry): BundleRows {
  const file = join(folder, entry.file);
  if (!existsSync(file)) fail('ERR_LIBMOE_BUNDLE', `${file} is missing: import the data set again`);
  const starts = opened(file, (descriptor) => checkedStarts(descriptor, file, entry));
  const read = (descriptor: number, index: number): BundleRow => {
    const line = Buffer.alloc(starts[index + 1]! - starts[index]!);
    readAt(descriptor, line, starts[index]!);
    const row: unknown = JSON.parse(line.toString());
    return isJsonObject(row) ? row : fail('ERR_LIBMOE_BUNDLE', `${file}:${index + 1} is no object`);
  };
  const stored = (index: number): BundleRow => {
    if (!Number.isInteger(index) || index < 0 || index >= entry.rows)
      fail('ERR_LIBMOE_ARGUMENT', `${file} has the rows 0…${entry.rows - 1}, got ${index}`);
    return opened(file, (descriptor) => {
      checkSize(descriptor, file, entry);
      return read(descriptor, index);
    });
  };
  function* allStored(): Generator<BundleRow> {
    const descriptor = openSync(file, 'r');
    try {
      checkSize(descriptor, file, entry);
      for (let i = 0; i < entry.rows; ++i) yield read(descriptor, i);
    } finally {
      closeSync(descriptor);
    }
  }
  const shown = (row: BundleRow): BundleRow => withPaths(row, folder) as BundleRow;
  return {
    entry,
    length: entry.rows,
    stored,
    at: (index) => shown(stored(index)),
    allStored,
    *[Symbol.iterator]() {
      for (const row of allStored()) yield shown(row);
    },
  };
}

function opened<T>(file: string, read: (descriptor: number) => T): T {
  const descriptor = openSync(file, 'r');
  try {
    return read(descriptor);
  } finally {
    closeSync(descriptor);
  }
}

function differs(file: string, what: string): never {
  return fail(
    'ERR_LIBMOE_BUNDLE',
    `${file} is not the file that was imported (${what}): import the data set again, or take the file from where it is whole`,
  );
}

/** The whole file is hashed when the split is opened; a file that was put in its place since then rarely has its size. */
function checkSize(descriptor: number, file: string, entry: BundleSplitEntry): void {
  const { size } = fstatSync(descriptor);
  if (size !== entry.bytes) differs(file, `${size} bytes, expected ${entry.bytes}`);
}

/** Where each row begins, and the length of the file at the end. */
function checkedStarts(descriptor: number, file: string, entry: BundleSplitEntry): Float64Array {
  checkSize(descriptor, file, entry);
  const hash = createHash('sha256');
  const starts = new Float64Array(entry.rows + 1);
  const piece = Buffer.allocUnsafe(1 << 20);
  let [row, place] = [0, 0];
  for (;;) {
    const count = readSync(descriptor, piece, 0, piece.length, place);
    if (count === 0) break;
    const part = piece.subarray(0, count);
    hash.update(part);
    for (let at = part.indexOf(10); at >= 0; at = part.indexOf(10, at + 1)) {
      row += 1;
      if (row <= entry.rows) starts[row] = place + at + 1;
    }
    place += count;
  }
  if (hash.digest('hex') !== entry.sha256) differs(file, 'its SHA-256 is another');
  if (row !== entry.rows) differs(file, `${row} rows, expected ${entry.rows}`);
  return starts;
}

function withPaths(value: unknown, folder: string): unknown {
  if (typeof value === 'string') return mediaName.test(value) ? join(folder, value) : value;
  if (Array.isArray(value)) return value.map((each) => withPaths(each, folder));
  if (!isJsonObject(value)) return value;
  return Object.fromEntries(Object.entries(value).map(([key, each]) => [key, withPaths(each, folder)]));
}
