import { Command } from 'commander';
import { fail } from '../native/index.ts';
import { printJson } from './output.ts';

interface ConversationFlags {
  split: string;
  config?: string;
  where: string[];
  turns?: string;
  captions?: boolean;
  question: string;
  answer: string;
  image: string;
  json?: boolean;
}

export function conversationsCommand(): Command {
  return new Command('conversations')
    .description("write the questions of a bundle as conversations for training, in LLaVA's format")
    .argument('<bundle>', 'a folder that "data import" made; image names are relative to it')
    .argument('<file>', 'the .json file to write')
    .option('--split <name>', 'of which split', 'train')
    .option('--config <name>', 'of which config, where there are several')
    .option(
      '--where <column=values>',
      'only rows whose column has one of the values, with commas between; may be repeated',
      (value: string, before: string[]) => [...before, value],
      [] as string[],
    )
    .option('--turns <n>', 'most questions of one conversation (default: all about an image)')
    .option('--captions', 'one caption per image instead: its distinct answers, sorted')
    .option('--question <column>', 'column of the questions', 'question')
    .option('--answer <column>', 'column of the answers', 'answer')
    .option('--image <column>', 'column of the images', 'image')
    .option('--json', 'print one JSON object')
    .addHelpText(
      'after',
      '\nExample: npx libmoe data conversations data/vzhou842/easy-VQA/main easy-vqa.json --turns 1 --where kind=shape,colour\nMore: docs/data.md',
    )
    .action(async (folder: string, file: string, o: ConversationFlags) => {
      const { openBundle, writeConversations } = await import('../data/bundles/index.ts');
      const where = Object.fromEntries(
        o.where.map((each) => {
          const [, column = '', values = ''] = /^([^=]+)=(.*)$/.exec(each) ?? [];
          if (column === '') fail('ERR_LIBMOE_ARGUMENT', `--where takes COLUMN=VALUE,VALUE, got "${each}"`);
          return [column, values.split(',')];
        }),
      );
      const { config, turns, captions } = o;
      const { split, question, answer, image } = o;
      const written = writeConversations(openBundle(folder), file, {
        ...{ split, question, answer, image, where },
        ...(config !== undefined && { config }),
        ...(turns !== undefined && { turns: Number(turns) }),
        ...(captions && { captions }),
      });
      if (o.json) return printJson({ file, imageFolder: folder, ...written });
      console.log(
        `${file}: ${written.conversations} conversations from ${written.questions} questions; image folder: ${folder}`,
      );
    });
}
