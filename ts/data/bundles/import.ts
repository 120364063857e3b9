import { existsSync, rmSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { codeOf, fail, LibmoeError } from '../../native/index.ts';
import { writeFolderAtomically } from '../../storage/atomic.ts';
import { readCard } from './card.ts';
import { easyVqaLayout } from './layouts/easy-vqa.ts';
import { gqaLayout } from './layouts/gqa.ts';
import { mmeLayout } from './layouts/mme.ts';
import { mmluLayout } from './layouts/mmlu.ts';
import { popeLayout } from './layouts/pope.ts';
import {
  type BundleManifest,
  type BundleSplitEntry,
  bundleId,
  bundleRevision,
  readBundleManifest,
} from './manifest.ts';
import type { SplitRows } from './row.ts';
import { type SourceTree, sourceChecksums, sourceTree } from './sources.ts';
import { type FilesLayoutOptions, filesLayout } from './split-files.ts';
import { writeBundle } from './write.ts';

/** How the files of a source become splits. */
export type BundleLayout = (tree: SourceTree, options: FilesLayoutOptions) => SplitRows[];

const layouts: Record<string, BundleLayout> = {
  files: filesLayout,
  'easy-vqa': easyVqaLayout,
  gqa: gqaLayout,
  mme: mmeLayout,
  mmlu: mmluLayout,
  pope: popeLayout,
};
/** Layouts that {@link importBundle} knows. */
export const bundleLayouts: readonly string[] = Object.keys(layouts);

/** Options of {@link importBundle}. */
export interface ImportOptions extends FilesLayoutOptions {
  /** Bundles lie in `<out>/<id>/<revision>`. */
  out: string;
  /** `organisation/name`, as tasks call the data set. */
  id: string;
  /** Default `main`. */
  revision?: string;
  /** Default: what the data set's card says. */
  license?: string;
  /** How the files become splits: `files` (default: tables of any kind), or a benchmark's own: `easy-vqa`, `gqa`, `mme`, `mmlu`, `pope`. */
  layout?: string;
  /** Image files that are missing: an error (default), or their names stand in the rows. */
  missingImages?: 'stop' | 'name';
  /** Columns that hold images, or lists of them, as base64 text: they become media like every other image. */
  base64Images?: readonly string[];
  /** Which commit of a hub the sources are; recorded. */
  commit?: string;
  /** Replace a bundle of the same id and revision that was made otherwise. */
  replace?: boolean;
  signal?: AbortSignal;
  /** After every split. */
  onSplit?: (entry: BundleSplitEntry) => void;
}

/** A bundle on disk. */
export interface ImportedBundle {
  folder: string;
  manifest: BundleManifest;
  /** It was there already, made from the same files in the same way. */
  unchanged: boolean;
}

/**
 * Turns files as they are published into an offline bundle: rows as JSON lines, media named by their content, a manifest. Same sources, same
 * bytes. The folder gets its name when all is written.
 * @throws ERR_LIBMOE_ARGUMENT, ERR_LIBMOE_FILE, ERR_LIBMOE_DATA naming file and row; ERR_LIBMOE_BUNDLE when another bundle is in the way
 */
export async function importBundle(
  sources: readonly string[],
  options: ImportOptions,
): Promise<ImportedBundle> {
  const { id, revision = 'main', layout = 'files' } = options;
  if (!bundleId.safeParse(id).success)
    fail('ERR_LIBMOE_ARGUMENT', `the id must be NAME or ORGANISATION/NAME, got "${id}"`);
  if (!bundleRevision.safeParse(revision).success)
    fail('ERR_LIBMOE_ARGUMENT', `a revision has letters, digits and . _ - + only, got "${revision}"`);
  const splitsOf = Object.hasOwn(layouts, layout) ? layouts[layout]! : undefined;
  if (splitsOf === undefined)
    fail('ERR_LIBMOE_ARGUMENT', `there is no layout "${layout}"; known: ${bundleLayouts.join(', ')}`);
  const { splits, columns, images, missingImages, base64Images } = options;
  const made = {
    layout,
    ...(options.commit !== undefined && { commit: options.commit }),
    ...(options.license !== undefined && { license: options.license }),
    ...(splits?.length && { splits }),
    ...(columns && { columns }),
    ...(images !== undefined && { images: true }),
    ...(missingImages && { missingImages }),
    ...(base64Images?.length && { base64Images }),
  };
  const origin = { id, revision, sources: sourceChecksums(sources), made };
  const folder = resolve(options.out, id, revision);
  if (existsSync(folder) && options.replace !== true) {
    const standing = readBundleManifest(folder);
    if (!sameOrigin(standing, origin))
      fail(
        'ERR_LIBMOE_BUNDLE',
        `${folder} is a bundle made of other files or in another way: --replace replaces it, --revision makes another`,
      );
    return { folder, manifest: standing, unchanged: true };
  }
  let manifest: BundleManifest | undefined;
  await writeFolderAtomically(folder, async (temporary) => {
    const scratch = join(temporary, '.unpacked');
    const archives = new Map<string, string>();
    try {
      const tree = await sourceTree(sources, scratch, archives);
      const license = options.license ?? readCard(tree).license ?? null;
      manifest = await writeBundle(temporary, { ...origin, license }, splitsOf(tree, options), options);
    } catch (error) {
      throw inArchives(error, archives);
    }
    rmSync(scratch, { recursive: true, force: true });
  });
  return { folder, manifest: manifest!, unchanged: false };
}

function sameOrigin(standing: BundleManifest, origin: Pick<BundleManifest, 'sources' | 'made'>): boolean {
  return JSON.stringify([standing.sources, standing.made]) === JSON.stringify([origin.sources, origin.made]);
}

/** An error that names a file within an archive, not where it was unpacked for the while. */
function inArchives(error: unknown, archives: SourceTree['archives']): unknown {
  const code = codeOf(error);
  if (code === undefined) return error;
  let { message } = error as Error;
  for (const [folder, file] of [...archives].reverse()) message = message.replaceAll(folder, file);
  return new LibmoeError(code, message, { cause: error });
}
