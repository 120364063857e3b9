import { Command, Option } from 'commander';
import { fail } from '../native/index.ts';
import { interruptible } from './interrupt.ts';
import { deviceOption, number, takeDevice, whole } from './options.ts';
import { log, printJson } from './output.ts';

interface Options {
  device: string;
  model?: string;
  tasks: string;
  tokenizer?: string;
  data?: string;
  limit?: string;
  batchSize: string;
  out?: string;
  scorer: 'libmoe' | 'fixed';
  json?: boolean;
}

export function evalCommand(): Command {
  return new Command('eval')
    .description('zero-shot evaluation of a checkpoint')
    .option('--model <checkpoint>', 'a checkpoint folder, a run folder, or a llama2c .bin')
    .requiredOption(
      '--tasks <list>',
      'task names or .yaml files, separated by commas; "list" prints the names',
    )
    .option('--tokenizer <file>', 'when the checkpoint has none of its own')
    .option('--data <folder>', 'where relative data files of the tasks are')
    .option('--limit <n>', 'documents per task, or a share between 0 and 1')
    .option('--batch-size <n>', 'tokens per forward pass, or auto; scores do not depend on it', 'auto')
    .option('--out <folder>', 'results.json, samples and a journal; the same command continues a killed run')
    .addOption(
      new Option(
        '--scorer <mode>',
        "LibMoE's scoring with its quirks, as published numbers have them, or with its defects fixed",
      )
        .choices(['libmoe', 'fixed'])
        .default('libmoe'),
    )
    .option(...deviceOption)
    .option('--json', 'print the results as one JSON object')
    .addHelpText(
      'after',
      '\nExamples: npx libmoe eval --tasks list\n          npx libmoe eval --model runs/demo/moe --tasks piqa,blimp --data my-data --limit 200 --out eval/moe\nNothing is downloaded: a task says which data file it misses. More: docs/evaluation.md',
    )
    .action(async (o: Options) => {
      const { evaluate, languageAdapter, printTable, taskNames } = await import('../evaluation/index.ts');
      if (o.tasks === 'list') {
        if (o.json) printJson({ tasks: taskNames() });
        else console.log(taskNames().join('\n'));
        return;
      }
      if (!o.model) fail('ERR_LIBMOE_ARGUMENT', 'eval expects --model <checkpoint>');
      const tokenBudget = o.batchSize === 'auto' ? undefined : whole('--batch-size', o.batchSize);
      const limit = o.limit === undefined ? undefined : number('--limit', o.limit);
      const { resolveCheckpoint } = await import('../experiment/index.ts');
      const { loadModel } = await import('../models/language/index.ts');
      const { loadTokenizer } = await import('../data/index.ts');
      const checkpoint = resolveCheckpoint(o.model);
      const tokenizer = loadTokenizer(o.tokenizer ?? checkpoint);
      await takeDevice(o.device);
      const model = await loadModel(checkpoint);
      model.eval();
      const results = await interruptible(async (signal) => {
        const steps = evaluate(
          languageAdapter(model, {
            tokenizer,
            name: o.model!,
            ...(tokenBudget && { tokenBudget }),
          }),
          {
            tasks: o.tasks.split(','),
            scorer: o.scorer,
            signal,
            ...(o.out && { out: o.out }),
            ...(o.data && { dataFolder: o.data }),
            ...(limit !== undefined && { limit }),
          },
        );
        const started = performance.now();
        let shown = started;
        for (;;) {
          const step = await steps.next();
          if (step.done) return step.value;
          const now = performance.now();
          const { stage, done, total } = step.value;
          if (stage === 'score' && done > 0 && now - shown > 2000) {
            shown = now;
            log(
              `${done}/${total} requests, ${(((now - started) / done / 1000) * (total - done)).toFixed(0)} s left`,
            );
          }
        }
      }).finally(() => model.dispose());
      if (o.json) printJson(results);
      else console.log(printTable(results));
    });
}
