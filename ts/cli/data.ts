import { statSync } from 'node:fs';
import path from 'node:path';
import { Command } from 'commander';
import { fail } from '../native/index.ts';
import { conversationsCommand } from './bundle-conversations.ts';
import { downloadCommand, importCommand } from './import-data.ts';
import { interruptible } from './interrupt.ts';
import { log, printJson, table } from './output.ts';
import { isBundle, showBundle, verifyCommand } from './show-bundle.ts';
import { type ShowOptions, showConversations } from './show-conversations.ts';

export function dataCommand(): Command {
  const prepare = new Command('prepare')
    .description(
      "tokenise a recipe's training data into shards, training its tokenizer first where it says so",
    )
    .argument('<recipe>', 'a YAML file')
    .option('--out <folder>', 'the run folder (default: runs/<name of the recipe>)')
    .option('--json', 'print one JSON object')
    .addHelpText(
      'after',
      '\nExample: npx libmoe data prepare recipes/demo/moe.yaml\nThe shards are used again by "libmoe train" of the same recipe. More: docs/data.md',
    )
    .action(async (recipe: string, o: { out?: string; json?: boolean }) => {
      const { openRecipe, prepareData } = await import('../experiment/index.ts');
      const { standingRun } = await import('../experiment/standing.ts');
      const loaded = await openRecipe(recipe);
      if (loaded.kind !== 'language')
        fail(
          'ERR_LIBMOE_RECIPE',
          `${recipe}: "data prepare" is for texts; the conversations and images of a ${loaded.kind} recipe are read as training goes on`,
        );
      const out = path.resolve(o.out ?? path.join('runs', loaded.name));
      const checkpoint = standingRun(out, loaded, true)?.checkpoint?.path;
      const { tokenizer, tokenizerFolder, dataset } = await interruptible((signal) =>
        prepareData(loaded, out, { log, signal, checkpoint }),
      );
      const result = {
        tokenizer: tokenizerFolder,
        vocabularySize: tokenizer.vocabularySize,
        documents: dataset.manifest.documents,
        tokens: dataset.manifest.tokens,
      };
      dataset.close();
      if (o.json) printJson(result);
      else console.log(table(['', ''], Object.entries(result)));
    });
  const show = new Command('show')
    .description('what a bundle, a folder of token shards or a file of conversations holds')
    .argument(
      '<path>',
      'a bundle of "data import", a folder that "data prepare" or a training wrote, or conversations in LLaVA\'s format (.json, .jsonl)',
    )
    .option(
      '--tokenizer <folder>',
      'conversations: show a record as the model sees it, in the ids of this tokenizer',
    )
    .option(
      '--template <name>',
      'phi35, phi3, chatml, vicuna, llama-2, mistral or plain; default: the chat template beside the tokenizer',
    )
    .option('--record <n>', 'which row of a bundle or usable record, from 1 (default: 1)')
    .option('--split <name>', 'bundle: of which split the row is')
    .option('--config <name>', 'bundle: of which config')
    .option('--context <n>', 'most tokens of a record, images included', '2048')
    .option('--tokens-per-image <n>', 'rows that an image takes', '256')
    .option('--compat <how>', "fixed, or libmoe for the original's reading and label masking", 'fixed')
    .option('--cache <folder>', 'where the index of the file is kept (default: beside it)')
    .option('--json', 'print one JSON object')
    .addHelpText(
      'after',
      '\nExamples: npx libmoe data show runs/cache/0123456789abcdef\n          npx libmoe data show llava.json --tokenizer phi-3.5 --template phi35 --record 17\nMore: docs/data.md',
    )
    .action(async (place: string, o: ShowOptions & { split?: string; config?: string }) => {
      if (statSync(place, { throwIfNoEntry: false })?.isFile()) return showConversations(place, o);
      if (await isBundle(place)) return showBundle(place, o);
      const folder = place;
      const { openShards } = await import('../data/index.ts');
      const dataset = openShards(folder);
      const { manifest } = dataset;
      dataset.close();
      if (o.json) printJson(manifest);
      else
        console.log(
          table(
            ['', ''],
            [
              ['documents', manifest.documents],
              ['tokens', manifest.tokens],
              ['shards', manifest.shards.length],
              ['tokenizer', manifest.tokenizer.name],
            ],
          ),
        );
    });
  return new Command('data')
    .description('tokenise, import, download and inspect data sets')
    .addCommand(prepare)
    .addCommand(importCommand())
    .addCommand(downloadCommand())
    .addCommand(conversationsCommand())
    .addCommand(show)
    .addCommand(verifyCommand());
}
