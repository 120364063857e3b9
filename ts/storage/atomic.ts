import { randomBytes } from 'node:crypto';
import {
  closeSync,
  existsSync,
  fsyncSync,
  mkdirSync,
  openSync,
  readdirSync,
  readSync,
  renameSync,
  rmSync,
  statSync,
  writeSync,
} from 'node:fs';
import { hostname } from 'node:os';
import { basename, dirname, join, resolve } from 'node:path';
import { threadId } from 'node:worker_threads';
import { fail } from '../native/index.ts';
import { reasonOf } from './json.ts';

/** A temporary is taken for abandoned after this time even when its owner cannot be asked (another machine, a reused pid). */
const abandonedAfter = 3_600_000;
const host = hostname().replace(/[^A-Za-z0-9]/g, '') || 'host';
const inUse = new Set<string>();

type FileContent = string | Uint8Array | ((descriptor: number) => void);

/**
 * Writes a file so that a crash at any moment leaves the old content or the new, never a mixture: temporary sibling, fsync,
 * rename, fsync of the folder. `content` may be a function that writes to the descriptor it is given. Temporaries that an earlier
 * crash left beside the file are removed. Throws ERR_LIBMOE_FILE, and ERR_LIBMOE_ARGUMENT for the path '';
 * what `content` throws passes through and leaves the old file.
 */
export function writeFileAtomically(path: string, content: FileContent): void {
  const final = placeOf(path);
  attempt(final, () => mkdirSync(dirname(final), { recursive: true }));
  removeAbandoned(final);
  const temporary = temporaryName(final, 'tmp');
  inUse.add(temporary);
  try {
    const descriptor = attempt(final, () => openSync(temporary, 'wx', 0o644));
    try {
      if (typeof content === 'function') content(descriptor);
      else
        attempt(final, () =>
          writeFully(descriptor, typeof content === 'string' ? Buffer.from(content) : content),
        );
      attempt(final, () => fsyncSync(descriptor));
    } finally {
      closeSync(descriptor);
    }
    attempt(final, () => renameSync(temporary, final));
    syncFolder(dirname(final));
  } finally {
    rmSync(temporary, { force: true });
    inUse.delete(temporary);
  }
}

/**
 * Makes the folder `path` out of what `fill` writes into the temporary folder it is handed: every file is fsynced, then the folder
 * gets its name in one rename. An existing folder is replaced; its old content is set aside for the instant between two renames,
 * and a crash in that instant is mended by {@link recoverFolder} (called by the next write and by readers of checkpoints).
 * Throws ERR_LIBMOE_FILE, and ERR_LIBMOE_ARGUMENT for the path ''; what `fill` throws passes through and leaves the old folder.
 */
export async function writeFolderAtomically(
  path: string,
  fill: (temporary: string) => void | Promise<void>,
): Promise<void> {
  const final = placeOf(path);
  attempt(final, () => mkdirSync(dirname(final), { recursive: true }));
  recoverFolder(final);
  removeAbandoned(final);
  const temporary = temporaryName(final, 'tmp');
  const aside = temporaryName(final, 'old');
  inUse.add(temporary).add(aside);
  try {
    attempt(final, () => mkdirSync(temporary));
    await fill(temporary);
    attempt(final, () => syncTree(temporary));
    attempt(final, () => {
      const replacing = existsSync(final);
      if (replacing) renameSync(final, aside);
      try {
        renameSync(temporary, final);
      } catch (error) {
        if (replacing) renameSync(aside, final);
        throw error;
      }
    });
    syncFolder(dirname(final));
  } finally {
    rmSync(temporary, { recursive: true, force: true });
    if (existsSync(final)) rmSync(aside, { recursive: true, force: true });
    inUse.delete(temporary);
    inUse.delete(aside);
  }
}

/** Puts an old folder back that a crash left set aside while it was being replaced. Does nothing in every other case. */
export function recoverFolder(path: string): void {
  const final = resolve(path);
  if (existsSync(final)) return;
  const aside = siblings(final, 'old').filter(abandoned)[0];
  if (aside === undefined) return;
  attempt(final, () => renameSync(aside, final));
  syncFolder(dirname(final));
}

/** {@link recoverFolder} for everything that was written atomically into `folder`, and removal of what dead processes left half-written. */
export function recoverAll(folder: string): void {
  if (!existsSync(folder)) return;
  const names = readdirSync(folder).flatMap((name) => /^\.(.+)\.(?:tmp|old)-[^.]+$/.exec(name)?.[1] ?? []);
  for (const name of new Set(names)) {
    recoverFolder(join(folder, name));
    removeAbandoned(join(folder, name));
  }
}

/**
 * Removes what this process's other threads left half-written in `folder`: for a caller that has ended them in the middle of their work and
 * knows of no other.
 */
export function removeOfEndedThreads(folder: string): void {
  const own = `${host}-${process.pid}-`;
  for (const name of existsSync(folder) ? readdirSync(folder) : []) {
    const thread = /^\..+\.tmp-([^.]+)$/.exec(name)?.[1];
    if (thread?.startsWith(own) && !inUse.has(join(folder, name)))
      rmSync(join(folder, name), { recursive: true, force: true });
  }
}

/** Writes all of `data` at the descriptor's position (or at `position`), however many calls the system needs. */
export function writeFully(descriptor: number, data: Uint8Array, position: number | null = null): void {
  let done = 0;
  while (done < data.byteLength) {
    // One write moves at most 2 GiB on Linux.
    const length = Math.min(data.byteLength - done, 1 << 30);
    done += writeSync(descriptor, data, done, length, position === null ? null : position + done);
  }
}

/** Reads from byte `position` on, however many calls the system needs. Returns the bytes read: fewer than `into` holds at the end of the file. */
export function readAt(descriptor: number, into: Uint8Array, position: number): number {
  let done = 0;
  while (done < into.byteLength) {
    // One read moves at most 2 GiB on Linux.
    const length = Math.min(into.byteLength - done, 1 << 30);
    const count = readSync(descriptor, into, done, length, position + done);
    if (count === 0) break;
    done += count;
  }
  return done;
}

/** Makes a rename or a new name in `folder` durable. Systems that cannot open folders (Windows) do without. */
export function syncFolder(folder: string): void {
  let descriptor: number;
  try {
    descriptor = openSync(folder, 'r');
  } catch {
    return;
  }
  try {
    fsyncSync(descriptor);
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code;
    if (code !== 'EINVAL' && code !== 'EPERM' && code !== 'EISDIR') throw error;
  } finally {
    closeSync(descriptor);
  }
}

function syncTree(folder: string): void {
  for (const entry of readdirSync(folder, { withFileTypes: true })) {
    const path = join(folder, entry.name);
    if (entry.isDirectory()) syncTree(path);
    else if (entry.isFile()) {
      const descriptor = openSync(path, 'r'); // fsync needs no write permission
      try {
        fsyncSync(descriptor);
      } finally {
        closeSync(descriptor);
      }
    }
  }
  syncFolder(folder);
}

/** Node takes '' for the current folder, which nobody means to overwrite: an unset variable of a shell script becomes ''. */
function placeOf(path: string): string {
  if (path === '')
    fail('ERR_LIBMOE_ARGUMENT', 'expected a path to write to, got an empty text: name a file or folder');
  return resolve(path);
}

type Kind = 'tmp' | 'old';

/** `.name.tmp-host-pid-thread-random`: hidden, in the same folder (a rename must not cross file systems), and telling whose it is. */
function temporaryName(final: string, kind: Kind): string {
  const mark = `${host}-${process.pid}-${threadId}-${randomBytes(4).toString('hex')}`;
  return join(dirname(final), `.${basename(final)}.${kind}-${mark}`);
}

function siblings(final: string, kind: Kind): string[] {
  const folder = dirname(final);
  const prefix = `.${basename(final)}.${kind}-`;
  if (!existsSync(folder)) return [];
  return readdirSync(folder)
    .filter(
      (name) =>
        name.startsWith(prefix) && /^[A-Za-z0-9]+-\d+-\d+-[0-9a-f]{8}$/.test(name.slice(prefix.length)),
    )
    .sort()
    .map((name) => join(folder, name));
}

function removeAbandoned(final: string): void {
  for (const path of siblings(final, 'tmp').filter(abandoned)) rmSync(path, { recursive: true, force: true });
  if (!existsSync(final)) return;
  for (const path of siblings(final, 'old').filter(abandoned)) rmSync(path, { recursive: true, force: true });
}

function abandoned(path: string): boolean {
  if (inUse.has(path)) return false;
  const [owner, pid, thread] = path.slice(path.lastIndexOf('.') + 5).split('-');
  if (owner === host) {
    if (Number(pid) === process.pid ? Number(thread) === threadId : !alive(Number(pid))) return true;
  }
  try {
    return Date.now() - statSync(path).mtimeMs > abandonedAfter;
  } catch {
    return false;
  }
}

function alive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM';
  }
}

function attempt<T>(path: string, work: () => T): T {
  try {
    return work();
  } catch (cause) {
    fail('ERR_LIBMOE_FILE', `cannot write ${path} (${reasonOf(cause)})`, cause);
  }
}
