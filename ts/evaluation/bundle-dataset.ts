import { createHash } from 'node:crypto';
import { z } from 'zod';
import { type Bundle, findBundle, openBundle } from '../data/bundles/index.ts';
import { safeName } from '../data/bundles/split-files.ts';
import { fail } from '../native/index.ts';
import { type DatasetContext, type LoadedRows, registerDataset } from './dataset.ts';
import type { Row } from './task.ts';

/** Keys of `dataset_kwargs` that choose a bundle. */
export const bundleOptions = z.object({
  id: z.string(),
  revision: z.string().optional(),
  config: z.string().nullish(),
  /** Columns from another config of the bundle: of the row whose `key` has the value that this one has in `on` (GQA's images). */
  join: z
    .strictObject({
      config: z.string(),
      split: z.string().optional(),
      on: z.string(),
      key: z.string(),
      columns: z.array(z.string()).min(1),
    })
    .nullish(),
});

/**
 * Rows of an offline bundle (docs/data.md), each read from disk when it is looked at; image columns are absolute paths. What identifies
 * them is the hash of the split's file, wherever the bundle lies. The config `*` stands for all that have the split.
 * @throws ERR_LIBMOE_DATA when there is no such bundle; ERR_LIBMOE_BUNDLE when it is damaged or has no such split
 */
export function bundleRows(options: z.output<typeof bundleOptions>, context: DatasetContext): LoadedRows {
  const { id, revision } = options;
  const config = options.config && options.config !== '*' ? safeName([options.config]) : options.config;
  const folder = findBundle(context.folders, id, revision);
  if (folder === undefined)
    return fail(
      'ERR_LIBMOE_DATA',
      `there is no bundle of ${id}${revision === undefined ? '' : ` at ${revision}`} in ${context.folders.join(', ')}. Make it: "npx libmoe data import SOURCE --id ${id}", or "npx libmoe data download ${id}"; --data names the folder it is in`,
    );
  const bundle = openBundle(folder);
  const splits = [...new Set(bundle.manifest.splits.map(({ split }) => split))];
  const split = context.split ?? (splits.length === 1 ? splits[0]! : undefined);
  if (split === undefined)
    return fail(
      'ERR_LIBMOE_CONFIG',
      `${id} has the splits ${splits.join(', ')}: the task must name one (test_split)`,
    );
  if (config === '*') return allConfigs(bundle, split);
  const rows = bundle.rows(split, config ?? undefined);
  const { join } = options;
  if (!join) return { rows: lazyRows(rows), sha256: rows.entry.sha256 };
  const others = bundle.rows(join.split ?? split, join.config);
  const places = new Map(Array.from(others, (row, i) => [row[join.key], i]));
  const joined = {
    length: rows.length,
    at: (index: number): Row => {
      const row = rows.at(index);
      const place = places.get(row[join.on]);
      if (place === undefined)
        return fail(
          'ERR_LIBMOE_DATA',
          `${id}, row ${index}: config ${join.config} has no row with ${join.key} ${JSON.stringify(row[join.on])}`,
        );
      const other: Row = others.at(place);
      return { ...row, ...Object.fromEntries(join.columns.map((name) => [name, other[name]])) };
    },
  };
  return { rows: lazyRows(joined), sha256: `${rows.entry.sha256}+${others.entry.sha256}` };
}

/** The rows of all configs that have the split, in the order of the manifest. */
function allConfigs(bundle: Bundle, split: string): LoadedRows {
  const hash = createHash('sha256');
  const rows = bundle.manifest.splits
    .filter((each) => each.split === split)
    .flatMap(({ config }) => {
      const opened = bundle.rows(split, config);
      hash.update(opened.entry.sha256);
      return [...opened];
    });
  return { rows, sha256: hash.digest('hex') };
}

/** A list whose elements are read as they are asked for: all that lists can do, without a row in memory. */
function lazyRows(rows: { length: number; at(index: number): Row }): readonly Row[] {
  const indexOf = (key: string | symbol): number | undefined => {
    if (typeof key !== 'string' || !/^\d+$/.test(key)) return undefined;
    const index = Number(key);
    return index < rows.length ? index : undefined;
  };
  return new Proxy<Row[]>([], {
    get(list, key, receiver) {
      if (key === 'length') return rows.length;
      const index = indexOf(key);
      return index === undefined ? Reflect.get(list, key, receiver) : rows.at(index);
    },
    has: (list, key) => indexOf(key) !== undefined || Reflect.has(list, key),
  });
}

registerDataset('bundle', { options: bundleOptions.strict(), load: bundleRows });
