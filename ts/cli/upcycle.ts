import { Command } from 'commander';
import { fail } from '../native/index.ts';
import { layerSelection, number, whole } from './options.ts';
import { log, printJson, table } from './output.ts';

interface Options {
  from: string;
  out: string;
  experts: string;
  topK: string;
  router: string;
  layers: string;
  initStd: string;
  seed: string;
  tokenizer?: string;
  json?: boolean;
}

/** Every registered router, one line each; a test compares the list with the registry. */
const routers = [
  'cosine (cosines, as in LibMoE v1)',
  'dense (all experts, softmax)',
  'expert-choice (experts choose tokens; looks ahead)',
  'hash (by token id)',
  'hyper (HyperRouter: a fixed hypernetwork, a learnt code)',
  'moe++ (zero, copy and constant experts)',
  'noisy-top-k (learnt noise, Shazeer 2017)',
  'perturbed-cosine (cosines, a constant added to the norms)',
  'random (control)',
  'remoe (ReLU gates)',
  'shared-v2 (DeepSeek-V2)',
  'shared-v3 (DeepSeek-V3, balanced by biases)',
  'sigmoid (σ-MoE)',
  'smoe (softmax, top k)',
  'switch (top 1, expert capacity; its weights are below 1)',
  'tc-moe (ternary)',
  'xmoe (X-MoE: cosines in few dimensions, a learnt temperature)',
];

export function upcycleCommand(): Command {
  return new Command('upcycle')
    .description(
      'dense checkpoint to mixture-of-experts checkpoint: every expert starts as a copy of the dense layer',
    )
    .requiredOption('--from <checkpoint>', 'a dense checkpoint folder, a run folder, or a llama2c .bin')
    .requiredOption('--out <folder>', 'the new checkpoint folder; must not exist')
    .requiredOption('--experts <n>', 'experts per layer')
    .requiredOption('--top-k <k>', 'experts per token')
    .option('--router <name>', 'a registered router', 'smoe')
    .option('--layers <selection>', 'all, every:2, or a list such as 1,3', 'all')
    .option('--init-std <std>', 'standard deviation of the new router weights', '0.02')
    .option('--seed <n>', 'seeds the routers, each by its layer', '0')
    .option('--tokenizer <file>', 'goes into the new checkpoint when the dense one has none of its own')
    .option('--json', 'print one JSON object')
    .addHelpText(
      'after',
      `\nRouters:\n  ${routers.join('\n  ')}\nWhere the weights of a token's experts sum to 1 the new model starts as good as the dense one.\n\nExample: npx libmoe upcycle --from runs/dense --out moe --experts 8 --top-k 2 --layers every:2\nThen:    npx libmoe train RECIPE with "start: { checkpoint: moe }". More: docs/upcycling.md, docs/moe.md, docs/routers/`,
    )
    .action(async (o: Options) => {
      const { existsSync } = await import('node:fs');
      if (existsSync(o.out))
        fail('ERR_LIBMOE_FILE', `${o.out} exists: upcycle writes a new folder and overwrites nothing`);
      const { resolveCheckpoint, copyTokenizer } = await import('../experiment/index.ts');
      const { loadTokenizer } = await import('../data/index.ts');
      const { loadModel, saveModel } = await import('../models/language/index.ts');
      const { upcycleWithReport } = await import('../upcycling/index.ts');
      const from = resolveCheckpoint(o.from);
      if (o.tokenizer) loadTokenizer(o.tokenizer); // what is wrong with it is said before anything is written
      const dense = await loadModel(from);
      let upcycled: ReturnType<typeof upcycleWithReport>;
      try {
        upcycled = upcycleWithReport(dense, {
          experts: whole('--experts', o.experts),
          topK: whole('--top-k', o.topK),
          router: o.router,
          layers: layerSelection(o.layers),
          initStd: number('--init-std', o.initStd),
          seed: number('--seed', o.seed),
        });
      } finally {
        dense.dispose();
      }
      const { model, report } = upcycled;
      try {
        await saveModel(model, o.out, (folder) => copyTokenizer(o.tokenizer ?? from, folder));
      } finally {
        model.dispose();
      }
      if (o.json) {
        printJson({ out: o.out, ...report });
        return;
      }
      console.log(
        table(
          ['copied into every expert', 'as', 'copies'],
          report.replicated.map((r) => [r.from, r.to, r.copies]),
        ),
      );
      console.log(
        `\ncopied unchanged: ${report.copied.length} tensors; new: ${report.initialised.join(', ') || 'none'}`,
      );
      console.log(
        `parameters: ${report.parameters.before.toLocaleString('en')} → ${report.parameters.after.toLocaleString('en')}`,
      );
      log(`written: ${o.out}`);
    });
}
