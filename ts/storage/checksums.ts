import { createHash } from 'node:crypto';
import { closeSync, existsSync, openSync, readdirSync, readSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { fail } from '../native/index.ts';
import { writeFileAtomically } from './atomic.ts';
import { isJsonObject, readJsonObject, reasonOf } from './json.ts';

/** The file that lists the others of its folder. */
export const checksumFile = 'checksums.json';

/** What {@link writeChecksums} keeps of a file. */
export interface FileChecksum {
  /** Bytes. */
  size: number;
  /** Hexadecimal. */
  sha256: string;
}

/** SHA-256 and size of a file, read once in pieces. Throws ERR_LIBMOE_FILE. */
export function checksumOf(path: string): FileChecksum {
  let descriptor: number;
  try {
    descriptor = openSync(path, 'r');
  } catch (cause) {
    fail('ERR_LIBMOE_FILE', `cannot read ${path} (${reasonOf(cause)})`, cause);
  }
  try {
    const hash = createHash('sha256');
    const piece = Buffer.allocUnsafe(1 << 20);
    let size = 0;
    for (;;) {
      const count = readSync(descriptor, piece, 0, piece.length, null);
      if (count === 0) return { size, sha256: hash.digest('hex') };
      hash.update(piece.subarray(0, count));
      size += count;
    }
  } finally {
    closeSync(descriptor);
  }
}

/** Writes `checksums.json` for every file in `folder` (subfolders included). The last thing to do before a folder gets its name. */
export function writeChecksums(folder: string): void {
  const files: Record<string, FileChecksum> = {};
  for (const name of listFiles(folder))
    if (name !== checksumFile) files[name] = checksumOf(join(folder, name));
  writeFileAtomically(join(folder, checksumFile), `${JSON.stringify({ files }, null, 2)}\n`);
}

/** How thoroughly a folder is verified. */
export interface VerifyOptions {
  /** `size` compares file sizes only: finds truncation at once, but not changed bytes. Default `contents`. */
  depth?: 'size' | 'contents';
}

/**
 * Compares a folder with its `checksums.json`. Files that it does not list are nobody's business.
 * Throws ERR_LIBMOE_CHECKPOINT naming the first file that is missing, truncated or changed.
 */
export function verifyFolder(folder: string, options: VerifyOptions = {}): void {
  const path = join(folder, checksumFile);
  if (!existsSync(path)) fail('ERR_LIBMOE_CHECKPOINT', `${folder} has no ${checksumFile}: it is incomplete`);
  const { files } = readJsonObject(path, 'ERR_LIBMOE_CHECKPOINT');
  if (!isJsonObject(files)) fail('ERR_LIBMOE_CHECKPOINT', `${path} has no "files" object: it is damaged`);
  const expected = Object.entries(files).map(([name, entry]): [string, FileChecksum] => {
    if (!isJsonObject(entry) || typeof entry.size !== 'number' || typeof entry.sha256 !== 'string') {
      fail('ERR_LIBMOE_CHECKPOINT', `${path}: the entry of ${name} has no size and sha256: it is damaged`);
    }
    return [join(folder, name), { size: entry.size, sha256: entry.sha256 }];
  });
  // Sizes of all first: they cost nothing and find most damage.
  for (const [file, { size }] of expected) {
    const found = statSync(file, { throwIfNoEntry: false });
    if (!found) fail('ERR_LIBMOE_CHECKPOINT', `${file} is missing`);
    if (found.size !== size) {
      const what = found.size < size ? 'is truncated' : 'has grown';
      fail('ERR_LIBMOE_CHECKPOINT', `${file} ${what}: ${found.size} bytes, expected ${size}`);
    }
  }
  if (options.depth === 'size') return;
  for (const [file, { sha256 }] of expected) {
    if (checksumOf(file).sha256 !== sha256) {
      fail('ERR_LIBMOE_CHECKPOINT', `${file} is damaged: its SHA-256 is not the one in ${checksumFile}`);
    }
  }
}

function listFiles(folder: string, prefix = ''): string[] {
  return readdirSync(folder, { withFileTypes: true })
    .sort((a, b) => (a.name < b.name ? -1 : 1))
    .flatMap((entry) => {
      if (entry.isDirectory()) return listFiles(join(folder, entry.name), `${prefix}${entry.name}/`);
      return entry.isFile() ? [prefix + entry.name] : [];
    });
}
