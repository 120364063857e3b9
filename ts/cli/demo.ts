import path from 'node:path';
import { Command } from 'commander';
import type { VisionDemoResult } from '../experiment/index.ts';
import { fail } from '../native/index.ts';
import { interruptible } from './interrupt.ts';
import { log, printJson, table } from './output.ts';

const millions = (n: number): string => (n / 1e6).toFixed(2);

export function demoCommand(): Command {
  return new Command('demo')
    .addHelpText(
      'after',
      '\nStopped (Ctrl-C) and called again it goes on.\n\nExample: npx libmoe demo --out runs/demo --seed 42\nMore: docs/experiments.md',
    )
    .description('train, upcycle, evaluate and report on real text, on the CPU, in a few minutes')
    .option('--out <folder>', 'where the runs and the report go (default: runs/demo, runs/demo-vision)')
    .option('--seed <n>', 'seed of model, data order and routers', '42')
    .option('--smoke', 'the same at toy size, to see whether everything works')
    .option('--vision', 'the vision-language demo')
    .option('--json', 'print one JSON object')
    .action(async (o: { out?: string; seed: string; smoke?: boolean; vision?: boolean; json?: boolean }) => {
      const seed = Number(o.seed);
      if (!Number.isInteger(seed) || seed < 0)
        fail('ERR_LIBMOE_ARGUMENT', `--seed expects a whole number, got "${o.seed}"`);
      const { runDemo, runVisionDemo } = await import('../experiment/index.ts');
      const options = {
        ...(o.out && { out: o.out }),
        seed,
        smoke: o.smoke ?? false,
        log,
        command: process.argv.slice(2),
      };
      if (o.vision) {
        const seen = await interruptible((signal) => runVisionDemo({ ...options, signal }));
        if (o.json) printJson(seen);
        else printVision(seen);
        return;
      }
      const result = await interruptible((signal) => runDemo({ ...options, signal }));
      if (o.json) {
        printJson(result);
        return;
      }
      const tasks = Object.keys(result.runs[0]?.tasks ?? {});
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

/** Accuracies beside what can be had without looking; a star where they are not clearly above it. */
function printVision({ runs, chance, report, seconds }: VisionDemoResult): void {
  const tasks = Object.keys(runs[0]?.tasks ?? {});
  const percent = (share: number | undefined): string =>
    share === undefined ? '–' : `${(100 * share).toFixed(1)} %`;
  const clearly = (run: VisionDemoResult['runs'][number], task: string): boolean =>
    run.tasks[task]! - chance[task]! > 2 * run.standardErrors[task]!;
  const doubtful = runs.some((run) => tasks.some((task) => !clearly(run, task)));
  console.log();
  console.log(
    table(
      ['run', 'parameters (M)', 'active (M)', 'seconds', ...tasks],
      [
        ...runs.map((run) => [
          run.name,
          millions(run.parameters),
          millions(run.activeParameters),
          run.seconds.toFixed(1),
          ...tasks.map((task) => percent(run.tasks[task]) + (clearly(run, task) ? '' : ' *')),
        ]),
        ['without looking', '', '', '', ...tasks.map((task) => percent(chance[task]))],
      ],
    ),
  );
  const asked = runs.flatMap(({ name, yesNo }) => (yesNo ? [{ name, ...yesNo }] : []));
  if (asked.length > 0) {
    console.log();
    console.log(
      table(
        ['yes or no', 'accuracy', 'precision', 'recall', 'F1', 'says yes'],
        asked.map((run) => [
          run.name,
          ...[run.accuracy, run.precision, run.recall, run.f1, run.yesRatio].map(percent),
        ]),
      ),
    );
  }
  console.log('\naccuracy on the drawings of an artist whom training has not seen');
  console.log('without looking: by guessing, or with the most frequent answer every time');
  if (doubtful)
    console.log('* less than two standard errors above that: nothing was learned that this shows');
  console.log(
    `report: ${path.relative('.', report)} (open it in a browser)   in all ${seconds.toFixed(0)} s`,
  );
}
