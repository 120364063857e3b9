import { createHash, type Hash } from 'node:crypto';
import {
  closeSync,
  createReadStream,
  existsSync,
  fsyncSync,
  mkdirSync,
  openSync,
  renameSync,
  rmSync,
  statSync,
} from 'node:fs';
import { dirname, join } from 'node:path';
import { codeOf, fail } from '../../native/index.ts';
import { syncFolder, writeFully } from '../../storage/atomic.ts';
import { globMatcher } from './glob.ts';
import { bundleId } from './manifest.ts';

/** A file of a data set on the hub. */
interface HubFile {
  path: string;
  size: number;
  /** Hash of a git blob; for large files that of their pointer. */
  oid?: string;
  lfs?: { oid: string; size: number };
}

/** Options of {@link downloadDataset}. */
export interface DownloadOptions {
  /** Files go to `<to>/<id>/<commit>`. */
  to: string;
  /** Branch, tag or commit; default `main`. */
  revision?: string;
  /** Patterns of names; default: all files. */
  include?: readonly string[];
  /** Default: huggingface.co. */
  hubUrl?: string;
  /** For data sets that ask for consent. */
  accessToken?: string;
  signal?: AbortSignal;
  /** After every file; `had`: bytes that were here before. */
  onFile?: (file: { path: string; bytes: number; had: number }) => void;
}

/** Files of a data set as the hub has them. */
export interface DownloadedDataset {
  folder: string;
  commit: string;
  files: number;
  bytes: number;
}

/**
 * Fetches the files of a data set from the Hugging Face hub (through `@huggingface/hub`). Every file is compared with its hash when it arrives; what an
 * earlier call fetched whole is kept, a file that was cut off goes on where it stopped. Nothing else in this library but this opens a connection for data.
 * @throws ERR_LIBMOE_DOWNLOAD when the hub cannot be reached, refuses, or sends other bytes than it announced
 */
export async function downloadDataset(id: string, options: DownloadOptions): Promise<DownloadedDataset> {
  if (!bundleId.safeParse(id).success)
    fail('ERR_LIBMOE_ARGUMENT', `a data set of the hub is ORGANISATION/NAME, got "${id}"`);
  const { datasetInfo, listFiles } = await import('@huggingface/hub');
  const { revision = 'main', signal } = options;
  const client = {
    ...(options.hubUrl !== undefined && { hubUrl: options.hubUrl }),
    ...(options.accessToken !== undefined && { accessToken: options.accessToken }),
    fetch: ((url, init) => fetch(url, { ...init, ...(signal && { signal }) })) as typeof fetch,
  };
  const repo = { type: 'dataset' as const, name: id };
  try {
    const { sha: commit } = await datasetInfo({ ...client, name: id, revision, additionalFields: ['sha'] });
    if (!/^[0-9a-f]{40}$/.test(commit))
      fail('ERR_LIBMOE_DOWNLOAD', `the hub calls ${revision} of ${id} "${commit}", which is no commit`);
    const wanted = options.include?.length ? options.include.map(globMatcher) : undefined;
    const folder = join(options.to, id, commit);
    let [files, bytes] = [0, 0];
    for await (const entry of listFiles({ ...client, repo, recursive: true, revision: commit })) {
      if (entry.type !== 'file' || (wanted && !wanted.some((match) => match(entry.path)))) continue;
      const had = await fetchFile(folder, entry, async () => {
        const { downloadFile } = await import('@huggingface/hub');
        return downloadFile({ ...client, repo, path: entry.path, revision: commit });
      });
      files += 1;
      bytes += sizeOf(entry);
      options.onFile?.({ path: entry.path, bytes: sizeOf(entry), had });
      signal?.throwIfAborted();
    }
    if (files === 0)
      fail(
        'ERR_LIBMOE_DOWNLOAD',
        `${id} at ${commit} has no files${wanted ? ` that match ${options.include!.join(', ')}` : ''}`,
      );
    return { folder, commit, files, bytes };
  } catch (cause) {
    if (signal?.aborted) throw signal.reason;
    if (codeOf(cause) !== undefined) throw cause;
    return fail('ERR_LIBMOE_DOWNLOAD', `cannot download ${id}: ${explained(cause)}`, cause);
  }
}

const sizeOf = (file: HubFile): number => file.lfs?.size ?? file.size;

/** Gives the bytes that were here before. */
async function fetchFile(folder: string, file: HubFile, open: () => Promise<Blob | null>): Promise<number> {
  if (file.path.split(/[/\\]/).some((part) => part === '..' || part === '') || /^[a-zA-Z]:/.test(file.path))
    fail(
      'ERR_LIBMOE_DOWNLOAD',
      `the hub names a file ${JSON.stringify(file.path)}, which leads out of the folder`,
    );
  const size = sizeOf(file);
  const path = join(folder, file.path);
  if (existsSync(path) && statSync(path).size === size) return size;
  mkdirSync(dirname(path), { recursive: true });
  const part = `${path}.incomplete`;
  const found = statSync(part, { throwIfNoEntry: false })?.size ?? 0;
  const had = found > size ? 0 : found;
  const hash = hashOf(file, size);
  if (had > 0) for await (const piece of createReadStream(part)) hash.update(piece as Buffer);
  const descriptor = openSync(part, had > 0 ? 'a' : 'w');
  let done = had;
  try {
    if (had < size || size === 0) {
      const blob = await open();
      if (blob === null)
        return fail('ERR_LIBMOE_DOWNLOAD', `the hub lists ${file.path} and does not have it`);
      const rest = had === 0 ? blob : blob.slice(had, size);
      for await (const piece of rest.stream()) {
        writeFully(descriptor, piece);
        hash.update(piece);
        done += piece.byteLength;
        if (done > size) break;
      }
    }
    fsyncSync(descriptor);
  } finally {
    closeSync(descriptor);
  }
  if (done < size)
    fail(
      'ERR_LIBMOE_DOWNLOAD',
      `${file.path} ended after ${done} of ${size} bytes: the same command goes on from there`,
    );
  const expected = file.lfs?.oid ?? file.oid;
  if (done > size || (expected !== undefined && hash.digest('hex') !== expected)) {
    rmSync(part);
    fail(
      'ERR_LIBMOE_DOWNLOAD',
      `${file.path} is not what the hub announced (its hash is another): try again`,
    );
  }
  renameSync(part, path);
  syncFolder(dirname(path));
  return had;
}

/** The hash that the hub tells: SHA-256 of large files, git's of others. */
function hashOf(file: HubFile, size: number): Hash {
  return file.lfs ? createHash('sha256') : createHash('sha1').update(`blob ${size}\0`);
}

function explained(cause: unknown): string {
  if (!(cause instanceof Error)) return String(cause);
  const { statusCode } = cause as { statusCode?: number };
  if (statusCode === 401 || statusCode === 403)
    return `the hub refuses (${statusCode}). The name may be wrong, or the data set asks for consent: give it on its page and set HF_TOKEN`;
  if (statusCode === 404) return 'the hub does not know this data set or revision';
  const inner = (cause.cause as { code?: unknown; message?: string } | undefined)?.code;
  return typeof inner === 'string' ? `${cause.message} (${inner})` : cause.message;
}
