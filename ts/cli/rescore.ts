import { Command, Option } from 'commander';
import { printJson } from './output.ts';

export function rescoreCommand(): Command {
  return new Command('rescore')
    .description('score a finished evaluation again from the answers it kept, without the model')
    .argument('<folder>', 'what eval --out wrote')
    .addOption(new Option('--scorer <mode>', 'default: as before').choices(['libmoe', 'fixed']))
    .option('--out <folder>', 'where the new results go (default: in place of the old ones)')
    .option('--json', 'print the results as one JSON object')
    .addHelpText(
      'after',
      '\nTasks count as they are defined now, so a mended scorer or another report takes effect; a task that is not known any more, as it was recorded.\nExample: npx libmoe rescore eval/moe --scorer fixed --out eval/moe-fixed\nMore: docs/evaluation.md',
    )
    .action(async (folder: string, o: { scorer?: 'libmoe' | 'fixed'; out?: string; json?: boolean }) => {
      const { printTable, rescore } = await import('../evaluation/index.ts');
      const results = await rescore(folder, {
        ...(o.scorer && { scorer: o.scorer }),
        ...(o.out && { out: o.out }),
      });
      if (o.json) printJson(results);
      else console.log(printTable(results));
    });
}
