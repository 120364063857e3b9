import { existsSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { fail } from '../../native/index.ts';
import { checksumOf } from '../../storage/checksums.ts';
import { isJsonObject } from '../../storage/json.ts';
import { pauses } from '../pause.ts';
import type { BundleManifest } from './manifest.ts';
import { mediaFolder, mediaName } from './media.ts';
import { openBundle } from './open.ts';

/** What {@link verifyBundle} looked at. */
export interface VerifiedBundle {
  manifest: BundleManifest;
  files: number;
  bytes: number;
  /** Media files that no row shows: harmless, but not of the import. */
  unknown: string[];
}

/**
 * Reads everything in a bundle and compares it with the manifest: the rows of every split, and every media file that they show with the hash in its name.
 * @throws ERR_LIBMOE_BUNDLE naming the first file that is missing or differs
 */
export async function verifyBundle(
  folder: string,
  options: { signal?: AbortSignal } = {},
): Promise<VerifiedBundle> {
  const bundle = openBundle(folder);
  const { manifest } = bundle;
  const pause = pauses(`verifying ${folder}`, options.signal);
  const shown = new Set<string>();
  let bytes = 0;
  for (const entry of manifest.splits) {
    for (const row of bundle.rows(entry.split, entry.config).allStored()) {
      collectMedia(row, shown);
      await pause();
    }
    bytes += entry.bytes;
  }
  for (const name of [...shown].sort()) {
    const file = join(folder, name);
    if (!existsSync(file)) fail('ERR_LIBMOE_BUNDLE', `${file} is missing: import the data set again`);
    const { size, sha256 } = checksumOf(file);
    if (sha256 !== mediaName.exec(name)?.[1])
      fail('ERR_LIBMOE_BUNDLE', `${file} is damaged: its SHA-256 is ${sha256}. Import the data set again`);
    bytes += size;
    await pause();
  }
  if (shown.size !== manifest.media.count)
    fail(
      'ERR_LIBMOE_BUNDLE',
      `${folder}: rows show ${shown.size} media files, the manifest says ${manifest.media.count}`,
    );
  const place = join(folder, mediaFolder);
  const unknown = (existsSync(place) ? readdirSync(place).sort() : [])
    .map((name) => `${mediaFolder}/${name}`)
    .filter((name) => !shown.has(name));
  return { manifest, files: manifest.splits.length + shown.size, bytes, unknown };
}

function collectMedia(value: unknown, into: Set<string>): void {
  if (typeof value === 'string') {
    if (mediaName.test(value)) into.add(value);
  } else if (Array.isArray(value)) for (const each of value) collectMedia(each, into);
  else if (isJsonObject(value)) for (const each of Object.values(value)) collectMedia(each, into);
}
