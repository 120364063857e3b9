import { lstatSync, readdirSync, statSync } from 'node:fs';
import { basename, join, resolve, sep } from 'node:path';
import { fail } from '../../native/index.ts';
import { checksumOf } from '../../storage/checksums.ts';
import type { BundleManifest } from './manifest.ts';
import { isFile } from './media.ts';
import { unpackZip } from './zip.ts';

/** Archives within archives, at the most: one may hold a copy of itself. */
const mostNested = 3;

/** A file that an import may read. */
export interface SourceFile {
  /** Path with slashes, relative to the source it belongs to; for a single file its name. */
  name: string;
  path: string;
  /** The folder that `name` is relative to. */
  root: string;
}

/** Everything below the given files, folders and zip archives. */
export interface SourceTree {
  /** Folders: given ones and unpacked archives. */
  roots: readonly string[];
  /** A folder for what is needed until the import is done; it may not exist yet. */
  scratch: string;
  /** Folders that archives were unpacked to, with the archives: for messages. */
  archives: ReadonlyMap<string, string>;
  files: readonly SourceFile[];
}

/**
 * Files below the sources, sorted by name within each; zip archives among the given sources and in them are unpacked below `scratch`.
 * Hidden files and folders are passed over (`.git`, `.cache`, `.DS_Store`), and `__MACOSX`.
 * @param archives filled as archives are unpacked, so that a message of an error on the way can name them
 * @throws ERR_LIBMOE_FILE for a source that is not there, ERR_LIBMOE_DATA for a damaged archive and one within three others
 */
export async function sourceTree(
  sources: readonly string[],
  scratch: string,
  archives = new Map<string, string>(),
): Promise<SourceTree> {
  const roots: string[] = [];
  const files: SourceFile[] = [];
  const add = async (file: SourceFile, depth = 1): Promise<void> => {
    if (!/\.zip$/i.test(file.name)) {
      files.push(file);
      return;
    }
    if (depth > mostNested)
      fail(
        'ERR_LIBMOE_DATA',
        `${file.path} is an archive within ${mostNested} others: unpack what is wanted and import the folder`,
      );
    const to = join(scratch, String(archives.size + 1));
    archives.set(to, file.path);
    await unpackZip(file.path, to);
    roots.push(to);
    for (const inside of filesBelow(to)) await add(inside, depth + 1);
  };
  for (const source of sources) {
    const stat = statSync(source, { throwIfNoEntry: false });
    if (!stat) fail('ERR_LIBMOE_FILE', `there is no ${source}`);
    const path = resolve(source);
    if (stat.isDirectory()) {
      roots.push(path);
      for (const file of filesBelow(path)) await add(file);
    } else await add({ name: basename(path), path, root: resolve(path, '..') });
  }
  return { roots, scratch, archives, files };
}

function filesBelow(folder: string, below = ''): SourceFile[] {
  return readdirSync(join(folder, below))
    .filter((name) => !name.startsWith('.') && name !== '__MACOSX')
    .sort()
    .flatMap((name) => {
      const path = join(folder, below, name);
      const inside = below === '' ? name : `${below}/${name}`;
      if (lstatSync(path).isDirectory()) return filesBelow(folder, inside);
      // Files of hub snapshots are links into a store of blobs; what they point to counts. Links to folders may lead in circles.
      return isFile(path) ? [{ name: inside, path, root: folder }] : [];
    });
}

/** Size and SHA-256 of every file of the sources, named relative to the source: the name of a source folder itself does not count. */
export function sourceChecksums(sources: readonly string[]): BundleManifest['sources'] {
  return sources.flatMap((source) => {
    const path = resolve(source);
    const stat = statSync(path, { throwIfNoEntry: false });
    if (!stat) fail('ERR_LIBMOE_FILE', `there is no ${source}`);
    const files = stat.isDirectory() ? filesBelow(path) : [{ name: basename(path), path }];
    return files.map((file) => {
      const { size, sha256 } = checksumOf(file.path);
      return { file: file.name.split(sep).join('/'), bytes: size, sha256 };
    });
  });
}
