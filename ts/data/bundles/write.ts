import { createHash } from 'node:crypto';
import { closeSync, mkdirSync, openSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fail } from '../../native/index.ts';
import { writeFileAtomically, writeFully } from '../../storage/atomic.ts';
import { pauses } from '../pause.ts';
import { type BundleManifest, type BundleSplitEntry, bundleManifestFile } from './manifest.ts';
import { MediaStore } from './media.ts';
import type { SplitRows } from './row.ts';
import { RowStore } from './row-values.ts';

/** What of a manifest the rows do not say. */
export type BundleOrigin = Pick<BundleManifest, 'id' | 'revision' | 'license' | 'sources' | 'made'>;

/** Options of {@link writeBundle}. */
export interface WriteOptions {
  missingImages?: 'stop' | 'name';
  base64Images?: readonly string[];
  signal?: AbortSignal;
  onSplit?: (entry: BundleSplitEntry) => void;
}

/**
 * Writes all splits, their media and the manifest into a folder that nobody else looks at yet.
 * @throws ERR_LIBMOE_DATA for rows that cannot be kept, and for two splits of one name or none
 */
export async function writeBundle(
  folder: string,
  origin: BundleOrigin,
  splits: readonly SplitRows[],
  options: WriteOptions = {},
): Promise<BundleManifest> {
  if (splits.length === 0) fail('ERR_LIBMOE_DATA', 'expected at least one split, got none');
  const media = new MediaStore(folder);
  const types = new Map<string, Set<string>>();
  const entries: BundleSplitEntry[] = [];
  for (const split of splits) {
    const store = new RowStore(
      media,
      split.imageFolders,
      options.missingImages === 'name',
      options.base64Images,
    );
    const entry = await writeSplit(folder, split, store, options.signal);
    if (entries.some(({ file }) => file === entry.file))
      fail('ERR_LIBMOE_DATA', `two splits would both be ${entry.file}`);
    for (const [column, seen] of store.types)
      types.set(column, new Set([...(types.get(column) ?? []), ...seen]));
    entries.push(entry);
    options.onSplit?.(entry);
  }
  const strange = options.base64Images?.find((column) => !types.has(column));
  if (strange !== undefined)
    fail(
      'ERR_LIBMOE_DATA',
      `no row has the column "${strange}" that should hold images as base64 text; there are ${[...types.keys()].join(', ')}`,
    );
  const columns: Record<string, string> = {};
  for (const [column, seen] of types) columns[column] = typeNames(seen);
  const manifest: BundleManifest = {
    format: 'libmoe-bundle',
    version: 1,
    id: origin.id,
    revision: origin.revision,
    license: origin.license,
    columns,
    splits: entries,
    media: { count: media.count, bytes: media.bytes },
    sources: origin.sources,
    made: origin.made,
  };
  writeFileAtomically(join(folder, bundleManifestFile), `${JSON.stringify(manifest, null, 2)}\n`);
  return manifest;
}

/** An empty list goes with any list. */
function typeNames(seen: ReadonlySet<string>): string {
  const names = [...seen].sort();
  const lists = names.some((each) => each.startsWith('list<'));
  return names.filter((each) => each !== 'list' || !lists).join(' | ');
}

const pieceBytes = 1 << 20;

async function writeSplit(
  folder: string,
  split: SplitRows,
  store: RowStore,
  signal: AbortSignal | undefined,
): Promise<BundleSplitEntry> {
  const file = `${split.config === null ? '' : `${split.config}/`}${split.split}.jsonl`;
  mkdirSync(dirname(join(folder, file)), { recursive: true });
  const descriptor = openSync(join(folder, file), 'wx');
  try {
    const hash = createHash('sha256');
    const pause = pauses(`importing ${file}`, signal);
    let [rows, bytes, waiting] = [0, 0, ''];
    const flush = () => {
      const piece = Buffer.from(waiting);
      writeFully(descriptor, piece);
      hash.update(piece);
      bytes += piece.byteLength;
      waiting = '';
    };
    for await (const placed of split.rows()) {
      waiting += `${JSON.stringify(store.store(placed))}\n`;
      rows += 1;
      if (waiting.length >= pieceBytes) flush();
      await pause();
    }
    flush();
    if (rows === 0) fail('ERR_LIBMOE_DATA', `the split ${file.slice(0, -6)} would have no rows`);
    return {
      config: split.config,
      split: split.split,
      file,
      rows,
      bytes,
      sha256: hash.digest('hex'),
      media: store.shown.size,
    };
  } finally {
    closeSync(descriptor);
  }
}
