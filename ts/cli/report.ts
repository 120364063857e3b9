import { Command } from 'commander';
import { fail } from '../native/index.ts';
import { printJson } from './output.ts';

function twoNames(text: string): [string, string] {
  const [a, b, ...more] = text.split(',').map((name) => name.trim());
  if (!a || !b || more.length > 0)
    return fail('ERR_LIBMOE_ARGUMENT', `--compare expects two names such as moe,dense, got "${text}"`);
  return [a, b];
}

export function reportCommand(): Command {
  return new Command('report')
    .description(
      'one self-contained HTML page about one or more runs: curves, expert load, evaluation, recipe',
    )
    .argument('<runs...>', 'run folders')
    .requiredOption('--out <file>', 'the HTML file')
    .option('--compare <names>', 'the two runs to judge, such as moe,dense')
    .option('--json', 'print one JSON object')
    .addHelpText(
      'after',
      '\nExample: npx libmoe report runs/demo/moe runs/demo/dense-continued --out report.html\nMore: docs/report.md',
    )
    .action(async (runs: string[], o: { out: string; compare?: string; json?: boolean }) => {
      const { report } = await import('../report/index.ts');
      const summary = await report(
        runs,
        o.out,
        o.compare === undefined ? {} : { compare: twoNames(o.compare) },
      );
      if (o.json) printJson(summary);
      else
        console.log(
          [
            ...summary.verdicts,
            ...summary.notes.map((note) => `note: ${note}`),
            `written: ${summary.file}`,
          ].join('\n'),
        );
    });
}
