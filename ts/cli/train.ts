import path from 'node:path';
import { Command } from 'commander';
import { interruptible } from './interrupt.ts';
import { collect, whole } from './options.ts';
import { log, printJson, table } from './output.ts';

interface Options {
  set?: string[];
  out?: string;
  resume?: boolean;
  device?: string;
  steps?: string;
  smoke?: boolean;
  json?: boolean;
}

export function trainCommand(): Command {
  return new Command('train')
    .description(
      'carry out a training recipe: pretraining, or further training of a checkpoint, upcycled or not',
    )
    .addHelpText(
      'after',
      '\nExample: npx libmoe train recipes/demo/moe.yaml --set training.steps=100 --out runs/mine',
    )
    .argument('<recipe>', 'a YAML file; runs/<name>/recipe.yaml repeats a run')
    .option(
      '--set <path=value>',
      'change a key of the recipe, such as training.steps=100 (repeatable)',
      collect,
    )
    .option('--out <folder>', 'the run folder (default: runs/<name of the recipe>)')
    .option('--resume', 'go on from the newest checkpoint of the run folder')
    .option('--device <device>', 'cpu or cuda:0 (default: what the recipe says)')
    .option('--steps <n>', 'same as --set training.steps=N')
    .option('--smoke', "lay the recipe's `smoke` block over it: the same run at toy size")
    .option('--json', 'print one JSON object')
    .addHelpText(
      'after',
      '\nCtrl-C writes a checkpoint and exits with 130; --resume goes on. Everything is in the run folder: metrics.jsonl,\nTensorBoard events, checkpoints/, eval/. "libmoe report <run folder> --out report.html" draws it.',
    )
    .action(async (recipe: string, o: Options) => {
      const { loadRecipe, merged, parseOverrides, runRecipe } = await import('../experiment/index.ts');
      let changes = parseOverrides(o.set ?? []);
      if (o.device) changes = merged(changes, { device: o.device });
      if (o.steps) changes = merged(changes, { training: { steps: whole('--steps', o.steps) } });
      if (o.smoke) changes = merged(loadRecipe(recipe).smoke ?? {}, changes);
      const result = await interruptible((signal) =>
        runRecipe(recipe, {
          ...(o.out && { out: o.out }),
          resume: o.resume ?? false,
          changes,
          signal,
          log,
          command: process.argv.slice(2),
        }),
      );
      const { evaluation, ...rest } = result;
      if (o.json) {
        printJson({ ...rest, evaluation: evaluation?.results });
        return;
      }
      const { printTable } = await import('../evaluation/index.ts');
      if (!result.training.completed)
        console.log(`stopped at step ${result.training.step}; "libmoe train ${recipe} --resume" goes on`);
      const rows: [string, string | number][] = [
        ['steps', result.training.step],
        ['tokens', result.training.tokens],
        ['last loss', result.last?.loss.toFixed(5) ?? '–'],
        ['seconds', result.seconds.toFixed(1)],
        ['checkpoint', result.checkpoint ?? '–'],
      ];
      console.log(table(['run', result.name], rows));
      if (evaluation) console.log(`\n${printTable(evaluation)}`);
      console.log(`\n${path.relative('.', result.out) || '.'}: metrics.jsonl, checkpoints/, eval/`);
    });
}
