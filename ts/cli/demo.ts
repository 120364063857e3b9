import path from 'node:path';
import { Command } from 'commander';
import { fail } from '../native/index.ts';
import { interruptible } from './interrupt.ts';
import { log, printJson, table } from './output.ts';

export function demoCommand(): Command {
  return new Command('demo')
    .addHelpText(
      'after',
      '\nStopped (Ctrl-C) and called again it goes on.\n\nExample: npx libmoe demo --out runs/demo --seed 42\nMore: docs/experiments.md',
    )
    .description('train, upcycle, evaluate and report on real text, on the CPU, in a few minutes')
    .option('--out <folder>', 'where the runs and the report go', 'runs/demo')
    .option('--seed <n>', 'seed of model, data order and routers', '42')
    .option('--smoke', 'the same at toy size, to see whether everything works')
    .option('--vision', 'the vision-language demo')
    .option('--json', 'print one JSON object')
    .action(async (o: { out: string; seed: string; smoke?: boolean; vision?: boolean; json?: boolean }) => {
      if (o.vision)
        fail(
          'ERR_LIBMOE_UNSUPPORTED',
          'the vision-language demo comes with a later version; "libmoe demo" trains a language model',
        );
      const seed = Number(o.seed);
      if (!Number.isInteger(seed) || seed < 0)
        fail('ERR_LIBMOE_ARGUMENT', `--seed expects a whole number, got "${o.seed}"`);
      const { runDemo } = await import('../experiment/index.ts');
      const result = await interruptible((signal) =>
        runDemo({
          out: o.out,
          seed,
          smoke: o.smoke ?? false,
          signal,
          log,
          command: process.argv.slice(2),
        }),
      );
      if (o.json) {
        printJson(result);
        return;
      }
      const tasks = Object.keys(result.runs[0]?.tasks ?? {});
      const millions = (n: number) => (n / 1e6).toFixed(2);
      console.log();
      console.log(
        table(
          [
            'run',
            'parameters (M)',
            'active (M)',
            'tokens',
            'TFLOP',
            'seconds',
            ...tasks.map((task) => (task === 'word-order' ? 'word order (acc)' : `${task} (bits/byte)`)),
          ],
          result.runs.map((r) => [
            r.name,
            millions(r.parameters),
            millions(r.activeParameters),
            r.tokens,
            (r.flops / 1e12).toFixed(2),
            r.seconds.toFixed(1),
            ...tasks.map((task) => (r.tasks[task] ?? Number.NaN).toFixed(4)),
          ]),
        ),
      );
      console.log(`\n${result.verdicts.join('\n')}`);
      console.log(
        `\nreport: ${path.relative('.', result.report)} (open it in a browser)   in all ${result.seconds.toFixed(0)} s`,
      );
    });
}
