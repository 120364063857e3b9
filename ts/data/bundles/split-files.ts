import { basename, dirname, join } from 'node:path';
import { fail } from '../../native/index.ts';
import { type DataCard, readCard } from './card.ts';
import { globMatcher } from './glob.ts';
import { tableEndings, tableKind, tableRows } from './readers/index.ts';
import type { PlacedRow, SplitRows } from './row.ts';
import type { SourceFile, SourceTree } from './sources.ts';

/** What the general layout goes by. */
export interface FilesLayoutOptions {
  /** `SPLIT=GLOB` or `CONFIG/SPLIT=GLOB`, over names relative to the sources; `{config}` and `{split}` in both stand for what they match. */
  splits?: readonly string[];
  /** Names of the columns of csv files without a header. */
  columns?: readonly string[];
  /** Further folder in which images that rows name are looked up, first. */
  images?: string;
}

interface Assignment {
  config: string | null;
  split: string;
  files: SourceFile[];
}

/** Files that tools leave beside the data. */
const aside = /^(?:dataset_infos?|dataset_dict|state|manifest|package(?:-lock)?)\.json$/;

/**
 * Splits of any tables: as `splits` says, else as the card of a hub data set (README.md) says, else by file names: `test-00000-of-00001.parquet`, the words
 * train, validation (valid, val, dev) and test (eval) in names of files and folders, other folders as configs, and `train` where nothing speaks.
 * @throws ERR_LIBMOE_DATA where there are no tables, a pattern matches none, or a split would be made of several kinds of files
 */
export function filesLayout(tree: SourceTree, options: FilesLayoutOptions): SplitRows[] {
  const tables = tree.files.filter(({ name }) => tableKind(name) && !aside.test(basename(name)));
  if (tables.length === 0)
    return fail(
      'ERR_LIBMOE_DATA',
      `the sources hold no table (${tableEndings}): ${tree.files.length} files of other kinds`,
    );
  const card = readCard(tree);
  const assigned =
    options.splits && options.splits.length > 0
      ? byPatterns(tables, options.splits)
      : card.configs.length > 0
        ? byCard(tables, card)
        : byNames(tables);
  return assigned.map(({ config, split, files }) => {
    const kinds = new Set(files.map(({ name }) => tableKind(name)));
    if (kinds.size > 1)
      fail(
        'ERR_LIBMOE_DATA',
        `the split "${split}" would be made of ${[...kinds].join(' and ')} files (${files.map(({ name }) => name).join(', ')}): choose with --split`,
      );
    return {
      config,
      split,
      imageFolders: imageFolders(files, options.images),
      rows: () => rowsOf(files, options.columns),
    };
  });
}

async function* rowsOf(files: readonly SourceFile[], columns?: readonly string[]): AsyncGenerator<PlacedRow> {
  for (const { path } of files) yield* tableRows(path, columns ? { columns } : {});
}

function imageFolders(files: readonly SourceFile[], images: string | undefined): string[] {
  const folders = files.flatMap(({ path, root }) => {
    const folder = dirname(path);
    return [folder, join(folder, 'images'), root, join(root, 'images')];
  });
  return [...new Set([...(images === undefined ? [] : [images]), ...folders])];
}

function collect(found: readonly { config: string | null; split: string; file: SourceFile }[]): Assignment[] {
  const byName = new Map<string, Assignment>();
  for (const { config, split, file } of found) {
    const key = JSON.stringify([config, split]);
    const known = byName.get(key);
    if (known) known.files.push(file);
    else byName.set(key, { config, split, files: [file] });
  }
  return [...byName.keys()].sort().map((key) => byName.get(key)!);
}

function byPatterns(tables: readonly SourceFile[], patterns: readonly string[]): Assignment[] {
  const found = patterns.flatMap((pattern) => {
    const [, target = '', glob = ''] = /^([^=]+)=(.+)$/.exec(pattern) ?? [];
    if (glob === '')
      fail(
        'ERR_LIBMOE_ARGUMENT',
        `a split is given as NAME=PATTERN, for example test=data/test-*.parquet, got "${pattern}"`,
      );
    const match = globMatcher(glob);
    const matching = tables.flatMap((file) => {
      const captured = match(file.name);
      if (captured === undefined) return [];
      const filled = target.replace(/\{(config|split)\}/g, (_, key: string) => captured[key] ?? '');
      const parts = filled.split('/');
      return [
        {
          config: parts.length > 1 ? safeName(parts.slice(0, -1)) : null,
          split: safeName(parts.slice(-1)),
          file,
        },
      ];
    });
    if (matching.length === 0)
      fail(
        'ERR_LIBMOE_DATA',
        `--split ${pattern} matches no file; there are ${tables
          .slice(0, 8)
          .map(({ name }) => name)
          .join(', ')}${tables.length > 8 ? ' …' : ''}`,
      );
    return matching;
  });
  return collect(found);
}

function byCard(tables: readonly SourceFile[], card: DataCard): Assignment[] {
  const found = card.configs.flatMap(({ config, split, patterns }) => {
    const matchers = patterns.map(globMatcher);
    return tables
      .filter(({ root, name }) => root === card.root && matchers.some((match) => match(name)))
      .map((file) => ({
        config: config === 'default' ? null : safeName([config]),
        split: safeName([split]),
        file,
      }));
  });
  if (found.length === 0)
    fail('ERR_LIBMOE_DATA', `none of the files that ${card.file} names is here: choose with --split`);
  return collect(found);
}

const words: readonly (readonly [split: string, pattern: RegExp])[] = [
  ['train', /(?:^|[^a-z])(?:train|training)(?:[^a-z]|$)/],
  ['validation', /(?:^|[^a-z])(?:validation|valid|val|dev)(?:[^a-z]|$)/],
  ['test', /(?:^|[^a-z])(?:test|testing|eval|evaluation)(?:[^a-z]|$)/],
];
const splitIn = (text: string): string | undefined =>
  words.find(([, pattern]) => pattern.test(text.toLowerCase()))?.[0];

function byNames(tables: readonly SourceFile[]): Assignment[] {
  return collect(
    tables.map((file) => {
      const folders = file.name.split('/').slice(0, -1);
      const stem = basename(file.name).replace(/\.\w+(?:\.(?:gz|zst))?$/, '');
      const shard = /^(.+?)-\d{5}-of-\d{5}/.exec(stem)?.[1];
      let split =
        shard !== undefined && shard !== 'data' ? shard : shard === undefined ? splitIn(stem) : undefined;
      const rest = [...folders];
      if (split === undefined) {
        // The nearest folder that says so; what `datasets` saves has the split's own name there.
        const at = rest.findLastIndex((folder) => splitIn(folder) !== undefined);
        if (shard === 'data' && rest.length > 0) split = rest.pop();
        else if (at >= 0) split = splitIn(rest.splice(at, 1)[0]!);
      }
      const config = rest.filter((folder) => folder !== 'data');
      return {
        config: config.length === 0 ? null : safeName(config),
        split: safeName([split ?? 'train']),
        file,
      };
    }),
  );
}

/** A name that can be a file's: what a bundle calls a config or a split of that name. */
export function safeName(parts: readonly string[]): string {
  const name = parts
    .join('-')
    .replace(/[^\w.+-]/g, '_')
    .replace(/^[^\w]+/, '');
  return name === ''
    ? fail('ERR_LIBMOE_ARGUMENT', `"${parts.join('/')}" cannot name a split or a config`)
    : name;
}
