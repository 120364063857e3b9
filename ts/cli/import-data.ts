import path from 'node:path';
import { Command } from 'commander';
import { interruptible } from './interrupt.ts';
import { log, printJson, table } from './output.ts';

interface ImportFlags {
  out: string;
  id: string;
  revision?: string;
  license?: string;
  layout: string;
  replace?: boolean;
  conversations?: string;
  conversationsSplit: string;
  split: string[];
  columns?: string;
  images?: string;
  allowMissingImages?: boolean;
  json?: boolean;
}

export function importCommand(): Command {
  return new Command('import')
    .description('turn a data set as it is published into an offline bundle for evaluation tasks')
    .argument('<source...>', 'files, folders, or zip archives of them')
    .requiredOption('--id <name>', 'what tasks call the data set: organisation/name')
    .option('--out <folder>', 'bundles go to <folder>/<id>/<revision>', 'data')
    .option('--revision <name>', 'a commit or version (default: main)')
    .option('--license <name>', 'recorded in the manifest')
    .option(
      '--layout <name>',
      'how files become splits: files (tables of any kind), or the own form of easy-vqa, mme, mmlu or pope',
      'files',
    )
    .option(
      '--split <name=pattern>',
      'files of a split, or CONFIG/SPLIT=PATTERN; {config} and {split} stand for what they match; may be repeated',
      (value: string, before: string[]) => [...before, value],
      [] as string[],
    )
    .option('--columns <names>', 'names of the columns of csv files without a header, with commas')
    .option('--images <folder>', 'where images are that rows name, besides the sources')
    .option('--allow-missing-images', 'keep the names of images that are not there')
    .option('--replace', 'replace a bundle of the same id and revision')
    .option(
      '--conversations <file>',
      'write the questions as conversations for training too; images are relative to the bundle',
    )
    .option('--conversations-split <name>', 'of which split', 'train')
    .option('--json', 'print one JSON object')
    .addHelpText(
      'after',
      '\nExample: npx libmoe data import easy_vqa_data.zip --layout easy-vqa --id vzhou842/easy-VQA --license MIT --conversations data/easy-vqa-train.json\nMore: docs/data.md',
    )
    .action(async (sources: string[], o: ImportFlags) => {
      const { importBundle, openBundle, writeConversations } = await import('../data/bundles/index.ts');
      const made = await interruptible((signal) =>
        importBundle(sources, {
          id: o.id,
          out: o.out,
          layout: o.layout,
          splits: o.split,
          ...(o.revision !== undefined && { revision: o.revision }),
          ...(o.license !== undefined && { license: o.license }),
          ...(o.replace && { replace: true }),
          ...(o.columns !== undefined && { columns: o.columns.split(',') }),
          ...(o.images !== undefined && { images: path.resolve(o.images) }),
          ...(o.allowMissingImages && { missingImages: 'name' as const }),
          signal,
          onSplit: (entry) => log(`${entry.file}: ${entry.rows} rows, ${entry.media} media files`),
        }),
      );
      const { folder, manifest, unchanged } = made;
      const conversations =
        o.conversations === undefined
          ? undefined
          : {
              file: o.conversations,
              ...writeConversations(openBundle(folder), o.conversations, { split: o.conversationsSplit }),
            };
      if (o.json)
        return printJson({ folder, unchanged, ...manifest, ...(conversations && { conversations }) });
      console.log(
        table(
          ['split', 'rows', 'media'],
          manifest.splits.map((each) => [each.file.slice(0, -'.jsonl'.length), each.rows, each.media]),
        ),
      );
      console.log(`${folder}${unchanged ? ' (was there already)' : ''}`);
      if (conversations)
        console.log(
          `${conversations.file}: ${conversations.conversations} conversations, ${conversations.questions} questions; image folder: ${folder}`,
        );
    });
}
