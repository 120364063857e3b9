import { Command } from 'commander';
import { printJson } from './output.ts';

export function reportCommand(): Command {
  return new Command('report')
    .description(
      'one self-contained HTML page about one or more runs: curves, expert load, evaluation, recipe',
    )
    .argument('<runs...>', 'run folders')
    .requiredOption('--out <file>', 'the HTML file')
    .option('--compare <names>', 'the two runs to judge, such as moe,dense')
    .option('--json', 'print one JSON object')
    .action(async (runs: string[], o: { out: string; compare?: string; json?: boolean }) => {
      const { report } = await import('../report/index.ts');
      const [a, b] = o.compare?.split(',') ?? [];
      const summary = await report(runs, o.out, a && b ? { compare: [a, b] } : {});
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
