import { rmSync } from 'node:fs';
import path from 'node:path';
import { Command } from 'commander';
import type { ImportedBundle, ImportOptions } from '../data/bundles/index.ts';
import { interruptible } from './interrupt.ts';
import { log, printJson, table } from './output.ts';

interface ImportFlags {
  out: string;
  revision?: string;
  license?: string;
  layout: string;
  split: string[];
  columns?: string;
  images?: string;
  base64Images?: string;
  allowMissingImages?: boolean;
  replace?: boolean;
  json?: boolean;
}

const several = (value: string, before: string[]): string[] => [...before, value];

/** What `import` and `download` share. */
function withImportOptions(command: Command): Command {
  return command
    .option('--out <folder>', 'bundles go to <folder>/<id>/<revision>', 'data')
    .option('--revision <name>', 'a commit or version (default: main)')
    .option('--license <name>', "recorded in the manifest (default: what the data set's card says)")
    .option(
      '--layout <name>',
      'how files become splits: files (tables of any kind), or the own form of easy-vqa, gqa, mme, mmlu or pope',
      'files',
    )
    .option(
      '--split <name=pattern>',
      'files of a split, or CONFIG/SPLIT=PATTERN; {config} and {split} in both stand for what they match; may be repeated',
      several,
      [] as string[],
    )
    .option('--columns <names>', 'names of the columns of csv files without a header, with commas between')
    .option('--images <folder>', 'where images are that rows name, besides the sources')
    .option('--base64-images <columns>', 'columns that hold images as base64 text, with commas between')
    .option('--allow-missing-images', 'keep the names of images that are not there')
    .option('--replace', 'replace a bundle of the same id and revision')
    .option('--json', 'print one JSON object');
}

function importOptions(id: string, o: ImportFlags): ImportOptions {
  return {
    id,
    out: o.out,
    layout: o.layout,
    splits: o.split,
    ...(o.revision !== undefined && { revision: o.revision }),
    ...(o.license !== undefined && { license: o.license }),
    ...(o.replace && { replace: true }),
    ...(o.columns !== undefined && { columns: o.columns.split(',') }),
    ...(o.images !== undefined && { images: path.resolve(o.images) }),
    ...(o.base64Images !== undefined && { base64Images: o.base64Images.split(',') }),
    ...(o.allowMissingImages && { missingImages: 'name' as const }),
    onSplit: (entry) => log(`${entry.file}: ${entry.rows} rows, ${entry.media} media files`),
  };
}

function finish({ folder, manifest, unchanged }: ImportedBundle, o: ImportFlags): void {
  if (o.json) {
    printJson({ folder, unchanged, ...manifest });
    return;
  }
  console.log(
    table(
      ['split', 'rows', 'media'],
      manifest.splits.map((each) => [each.file.slice(0, -'.jsonl'.length), each.rows, each.media]),
    ),
  );
  console.log(`${folder}${unchanged ? ' (was there already)' : ''}`);
}

export function importCommand(): Command {
  const command = new Command('import')
    .description('turn a data set as it is published into an offline bundle for evaluation tasks')
    .argument('<source...>', 'files, folders, or zip archives of them')
    .requiredOption('--id <name>', 'what tasks call the data set: organisation/name')
    .addHelpText(
      'after',
      "\nExamples: npx libmoe data import easy_vqa_data.zip --layout easy-vqa --id vzhou842/easy-VQA\n          npx libmoe data import BLiMP.zip --id nyu-mll/blimp --split '{config}/train=data/{config}.jsonl'\nMore: docs/data.md",
    );
  return withImportOptions(command).action(async (sources: string[], o: ImportFlags & { id: string }) => {
    const { importBundle } = await import('../data/bundles/index.ts');
    const made = await interruptible((signal) =>
      importBundle(sources, { ...importOptions(o.id, o), signal }),
    );
    finish(made, o);
  });
}

export function downloadCommand(): Command {
  const command = new Command('download')
    .description('fetch a data set from the Hugging Face hub and import it; goes on where it was stopped')
    .argument('<id>', 'organisation/name')
    .option('--include <pattern>', 'only files whose names match; may be repeated', several, [] as string[])
    .option('--keep', 'keep the files of the hub after the import, in <out>/.hub')
    .addHelpText(
      'after',
      '\nExample: npx libmoe data download lmms-lab/ChartQA\nHF_ENDPOINT names another hub, HF_TOKEN is for data sets that ask for consent. More: docs/data.md',
    );
  return withImportOptions(command).action(
    async (id: string, o: ImportFlags & { include: string[]; keep?: boolean }) => {
      const { downloadDataset, importBundle } = await import('../data/bundles/index.ts');
      const { HF_ENDPOINT, HF_TOKEN } = process.env;
      const hub = path.resolve(o.out, '.hub');
      const made = await interruptible(async (signal) => {
        const { folder, commit } = await downloadDataset(id, {
          to: hub,
          include: o.include,
          signal,
          ...(o.revision !== undefined && { revision: o.revision }),
          ...(HF_ENDPOINT && { hubUrl: HF_ENDPOINT.replace(/\/+$/, '') }),
          ...(HF_TOKEN && { accessToken: HF_TOKEN }),
          onFile: ({ path: file, bytes, had }) =>
            log(
              `${file}: ${bytes} bytes${had === 0 ? '' : had === bytes ? ', was here' : `, ${had} were here`}`,
            ),
        });
        // A revision of the hub may have slashes (refs/convert/parquet).
        const revision = o.revision?.replaceAll('/', '-');
        const bundle = await importBundle([folder], {
          ...importOptions(id, { ...o, ...(revision !== undefined && { revision }) }),
          commit,
          signal,
        });
        if (!o.keep) rmSync(folder, { recursive: true, force: true });
        return bundle;
      });
      finish(made, o);
    },
  );
}
