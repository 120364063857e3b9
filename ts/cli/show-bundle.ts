import { existsSync } from 'node:fs';
import path from 'node:path';
import { Command } from 'commander';
import { fail } from '../native/index.ts';
import { interruptible } from './interrupt.ts';
import { log, printJson, table } from './output.ts';

/** Whether a folder is a bundle: both kinds of folders that `data show` knows have a manifest.json. */
export async function isBundle(folder: string): Promise<boolean> {
  const { bundleManifestFile } = await import('../data/bundles/index.ts');
  const { readJson, isJsonObject } = await import('../storage/json.ts');
  const file = path.join(folder, bundleManifestFile);
  if (!existsSync(file)) return false;
  const content = readJson(file);
  return isJsonObject(content) && content.format === 'libmoe-bundle';
}

/** What a bundle holds, and one of its rows. */
export async function showBundle(
  folder: string,
  o: { record?: string; split?: string; config?: string; json?: boolean },
): Promise<void> {
  const { openBundle } = await import('../data/bundles/index.ts');
  const bundle = openBundle(folder);
  const { manifest } = bundle;
  const named = manifest.splits.filter(
    ({ config, split }) => (o.split ?? split) === split && (o.config ?? config) === config,
  );
  const chosen =
    named[0] ??
    fail(
      'ERR_LIBMOE_ARGUMENT',
      `${folder} has no such split; it has ${splitNames(manifest.splits).join(', ')}`,
    );
  const record = Number(o.record ?? '1');
  if (!Number.isInteger(record) || record < 1 || record > chosen.rows)
    fail('ERR_LIBMOE_ARGUMENT', `--record must lie in 1…${chosen.rows}, got ${o.record}`);
  const row = bundle.rows(chosen.split, chosen.config).at(record - 1);
  if (o.json)
    return printJson({
      folder,
      ...manifest,
      record: { split: chosen.split, config: chosen.config, number: record, row },
    });
  console.log(`${manifest.id} at ${manifest.revision}, licence: ${manifest.license ?? 'not recorded'}`);
  console.log(
    `made from ${manifest.sources.length} files; ${manifest.media.count} media files, ${manifest.media.bytes} bytes\n`,
  );
  console.log(
    table(
      ['split', 'rows', 'media'],
      manifest.splits.map((each, i) => [splitNames(manifest.splits)[i]!, each.rows, each.media]),
    ),
  );
  console.log(`\n${table(['column', 'type'], Object.entries(manifest.columns))}`);
  console.log(`\n${chosen.file}, row ${record}:\n${JSON.stringify(row, null, 2)}`);
}

const splitNames = (splits: readonly { file: string }[]): string[] =>
  splits.map(({ file }) => file.slice(0, -'.jsonl'.length));

export function verifyCommand(): Command {
  return new Command('verify')
    .description('read a whole bundle and compare every file with its hash')
    .argument('<bundle>', 'a folder that "data import" made')
    .option('--json', 'print one JSON object')
    .addHelpText('after', '\nExample: npx libmoe data verify data/lmms-lab/POPE/main')
    .action(async (folder: string, o: { json?: boolean }) => {
      const { verifyBundle } = await import('../data/bundles/index.ts');
      const { manifest, files, bytes, unknown } = await interruptible((signal) =>
        verifyBundle(folder, { signal }),
      );
      if (o.json)
        return printJson({ folder, id: manifest.id, revision: manifest.revision, files, bytes, unknown });
      console.log(`${folder} is whole: ${files} files, ${bytes} bytes`);
      for (const name of unknown) log(`${name} is shown by no row`);
    });
}
