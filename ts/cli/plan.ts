import { Command } from 'commander';
import { fail } from '../native/index.ts';
import { collect, number, whole } from './options.ts';
import { log, printJson, table } from './output.ts';

interface Options {
  set?: string[];
  smoke?: boolean;
  gpu?: string;
  gpus?: string;
  gpuMemory?: string;
  json?: boolean;
}

export function planCommand(): Command {
  return new Command('plan')
    .description('what a recipe takes: parameters, operations, memory, time; refuses what cannot fit')
    .argument('<recipe>', 'a YAML file: a recipe, or a pipeline of several')
    .option(
      '--set <path=value>',
      'change a key of the recipe, of a pipeline beginning with the stage (repeatable)',
      collect,
    )
    .option('--smoke', "lay the recipe's `smoke` block over it")
    .option('--gpu <name>', 'for this card: a100-40, a100-80, h100, h200 (default: the CPU of this machine)')
    .option('--gpus <n>', 'how many there are; the recipe uses one per rank (strategy.data)')
    .option('--gpu-memory <GB>', 'GiB of each, for a card that is not in the list')
    .option('--json', 'print one JSON object')
    .addHelpText(
      'after',
      '\nWhat cannot fit ends with exit code 1 and says what would.\n\nExample: npx libmoe plan recipes/language/660m/smoe.yaml --gpu a100-80\nMore: docs/experiments.md',
    )
    .action(async (recipe: string, o: Options) => {
      const { isPipeline, merged, openRecipe, parseOverrides, planPipeline, planRecipe } = await import(
        '../experiment/index.ts'
      );
      const changes = parseOverrides(o.set ?? []);
      const machine = {
        ...(o.gpu && { gpu: o.gpu }),
        ...(o.gpus && { gpus: whole('--gpus', o.gpus) }),
        ...(o.gpuMemory && { gpuMemory: number('--gpu-memory', o.gpuMemory) }),
      };
      if (isPipeline(recipe)) {
        const plan = await planPipeline(recipe, changes, { ...machine, smoke: o.smoke ?? false });
        if (o.json) printJson(plan);
        for (const [i, stage] of plan.stages.entries()) {
          if (!o.json) {
            if (i > 0) console.log('');
            print(stage);
          }
          for (const note of stage.notes) log(`note: ${stage.stage}: ${note}`);
        }
        if (plan.fits) return;
        const not = plan.stages.filter(({ fits }) => !fits);
        fail(
          'ERR_LIBMOE_OUT_OF_MEMORY',
          not.map((stage) => whatItTakes(stage, `${stage.stage}.`)).join('\n'),
        );
      }
      const { smoke } = await openRecipe(recipe); // what it imports is known from here on
      const plan = planRecipe(recipe, o.smoke ? merged(smoke ?? {}, changes) : changes, machine);
      if (o.json) printJson(plan);
      else print(plan);
      for (const note of plan.notes) log(`note: ${note}`);
      if (!plan.fits) fail('ERR_LIBMOE_OUT_OF_MEMORY', whatItTakes(plan, ''));
    });
}

/** @param stage what keys of the recipe begin with */
function whatItTakes(plan: Plan, stage: string): string {
  const several = plan.ranks > 1;
  const settings = (set: string[]): string => set.map((text) => `--set ${stage}${text}`).join(' ');
  const ways = plan.wouldFit.map(({ set, total }) => `${settings(set)} (${gigabytes(total)})`);
  // There is one wherever a recipe does not fit.
  const { set, total } = plan.least!;
  const best =
    set.length > 0 ? `; the least of what was tried is ${gigabytes(total)} with ${settings(set)}` : '';
  return (
    `${plan.name} takes ${gigabytes(plan.memory.total)}${several ? ' on each rank' : ''}, ${plan.device} has ${gigabytes(plan.available)}${several ? ' for it' : ''}. ` +
    (ways.length > 0
      ? `It would fit with ${ways.join(', or ')}`
      : `No setting of this version makes it fit${best}: choose a smaller model or batch, or a device of ${gigabytes(total)}`)
  );
}

type Plan = Awaited<ReturnType<typeof import('../experiment/index.ts')['planRecipe']>>;

const gigabytes = (bytes: number): string =>
  bytes < 2 ** 30 ? `${(bytes / 2 ** 20).toFixed(0)} MiB` : `${(bytes / 2 ** 30).toFixed(2)} GiB`;
const megabytes = (bytes: number): string => thousands(bytes / 2 ** 20);
const thousands = (n: number): string => Math.round(n).toLocaleString('en');
const kinds: [string, Exclude<keyof Plan['memory'], 'total'>][] = [
  ['weights', 'weights'],
  ['master weights', 'masterWeights'],
  ['gradients', 'gradients'],
  ['optimizer state', 'optimizerState'],
  ['activations', 'activations'],
  ['logits', 'logits'],
  ['data', 'data'],
  ['gradient buckets', 'buckets'],
  ['process', 'runtime'],
];

function print(plan: Plan): void {
  const { memory, otherwise, time } = plan;
  console.log(
    table(
      ['recipe', plan.name],
      [
        ['parameters', thousands(plan.parameters)],
        ['active per token', thousands(plan.activeParameters)],
        ...(plan.trainedParameters < plan.parameters
          ? [['trained', thousands(plan.trainedParameters)] as [string, string]]
          : []),
        ['operations per token, forward and backward', thousands(plan.flopsPerToken)],
        [plan.parts ? 'tokens per step, at the most' : 'tokens per step', thousands(plan.tokensPerStep)],
        ['tokens', plan.tokens === null ? '–' : thousands(plan.tokens)],
        ['operations', plan.flops === null ? '–' : plan.flops.toExponential(2)],
        ...(plan.ranks > 1 ? [['ranks', thousands(plan.ranks)] as [string, string]] : []),
      ],
    ),
  );
  if (plan.parts)
    console.log(
      `\n${table(
        ['part', 'parameters', 'active', 'trained', 'operations per step'],
        Object.entries(plan.parts).map(([name, part]) => [
          name,
          thousands(part.parameters),
          thousands(part.activeParameters),
          thousands(part.trainedParameters),
          part.flopsPerStep.toExponential(2),
        ]),
      )}`,
    );
  const recompute = otherwise.activationCheckpointing ? 'with' : 'without';
  console.log(
    `\n${table(
      [plan.ranks > 1 ? 'memory of each rank' : 'memory', 'MiB'],
      [
        ...kinds.map(([name, key]): [string, string] => [name, megabytes(memory[key])]),
        ['most at a time', megabytes(memory.total)],
        [`${plan.device} has`, megabytes(plan.available)],
      ],
    )}`,
  );
  console.log(
    `\n${recompute} activationCheckpointing: activations ${gigabytes(otherwise.activations)}, most at a time ${gigabytes(otherwise.total)}`,
  );
  console.log(
    time.secondsPerStep === null
      ? `time: unknown (${time.basis})`
      : `time: ${time.secondsPerStep.toPrecision(3)} s a step${time.seconds === null ? '' : `, ${duration(time.seconds)} in all`} (${time.basis})`,
  );
}

function duration(seconds: number): string {
  if (seconds < 120) return `${seconds.toFixed(0)} s`;
  if (seconds < 7200) return `${(seconds / 60).toFixed(0)} min`;
  return seconds < 172_800 ? `${(seconds / 3600).toFixed(1)} h` : `${(seconds / 86_400).toFixed(1)} days`;
}
