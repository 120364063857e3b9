import path from 'node:path';
import { Command } from 'commander';
import { fail } from '../native/index.ts';
import { interruptible } from './interrupt.ts';
import { collect } from './options.ts';
import { log, printJson, table } from './output.ts';

interface Options {
  set?: string[];
  out?: string;
  only?: string;
  part?: string;
  smoke?: boolean;
  dryRun?: boolean;
  json?: boolean;
}

function partOf(text: string): [number, number] {
  const [, number, parts] = /^(\d+)\/(\d+)$/.exec(text) ?? [];
  if (number === undefined || Number(number) < 1 || Number(number) > Number(parts))
    fail('ERR_LIBMOE_ARGUMENT', `--part expects such as 1/2, the first of two parts, got "${text}"`);
  return [Number(number), Number(parts)];
}

const help = `
Every combination of the axes is an ordinary run in <out>/<variant>/<seed>. Runs that are finished with the same recipe are
not done again; the same command continues after Ctrl-C (exit code 130) and tries failed runs once more (exit code 1).
Results: <out>/results.md (printed), results.json, results.svg. What a sweep file says: docs/experiments.md.`;

export function sweepCommand(): Command {
  return new Command('sweep')
    .description('train a recipe in many variants and seeds, and compare them: intervals and paired tests')
    .addHelpText(
      'after',
      '\nExample: npx libmoe sweep recipes/sweeps/stories260k-routers.yaml --only smoe,xmoe',
    )
    .argument('<sweep>', 'a YAML file, such as one of recipes/sweeps')
    .option(
      '--set <path=value>',
      'change a key of the base recipe, such as training.steps=100 (repeatable)',
      collect,
    )
    .option('--out <folder>', "the sweep's folder (default: runs/<name of the sweep>)")
    .option('--only <variants>', 'only runs of these variants, such as smoe,xmoe')
    .option('--part <i/n>', 'only each n-th run from the i-th on, for several processes at once')
    .option('--smoke', "lay the base recipe's `smoke` block over it: the same sweep at toy size")
    .option('--dry-run', 'list the runs and what is done of them')
    .option('--json', 'print one JSON object')
    .addHelpText('after', help)
    .action(async (file: string, o: Options) => {
      const { parseOverrides, plannedRuns, runSweep } = await import('../experiment/index.ts');
      const options = {
        changes: parseOverrides(o.set ?? []),
        smoke: o.smoke ?? false,
        ...(o.out && { out: o.out }),
        ...(o.only && { only: o.only.split(',').map((name) => name.trim()) }),
        ...(o.part && { part: partOf(o.part) }),
      };
      if (o.dryRun) {
        const runs = await plannedRuns(file, options);
        if (o.json) printJson({ runs });
        else
          console.log(
            table(
              ['variant', 'seed', 'status', 'folder'],
              runs.map(({ variant, seed, status, folder }) => [
                variant,
                seed,
                status,
                path.relative('.', folder),
              ]),
            ),
          );
        return;
      }
      const {
        out,
        results,
        table: markdown,
        stopped,
      } = await interruptible((signal) =>
        runSweep(file, { ...options, signal, log, command: process.argv.slice(2) }),
      );
      const failed = results.runs.filter(({ status }) => status === 'failed').length;
      if (o.json) printJson({ out, stopped, ...results });
      else {
        console.log(`${markdown}\n${path.relative('.', out) || '.'}: results.md, results.json, results.svg`);
        if (stopped) console.log('stopped; the same command continues');
      }
      if (failed > 0 && !stopped) {
        log(`${failed} of ${results.runs.length} runs failed; the same command tries them again`);
        process.exitCode = 1;
      }
    });
}
