import path from 'node:path';
import { Command } from 'commander';
import { launchEnvironment } from '../distributed/index.ts';
import { fail } from '../native/index.ts';
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

const help = `
Ctrl-C writes a checkpoint and exits with 130; --resume goes on. Everything is in the run folder: metrics.jsonl,
TensorBoard events, checkpoints/, eval/. "libmoe report <run folder> --out report.html" draws it.

The main keys of a recipe (all of them: docs/experiments.md; examples: recipes/demo/):
  name, seed, precision (f32, bf16)
  imports              files with routers of your own (docs/write-a-router.md)
  tokenizer            a tokenizer.json, or { train: { vocabularySize } }
  data.train           { files, column } or { dataset: sotu, split: train }
  data.heldOut         texts to evaluate on, by name
  data.sequenceLength, data.batchSequences, data.order (windows, documents, none, libmoe)
  model                dModel, layers, heads, feedForward, moe: { experts, topK, router, expert } (docs/models.md)
  start                instead of model: { checkpoint, upcycle: { experts, topK, router } } (docs/upcycling.md)
  training             steps, microBatches, optimizer, schedule, clipNorm, checkpointEvery, evaluateEvery, evaluateAt (docs/training.md)
  strategy.data        ranks that train together, started by "libmoe launch --nproc N -- train …" (docs/training.md)
  evaluation           tasks, limit, scorer; during, best, earlyStopping, finalWeights (docs/experiments.md)
  logging.routing      { every, tokens }: what the routers do, token by token (docs/routing-records.md)

"kind: vision-language" trains a model that sees images on conversations (docs/vision-language.md, recipes/vision-language/).
"kind: pipeline" names recipes that are carried out one after the other, each from the checkpoint of the one before it;
--set then begins with the name of a stage, and --resume goes on with the stage that was running.`;

/** The command that goes on with a stopped run: the one that was typed, and where it ran if that cannot be guessed from it. */
function resumption(o: Options, { name, out }: { name: string; out: string }): string {
  const typed = process.argv.slice(2);
  if (!o.resume) typed.push('--resume');
  if (!o.out && out !== path.resolve('runs', name)) typed.push('--out', path.relative('.', out));
  const quoted = typed.map((word) =>
    /^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`,
  );
  const { worldSize } = launchEnvironment();
  const launched = worldSize > 1 ? ['launch', '--nproc', String(worldSize), '--'] : [];
  return ['libmoe', ...launched, ...quoted].join(' ');
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
    .addHelpText('after', help)
    .action(async (recipe: string, o: Options) => {
      const { isPipeline, merged, openRecipe, parseOverrides, runRecipe } = await import(
        '../experiment/index.ts'
      );
      if (isPipeline(recipe)) return pipeline(recipe, o);
      let changes = parseOverrides(o.set ?? []);
      if (o.device) changes = merged(changes, { device: o.device });
      if (o.steps) changes = merged(changes, { training: { steps: whole('--steps', o.steps) } });
      if (o.smoke) changes = merged((await openRecipe(recipe)).smoke ?? {}, changes);
      const result = await interruptible((signal) =>
        runRecipe(recipe, changes, {
          ...(o.out && { out: o.out }),
          resume: o.resume ?? false,
          signal,
          log,
          command: process.argv.slice(2),
        }),
      );
      if (launchEnvironment().rank > 0) return; // rank 0 says it
      const { evaluation, ...rest } = result;
      if (o.json) {
        printJson({ ...rest, evaluation: evaluation?.results });
        return;
      }
      const { printTable } = await import('../evaluation/index.ts');
      if (!result.training.completed)
        console.log(`stopped at step ${result.training.step}; go on with: ${resumption(o, result)}`);
      const { best } = result;
      const { endedEarly } = result.training;
      const rows: [string, string | number][] = [
        ['steps', result.training.step],
        ...(endedEarly === undefined ? [] : ([['ended early', endedEarly]] as [string, string][])),
        ...(best === undefined
          ? []
          : ([['best', `${best.metric} ${best.value.toFixed(4)} at step ${best.step}`]] as [
              string,
              string,
            ][])),
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

/** Carries out the stages of a pipeline. */
async function pipeline(file: string, o: Options): Promise<void> {
  if (o.steps !== undefined || o.device !== undefined)
    fail(
      'ERR_LIBMOE_ARGUMENT',
      `${file} is a pipeline of several recipes: say it of a stage, such as --set STAGE.training.steps=100 or --set STAGE.device=cuda:0`,
    );
  const { parseOverrides, runPipeline } = await import('../experiment/index.ts');
  const changes = parseOverrides(o.set ?? []);
  const result = await interruptible((signal) =>
    runPipeline(file, changes, {
      ...(o.out && { out: o.out }),
      resume: o.resume ?? false,
      smoke: o.smoke ?? false,
      signal,
      log,
      command: process.argv.slice(2),
    }),
  );
  if (launchEnvironment().rank > 0) return;
  const stages = result.stages.map(({ evaluation, ...stage }) => ({
    ...stage,
    evaluation: evaluation?.results,
  }));
  if (o.json) {
    printJson({ ...result, stages });
    return;
  }
  const { headlines } = await import('../experiment/index.ts');
  console.log(
    table(
      ['stage', 'steps', 'last loss', 'seconds', 'evaluation', 'checkpoint'],
      result.stages.map(({ stage, training, last, seconds, evaluation, checkpoint }) => [
        stage,
        training.step,
        last?.loss.toFixed(5) ?? '–',
        seconds.toFixed(1),
        evaluation
          ? Object.entries(headlines(evaluation))
              .map(([task, value]) => `${task} ${value.toFixed(4)}`)
              .join(', ')
          : '–',
        checkpoint ? path.relative('.', checkpoint) : '–',
      ]),
    ),
  );
  if (!result.completed)
    console.log(`stopped; go on with: ${resumption(o, { name: result.name, out: result.out })}`);
}
