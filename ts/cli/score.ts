import { dirname, resolve } from 'node:path';
import { Command, Option } from 'commander';
import { fail } from '../native/index.ts';
import { log, printJson, table } from './output.ts';

interface Options {
  task: string;
  records: string;
  scorer: 'libmoe' | 'fixed';
  judge?: string;
  judgeModel?: string;
  judgeCache?: string;
  legacyRandomFallback?: boolean;
  submission?: string;
  json?: boolean;
}

export function scoreCommand(): Command {
  return new Command('score')
    .description('score answers that were made anywhere, by the rules of a task')
    .requiredOption('--task <task>', 'a task with written answers: its name or .yaml file')
    .requiredOption(
      '--records <file>',
      'a line per answer: {"doc": {…the columns of the data set…}, "response": "…"}',
    )
    .addOption(
      new Option(
        '--scorer <mode>',
        "LibMoE's scoring with its quirks, as published numbers have them, or with its defects fixed",
      )
        .choices(['libmoe', 'fixed'])
        .default('libmoe'),
    )
    .option(
      '--legacy-random-fallback',
      'guess as the original does where no letter can be read out of an answer (seeded); such answers count as unparsed all the same',
    )
    .option(
      '--judge <url>',
      'for tasks that take one: an OpenAI-compatible address; the key is OPENAI_API_KEY',
    )
    .option('--judge-model <name>', 'its model')
    .option('--judge-cache <folder>', 'keeps what it answered, so that no question is asked twice')
    .option('--submission <file>', "for tasks whose right answers a server keeps: writes that server's file")
    .option('--json', 'print the scores as one JSON object')
    .addHelpText(
      'after',
      '\nExample: npx libmoe score --task chartqa --records answers.jsonl --scorer fixed\nMore: docs/evaluation.md',
    )
    .action(scoreFile);
}

async function scoreFile(o: Options): Promise<void> {
  const { openAiJudge, parseRecords, scoreRecords, submissionText } = await import('../evaluation/index.ts');
  const { readText, writeFileAtomically } = await import('../storage/index.ts');
  if (o.judge !== undefined && o.judgeModel === undefined)
    fail('ERR_LIBMOE_ARGUMENT', '--judge expects --judge-model too, the name of the model to ask');
  const records = parseRecords(readText(o.records), o.records);
  const judge =
    o.judge === undefined
      ? undefined
      : openAiJudge({
          url: o.judge,
          model: o.judgeModel!,
          ...(o.judgeCache && { cache: o.judgeCache }),
        });
  const scores = await scoreRecords(o.task, records, {
    scorer: o.scorer,
    imageFolder: dirname(resolve(o.records)),
    ...(judge && { judge }),
    ...(o.legacyRandomFallback && { legacyRandomFallback: true }),
  });
  if (judge && judge.failed > 0)
    log(`the judge failed on ${judge.failed} questions, the last time with: ${judge.lastError}`);
  if (o.submission !== undefined) writeFileAtomically(o.submission, submissionText(scores.documents));
  const { task, scorer, n, unparsed, missing, numbers } = scores;
  const entries = Object.entries(numbers);
  if (o.json) {
    const finite = (x: number | undefined): number | null =>
      x !== undefined && Number.isFinite(x) ? x : null;
    printJson({
      task,
      scorer,
      n,
      unparsed,
      missing,
      metrics: Object.fromEntries(entries.map(([name, { value }]) => [name, finite(value)])),
      standard_errors: Object.fromEntries(
        entries.map(([name, { standardError }]) => [name, finite(standardError)]),
      ),
    });
    return;
  }
  const shown = (x: number | undefined): string =>
    x === undefined || !Number.isFinite(x) ? 'N/A' : String(Number(x.toPrecision(6)));
  console.log(
    table(
      ['metric', 'value', '±', 'documents'],
      entries.map(([name, { value, standardError, count }]) => [
        name,
        shown(value),
        shown(standardError),
        count,
      ]),
    ),
  );
  console.log(
    `${task}, ${scorer} scores: ${n} records, ${unparsed} unparsed${missing > 0 ? `, ${missing} without a score` : ''}`,
  );
}
