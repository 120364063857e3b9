import { Command, Option } from 'commander';
import type { Tokenizer } from '../data/index.ts';
import type { LanguageModel } from '../models/language/index.ts';
import type { RouterDefinition } from '../moe/index.ts';
import { codeOf, fail } from '../native/index.ts';
import { collect, layerSelection, number, seed, whole } from './options.ts';
import { log, printJson, table } from './output.ts';
import { type StepZero, upcycleText, type WrittenAs } from './upcycle-output.ts';
import { partsOf, upcycleVisionLanguageCheckpoint } from './upcycle-vision-language.ts';

interface Options {
  from?: string;
  out?: string;
  experts?: string;
  topK?: string;
  router: string;
  routerOption?: string[];
  layers: string;
  compat: 'fixed' | 'libmoe' | 'original';
  sharedMix?: 'half' | 'sum';
  routedScaling?: string;
  capacityFactor?: string;
  initStd?: string;
  initScheme: 'normal' | 'orthogonal' | 'kaiming-uniform' | 'equal-norm';
  initSeeds?: string;
  reinitialise?: string;
  perturb?: string;
  keepFirst?: boolean;
  only?: string[];
  seed: string;
  text?: string;
  tokenizer?: string;
  family?: string;
  json?: boolean;
  parts?: string;
  fromScratch?: boolean;
}

/** An option that must be there unless `--router list` asks for nothing but the names. */
function needed(flag: string, value: string | undefined): string {
  return (
    value || fail('ERR_LIBMOE_ARGUMENT', `required option '${flag}' not specified (--help shows the options)`)
  );
}

/** One number, or a list such as 1,2,3. */
function seedsOf(text: string): number | number[] {
  const seeds = text.split(',').map((part) => number('--init-seeds', part));
  return seeds.length === 1 ? seeds[0]! : seeds;
}

export function upcycleCommand(): Command {
  return new Command('upcycle')
    .description(
      'dense checkpoint to mixture-of-experts checkpoint: every expert starts as a copy of the dense layer',
    )
    .option('--from <checkpoint>', 'a dense checkpoint folder, a run folder, or a llama2c .bin')
    .option('--out <folder>', 'the new checkpoint folder; must not exist')
    .option('--experts <n>', 'experts per layer')
    .option('--top-k <k>', 'experts per token')
    .option('--router <name>', 'a registered router; "list" prints all of them', 'smoe')
    .option('--router-option <key=value>', 'an option of the router (repeatable)', collect)
    .option('--layers <selection>', 'all, every:2, or a list such as 1,3', 'all')
    .addOption(
      new Option('--compat <behaviour>', 'which behaviour of the method (docs/moe.md)')
        .choices(['fixed', 'libmoe', 'original'])
        .default('fixed'),
    )
    .addOption(
      new Option(
        '--shared-mix <mix>',
        'how shared and routed output add up (default: half, which keeps the dense output)',
      ).choices(['half', 'sum']),
    )
    .option('--routed-scaling <factor>', 'factor of the routed output (default: 1)')
    .option('--capacity-factor <factor>', 'limits the choices of an expert (default: nothing is dropped)')
    .option('--init-std <std>', 'standard deviation of the new router weights (default: 0.02)')
    .addOption(
      new Option('--init-scheme <scheme>', 'how the router weights are drawn')
        .choices(['normal', 'orthogonal', 'kaiming-uniform', 'equal-norm'])
        .default('normal'),
    )
    .option('--init-seeds <seeds>', "seeds of the routers alone: layer 0's, or a list, one per layer")
    .option('--reinitialise <share>', 'draw this share of the hidden units of every expert anew')
    .option('--perturb <factor>', 'add noise to the experts: so many standard deviations of their weights')
    .option('--keep-first', 'the first expert stays as the dense layer is')
    .option('--only <pattern>', 'take over only tensors with such names; * is any text (repeatable)', collect)
    .option(
      '--parts <list>',
      'of a vision-language checkpoint: some of vision,projector,language (default: vision,projector)',
    )
    .option('--from-scratch', 'draw experts as those of a new model; the dense layers are lost')
    .option('--seed <n>', 'seeds the routers, each by its layer, and all else that is drawn', '0')
    .option('--text <file>', 'the text on which both models are compared (default: a short one of ours)')
    .option('--tokenizer <file>', 'goes into the new checkpoint when the dense one has none of its own')
    .option(
      '--family <name>',
      'the architecture that the checkpoint must be of: such as MixtralForCausalLM, public (any that transformers loads), or LibMoeForCausalLM, ours; refuses what is lost in it (default: the first that has the model, at last ours)',
    )
    .option('--json', 'print one JSON object')
    .addHelpText(
      'after',
      '\nWhere the weights of a token\'s experts sum to 1 the new model starts as good as the dense one; where not, the command says why and by how much.\n\nExamples: npx libmoe upcycle --router list\n          npx libmoe upcycle --from runs/dense --out moe --experts 8 --top-k 2 --layers every:2\n          npx libmoe upcycle --from llava --out llava-moe --experts 4 --top-k 2 --parts vision,projector\n          npx libmoe upcycle --from runs/dense --out moe --experts 8 --top-k 2 --router shared-v3 --router-option biasUpdate=0.01 --reinitialise 0.5\nThen:     npx libmoe train RECIPE with "start: { checkpoint: moe }". More: docs/upcycling.md, docs/moe.md, docs/routers/',
    )
    .action(async (o: Options) => {
      if (o.router === 'list') return listRouters(o.json ?? false);
      const source = needed('--from <checkpoint>', o.from);
      const out = needed('--out <folder>', o.out);
      const experts = whole('--experts', needed('--experts <n>', o.experts));
      const topK = whole('--top-k', needed('--top-k <k>', o.topK));
      const { existsSync, readFileSync } = await import('node:fs');
      if (existsSync(out))
        fail('ERR_LIBMOE_FILE', `${out} exists: upcycle writes a new folder and overwrites nothing`);
      if (o.text && !existsSync(o.text)) fail('ERR_LIBMOE_FILE', `no such text: ${o.text}`);
      const { resolveCheckpoint, copyTokenizer, parseOverrides } = await import('../experiment/index.ts');
      const { familyOf, loadModel, publicFamilyOf, saveModel } = await import('../models/language/index.ts');
      const { meanLoss, sampleText, upcycledConfig, upcycleWithReport } = await import(
        '../upcycling/index.ts'
      );
      const from = resolveCheckpoint(source);
      const tokenizer = await tokenizerOf(o, from); // what is wrong with it is said before anything is written
      const router = { ...parseOverrides(o.routerOption ?? [], '--router-option'), name: o.router };
      const noise = o.reinitialise !== undefined || o.perturb !== undefined;
      if (o.keepFirst && !noise)
        fail('ERR_LIBMOE_ARGUMENT', '--keep-first goes with --reinitialise or --perturb');
      const options = {
        experts,
        topK,
        router,
        layers: layerSelection(o.layers),
        compat: o.compat,
        ...(o.sharedMix && { sharedMix: o.sharedMix }),
        ...(o.routedScaling && { routedScaling: number('--routed-scaling', o.routedScaling) }),
        ...(o.capacityFactor && { capacityFactor: number('--capacity-factor', o.capacityFactor) }),
        ...(o.initStd && { initStd: number('--init-std', o.initStd) }),
        initScheme: o.initScheme,
        ...(o.initSeeds && { initSeeds: seedsOf(o.initSeeds) }),
        ...(noise && {
          expertNoise: {
            ...(o.reinitialise && { reinitialise: number('--reinitialise', o.reinitialise) }),
            ...(o.perturb && { perturb: number('--perturb', o.perturb) }),
            keepFirst: o.keepFirst ?? false,
          },
        }),
        ...(o.only && { only: o.only }),
        ...(o.fromScratch && { fromScratch: true }),
        seed: seed('--seed', o.seed),
      };
      const text = o.text ? readFileSync(o.text, 'utf8') : sampleText;
      const { isVisionLanguageCheckpoint } = await import('../models/vision-language/index.ts');
      if (isVisionLanguageCheckpoint(from))
        return upcycleVisionLanguageCheckpoint({
          from,
          out,
          options: { ...options, ...(o.parts && { parts: partsOf(o.parts) }) },
          text,
          textName: o.text ?? 'a sample text',
          tokenizer,
          tokenizerFrom: o.tokenizer ?? from,
          family: o.family,
          json: o.json ?? false,
        });
      if (o.parts)
        fail('ERR_LIBMOE_ARGUMENT', `--parts is for vision-language checkpoints, ${source} is none`);
      const dense = await loadModel(from);
      const stepZero: StepZero = { text: o.text ?? 'a sample text', tokens: 0, dense: 0, upcycled: 0 };
      let sequences: number[][];
      let upcycled: ReturnType<typeof upcycleWithReport>;
      let written: WrittenAs;
      try {
        const config = upcycledConfig(dense.config, options);
        const { architecture } = familyOf(config, { required: o.family });
        written = { family: architecture.name, transformers: publicFamilyOf(config) };
        sequences = await sequencesOf(text, tokenizer, dense, stepZero);
        upcycled = upcycleWithReport(dense, options);
        stepZero.dense = meanLoss(dense, sequences);
      } finally {
        dense.dispose();
      }
      const { model, report } = upcycled;
      try {
        stepZero.upcycled = meanLoss(model, sequences);
        await saveModel(model, out, {
          family: written.family,
          extra: (folder) => copyTokenizer(o.tokenizer ?? from, folder),
        });
      } finally {
        model.dispose();
      }
      if (o.json) printJson({ out, ...report, stepZero, ...written });
      else console.log(upcycleText(report, stepZero, written));
      log(`written: ${out}`);
    });
}

/** The tokenizer of the new checkpoint; undefined when the dense one has none and none was given. */
async function tokenizerOf({ tokenizer, text }: Options, from: string): Promise<Tokenizer | undefined> {
  // A llama2c file holds weights alone.
  if (!tokenizer && !text && from.endsWith('.bin')) return undefined;
  const { loadTokenizer } = await import('../data/index.ts');
  try {
    return loadTokenizer(tokenizer ?? from);
  } catch (error) {
    if (tokenizer || text || codeOf(error) !== 'ERR_LIBMOE_FILE') throw error;
    return undefined;
  }
}

/** What both models are compared on: the text, or without a tokenizer the ids of the vocabulary one after the other. */
async function sequencesOf(
  text: string,
  tokenizer: Tokenizer | undefined,
  model: LanguageModel,
  stepZero: StepZero,
): Promise<number[][]> {
  const { textSequences } = await import('../upcycling/index.ts');
  const { maxPositions, vocabularySize } = model.config;
  const counted = Array.from({ length: Math.min(256, maxPositions, vocabularySize) }, (_, i) => i);
  if (!tokenizer) stepZero.text = 'the vocabulary in its order (no tokenizer was found)';
  const sequences = tokenizer ? textSequences(text, tokenizer, model) : [counted];
  if (sequences.length === 0)
    fail('ERR_LIBMOE_DATA', `${stepZero.text} has fewer than two tokens: nothing to compare the models on`);
  stepZero.tokens = sequences.reduce((sum, { length }) => sum + length - 1, 0);
  return sequences;
}

async function listRouters(json: boolean): Promise<void> {
  const { routerDefinition, routerNames } = await import('../moe/index.ts');
  const routers = routerNames().map((name) => ({ name, ...about(routerDefinition(name)) }));
  if (json) printJson({ routers });
  else
    console.log(
      table(
        ['router', 'what', 'compat'],
        routers.map((r) => [r.name, r.summary, r.compat.join(' ')]),
      ),
    );
}

const about = ({ summary = '', compat = ['fixed'] }: RouterDefinition) => ({ summary, compat });
