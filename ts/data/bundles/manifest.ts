import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { z } from 'zod';
import { fail } from '../../native/index.ts';
import { recoverFolder } from '../../storage/atomic.ts';
import { readJsonObject } from '../../storage/json.ts';
import { explainIssues } from '../../storage/schema-errors.ts';

/** The file that makes a folder a bundle; written last. */
export const bundleManifestFile = 'manifest.json';

const sha256 = z.string().regex(/^[0-9a-f]{64}$/);
/** A part of an id, a revision, a config or a split: becomes a file name, so no dots in front and no separators. */
const name = z
  .string()
  .regex(/^[\w][\w.+-]*$/, 'has letters, digits and . _ - + only and begins with one of the first two');

/** `name` or `org/name`. */
export const bundleId = z.string().regex(/^\w[\w.+-]*(\/\w[\w.+-]*)?$/, 'an id is NAME or ORGANISATION/NAME');
export const bundleRevision = name;

const splitSchema = z.strictObject({
  /** The configuration (subset) of a data set that has several. */
  config: name.nullable(),
  split: name,
  /** Below the bundle's folder: `<split>.jsonl` or `<config>/<split>.jsonl`. */
  file: z.string().regex(/^(\w[\w.+-]*\/)?\w[\w.+-]*\.jsonl$/),
  rows: z.int().nonnegative(),
  bytes: z.int().nonnegative(),
  sha256,
  /** Distinct media files that its rows show. */
  media: z.int().nonnegative(),
});

const manifestSchema = z.strictObject({
  format: z.literal('libmoe-bundle'),
  version: z.literal(1),
  id: bundleId,
  revision: bundleRevision,
  /** As the importer was told, or as the data set's card says; null: unknown. */
  license: z.string().nullable(),
  /** Types that the values of a column have, over all splits: `string`, `integer | null`, `media`, `list<media>` … */
  columns: z.record(z.string(), z.string()),
  splits: z.array(splitSchema).min(1),
  media: z.strictObject({ count: z.int().nonnegative(), bytes: z.int().nonnegative() }),
  /** What it was made from. */
  sources: z.array(z.strictObject({ file: z.string(), bytes: z.int().nonnegative(), sha256 })),
  /** What the importer was asked to do with them; the same again gives the same bytes. */
  made: z.record(z.string(), z.unknown()),
});

/** What a bundle holds: `manifest.json`. */
export type BundleManifest = z.output<typeof manifestSchema>;
/** One split of one config. */
export type BundleSplitEntry = z.output<typeof splitSchema>;

/**
 * Reads the manifest of a bundle's folder.
 * @throws ERR_LIBMOE_BUNDLE when the folder is none, is unfinished, or the manifest is damaged
 */
export function readBundleManifest(folder: string): BundleManifest {
  recoverFolder(folder);
  const path = join(folder, bundleManifestFile);
  if (!existsSync(path))
    fail(
      'ERR_LIBMOE_BUNDLE',
      `${folder} is no data bundle: it has no ${bundleManifestFile}. "libmoe data import" makes bundles`,
    );
  const content = readJsonObject(path, 'ERR_LIBMOE_BUNDLE');
  const parsed = manifestSchema.safeParse(content);
  if (!parsed.success)
    fail('ERR_LIBMOE_BUNDLE', `${path}: ${explainIssues(manifestSchema, parsed.error.issues, content)}`);
  return parsed.data;
}
