import { existsSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { fail } from '../../native/index.ts';
import { bundleId, bundleManifestFile, bundleRevision } from './manifest.ts';

/**
 * The folder of a bundle by id, in the first of `folders` that has it; without `revision` the only one there is, or `main`.
 * @returns undefined where there is none
 * @throws ERR_LIBMOE_BUNDLE for several revisions none of which is `main`, ERR_LIBMOE_ARGUMENT for an impossible id or revision
 */
export function findBundle(folders: readonly string[], id: string, revision?: string): string | undefined {
  if (!bundleId.safeParse(id).success)
    fail('ERR_LIBMOE_ARGUMENT', `the id of a bundle is NAME or ORGANISATION/NAME, got "${id}"`);
  if (revision !== undefined && !bundleRevision.safeParse(revision).success)
    fail('ERR_LIBMOE_ARGUMENT', `"${revision}" is no revision of a bundle`);
  for (const folder of folders) {
    const place = join(folder, id);
    const known = revisionsIn(place);
    if (known.length === 0) continue;
    if (revision !== undefined) {
      if (known.includes(revision)) return join(place, revision);
      continue;
    }
    if (known.length === 1) return join(place, known[0]!);
    if (known.includes('main')) return join(place, 'main');
    fail(
      'ERR_LIBMOE_BUNDLE',
      `${place} has the revisions ${known.join(', ')}: name one (dataset_kwargs: { revision: … })`,
    );
  }
  return undefined;
}

function revisionsIn(place: string): string[] {
  if (!existsSync(place)) return [];
  return readdirSync(place)
    .filter((name) => !name.startsWith('.') && existsSync(join(place, name, bundleManifestFile)))
    .sort();
}
