import { readFileSync } from 'node:fs';
import { Command, Option } from 'commander';
import { launchEnvironment } from '../distributed/index.ts';
import type { EvalProgress, EvaluateOptions } from '../evaluation/index.ts';
import { fail } from '../native/index.ts';
import { interruptible } from './interrupt.ts';
import { checkJudge, judgeOptions, openJudge, reportJudge } from './judge.ts';
import { deviceOption, number, oneOf, takeDevice, whole } from './options.ts';
import { log, logWarnings, printJson, table } from './output.ts';

interface Options {
  device: string;
  model?: string;
  tasks: string;
  tokenizer?: string;
  data?: string;
  limit?: string;
  samples?: string;
  batchSize: string;
  tokenBudget?: string;
  numFewshot?: string;
  genKwargs?: string;
  applyChatTemplate?: boolean;
  fewshotAsMultiturn?: boolean;
  systemInstruction?: string;
  template?: string;
  imageMode?: string;
  out?: string;
  scorer: 'libmoe' | 'fixed' | 'both';
  routing?: boolean;
  legacyRandomFallback?: boolean;
  judge?: string;
  judgeModel?: string;
  json?: boolean;
}

const help = `
Tasks (--tasks, separated by commas): names, groups, tags, wildcards such as 'lm.*', or .yaml files. "list" prints them all with what they ask
and where their documents come from. Nothing is downloaded: a task says which data file it misses; --data names the folder.

Answers go to OUT/journal.jsonl as they come: a killed run goes on with the same command. OUT/results.json has lm-eval's shape, and
OUT/samples_<task>.jsonl a line per document; "libmoe rescore OUT" scores them again without the model.

Several processes (libmoe launch --nproc 2 -- libmoe eval … --out OUT) share the work through OUT; each helps the others when it is done.

Examples: npx libmoe eval --tasks list
          npx libmoe eval --model runs/demo/moe --tasks piqa,blimp --data my-data --limit 200 --out eval/moe
          npx libmoe eval --model chat-model --tasks 'my-task.yaml' --num-fewshot 5 --apply-chat-template --gen-kwargs temperature=0.7,seed=1
          npx libmoe eval --model runs/vlm --tasks mme --data bundles --limit 0.1
More: docs/evaluation.md`;

export function evalCommand(): Command {
  return new Command('eval')
    .description('zero-shot or few-shot evaluation of a checkpoint')
    .option(
      '--model <checkpoint>',
      'a checkpoint folder, a run folder (its newest checkpoint; RUN/checkpoints/best: its best), or a llama2c .bin',
    )
    .requiredOption(
      '--tasks <list>',
      'tasks, groups, tags, wildcards or .yaml files, separated by commas; or list',
    )
    .option('--tokenizer <file>', 'when the checkpoint has none of its own')
    .option('--data <folder>', 'where relative data files of the tasks are')
    .option('--limit <n>', 'documents per task; between 0 and 1: that share of each task, rounded up')
    .option('--samples <json>', 'documents by number, such as {"piqa": [0, 7]}; or a file with that')
    .option('--num-fewshot <n>', 'examples before each question, in place of what the tasks say')
    .option('--gen-kwargs <list>', 'of generated texts: max_new_tokens=64,temperature=0.7,top_p=0.9,seed=1')
    .option('--apply-chat-template', "ask a text model in conversations, by its checkpoint's chat template")
    .option('--fewshot-as-multiturn', 'with it: examples as turns of their own')
    .option('--system-instruction <text>', 'put before everything; with a chat template the system message')
    .option(
      '--template <name>',
      'of a model that sees images: a built-in template (phi35, vicuna, …) in place of that of its training',
    )
    .option('--image-mode <mode>', 'of a model that sees images: square or pad; default: as in its training')
    .option(
      '--batch-size <n>',
      'questions or texts per forward pass, or auto; scores do not depend on it',
      'auto',
    )
    .option('--token-budget <n>', 'tokens per forward pass at most (2048)')
    .option('--out <folder>', 'results.json, samples and a journal; the same command continues a killed run')
    .addOption(
      new Option(
        '--scorer <mode>',
        "LibMoE's scoring with its quirks, as published numbers have them, or with its defects fixed; or both, from the same answers",
      )
        .choices(['libmoe', 'fixed', 'both'])
        .default('libmoe'),
    )
    .option(
      '--legacy-random-fallback',
      'guess as the original does where no letter can be read out of an answer (seeded); such answers count as unparsed all the same',
    )
    .option(
      '--routing',
      'keep which experts every MoE layer chose for every token, beside the answers in OUT',
    )
    .option(...judgeOptions[0]!)
    .option(...judgeOptions[1]!)
    .option(...deviceOption)
    .option('--json', 'print the results as one JSON object')
    .addHelpText('after', help)
    .action(async (o: Options) => {
      if (o.tasks === 'list') return listAll(o.json ?? false);
      if (!o.model) fail('ERR_LIBMOE_ARGUMENT', 'eval expects --model <checkpoint>');
      await evaluateCheckpoint(o, o.model);
    });
}

async function listAll(json: boolean): Promise<void> {
  const { listTasks } = await import('../evaluation/index.ts');
  const known = listTasks();
  if (json) printJson({ tasks: known.map(({ name }) => name), details: known });
  else
    console.log(
      table(
        ['task', 'asks', 'documents', 'tags'],
        known.map(({ name, kind, data, tags }) => [name, kind, data, tags.join(' ')]),
      ),
    );
}

async function evaluateCheckpoint(o: Options, checkpointName: string): Promise<void> {
  const sizes = {
    ...(o.batchSize !== 'auto' && { batchSize: whole('--batch-size', o.batchSize) }),
    ...(o.tokenBudget !== undefined && { tokenBudget: whole('--token-budget', o.tokenBudget) }),
  };
  const asked = askedOptions(o);
  const { openEvaluatedModel, folderOf, resolveCheckpoint } = await import('../experiment/index.ts');
  const { evaluate, printTable } = await import('../evaluation/index.ts');
  const checkpoint = resolveCheckpoint(checkpointName);
  const { rank, worldSize } = launchEnvironment();
  if (o.applyChatTemplate) {
    const { loadChatTemplate } = await import('../data/index.ts');
    asked.chatTemplate = loadChatTemplate(folderOf(o.tokenizer ?? checkpoint));
  }
  await takeDevice(o.device);
  const { model, close } = await openEvaluatedModel(checkpoint, {
    name: checkpointName,
    ...sizes,
    ...(o.tokenizer && { tokenizer: o.tokenizer }),
    ...(o.template && { template: o.template }),
    ...(o.imageMode && { imageMode: oneOf('--image-mode', o.imageMode, ['square', 'pad']) as 'pad' }),
  });
  const results = await interruptible(async (signal) => {
    const share = worldSize > 1 ? { share: { rank, world: worldSize } } : {};
    const judge = await openJudge(o, o.out, signal);
    const steps = evaluate(model, { ...asked, ...share, ...judge, tasks: o.tasks.split(','), signal });
    const progress = new Progress();
    for (;;) {
      const step = await steps.next();
      if (step.done) {
        reportJudge(judge.judge);
        return step.value;
      }
      progress.show(step.value);
    }
  }).finally(close);
  if (rank > 0) return;
  logWarnings(results.libmoe.warnings);
  if (o.json) printJson(results);
  else console.log(printTable(results));
}

function askedOptions(o: Options): Omit<EvaluateOptions, 'tasks'> {
  if (o.fewshotAsMultiturn && !o.applyChatTemplate)
    fail('ERR_LIBMOE_ARGUMENT', '--fewshot-as-multiturn goes with --apply-chat-template');
  checkJudge(o);
  if (o.routing && !o.out)
    fail('ERR_LIBMOE_ARGUMENT', '--routing goes with --out, where the records are kept');
  const numFewshot = o.numFewshot === undefined ? undefined : number('--num-fewshot', o.numFewshot);
  return {
    scorer: o.scorer,
    ...(o.out && { out: o.out }),
    ...(o.routing && { routing: true }),
    ...(o.legacyRandomFallback && { legacyRandomFallback: true }),
    ...(o.data && { dataFolder: o.data }),
    ...(o.limit !== undefined && { limit: number('--limit', o.limit) }),
    ...(numFewshot !== undefined && { numFewshot }),
    ...(o.samples !== undefined && { samples: samplesOf(o.samples) }),
    ...(o.genKwargs !== undefined && { generation: generationOf(o.genKwargs) }),
    ...(o.fewshotAsMultiturn && { fewshotAsMultiturn: true }),
    ...(o.systemInstruction !== undefined && { systemInstruction: o.systemInstruction }),
  };
}

function samplesOf(text: string): Record<string, number[]> {
  const source = text.trim().startsWith('{') ? text : readFile(text);
  try {
    const value: unknown = JSON.parse(source);
    const lists = Object.entries(value as object);
    if (lists.length > 0 && lists.every(([, ids]) => Array.isArray(ids) && ids.every(Number.isInteger)))
      return Object.fromEntries(lists) as Record<string, number[]>;
  } catch {}
  return fail('ERR_LIBMOE_ARGUMENT', `--samples expects {"task": [0, 7]} or a file with that, got "${text}"`);
}

function readFile(file: string): string {
  try {
    return readFileSync(file, 'utf8');
  } catch (cause) {
    return fail('ERR_LIBMOE_FILE', `--samples: cannot read ${file}`, cause);
  }
}

/** `key=value` pairs; a number or true/false is taken as such, `until` as text. */
function generationOf(text: string): NonNullable<EvaluateOptions['generation']> {
  const pairs = text.split(',').map((pair) => {
    const at = pair.indexOf('=');
    if (at < 1) fail('ERR_LIBMOE_ARGUMENT', `--gen-kwargs expects key=value,key=value, got "${text}"`);
    const [key, value] = [pair.slice(0, at).trim(), pair.slice(at + 1).trim()];
    const plain = value === 'true' || value === 'false' ? value === 'true' : Number(value);
    return [key, key === 'until' || value === '' || Number.isNaN(plain) ? value : plain];
  });
  return Object.fromEntries(pairs);
}

/** A line every two seconds: what is done and how long the rest takes. */
class Progress {
  private readonly started = performance.now();
  private shown = this.started;
  private first: { at: number; done: number } | undefined;

  show({ stage, task, done, total, fromJournal }: EvalProgress): void {
    const now = performance.now();
    if (stage === 'score' && this.first === undefined) {
      this.first = { at: now, done };
      if (fromJournal > 0) log(`${fromJournal} of ${total} requests are answered in the journal already`);
    }
    if (now - this.shown < 2000) return;
    this.shown = now;
    if (stage !== 'score') {
      log(`${stage === 'prepare' ? 'preparing' : 'scored'} ${task}, ${done}/${total} tasks`);
      return;
    }
    const made = done - this.first!.done;
    const left = made > 0 ? ((now - this.first!.at) / made / 1000) * (total - done) : Number.NaN;
    log(`${done}/${total} requests${Number.isNaN(left) ? '' : `, ${duration(left)} left`}`);
  }
}

function duration(seconds: number): string {
  if (seconds < 100) return `${Math.ceil(seconds)} s`;
  return seconds < 6000 ? `${Math.ceil(seconds / 60)} min` : `${(seconds / 3600).toFixed(1)} h`;
}
