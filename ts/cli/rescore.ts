import { Command, Option } from 'commander';
import { interruptible } from './interrupt.ts';
import { checkJudge, type JudgeChoice, judgeOptions, openJudge, reportJudge } from './judge.ts';
import { log, logWarnings, printJson } from './output.ts';

interface Options extends JudgeChoice {
  scorer?: 'libmoe' | 'fixed';
  recorded?: boolean;
  legacyRandomFallback?: boolean;
  out?: string;
  json?: boolean;
}

export function rescoreCommand(): Command {
  return new Command('rescore')
    .description('score a finished evaluation again from the answers it kept, without the model')
    .argument('<folder>', 'what eval --out wrote')
    .addOption(new Option('--scorer <mode>', 'default: as before').choices(['libmoe', 'fixed']))
    .option('--recorded', 'tasks as the run had them, in place of as they are defined now')
    .option('--legacy-random-fallback', 'guess where no letter can be read, as eval does; default: as before')
    .option('--no-legacy-random-fallback', 'count such answers as wrong')
    .option(...judgeOptions[0]!)
    .option(...judgeOptions[1]!)
    .option('--out <folder>', 'where the new results go (default: in place of the old ones)')
    .option('--json', 'print the results as one JSON object')
    .addHelpText(
      'after',
      "\nTasks count as they are defined now, so a mended scorer or another report takes effect; a task that is not known any more, as it was recorded. A judge's scores stay as they are\nunless one is given: what it answered before is taken from the folder, the rest is asked.\nExample: npx libmoe rescore eval/moe --scorer fixed --out eval/moe-fixed\nMore: docs/evaluation.md",
    )
    .action(async (folder: string, o: Options) => {
      checkJudge(o);
      const { printTable, rescore } = await import('../evaluation/index.ts');
      const results = await interruptible(async (signal) => {
        const judge = await openJudge(o, folder, signal);
        const made = await rescore(folder, {
          signal,
          ...judge,
          ...(o.recorded && { recorded: true }),
          ...(o.scorer && { scorer: o.scorer }),
          ...(o.legacyRandomFallback !== undefined && { legacyRandomFallback: o.legacyRandomFallback }),
          ...(o.out && { out: o.out }),
        });
        reportJudge(judge.judge);
        return made;
      });
      for (const [task, keys] of Object.entries(results.libmoe.redefined ?? {}))
        log(
          `${task} is defined otherwise now than in the run: ${keys.join(', ')} (--recorded: as in the run)`,
        );
      logWarnings(results.libmoe.warnings);
      if (o.json) printJson(results);
      else console.log(printTable(results));
    });
}
