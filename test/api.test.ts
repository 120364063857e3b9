import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import * as libmoe from '../ts/index.ts';
import { smallTokenizer } from './evaluation/small-tokenizer.ts';

const folder = mkdtempSync(path.join(tmpdir(), 'libmoe-api-'));
afterAll(() => rmSync(folder, { recursive: true }));

const expert = { hidden: 16, activation: 'silu', gated: true, bias: false } as const;
const tiny = { vocabularySize: 300, dModel: 8, layers: 2, heads: 2, feedForward: { hidden: 16 } } as const;
const held = { task: 'held', output_type: 'loglikelihood_rolling', doc_to_target: 'text' } as const;

async function last<Y, R>(steps: AsyncGenerator<Y, R>): Promise<R> {
  for (;;) {
    const step = await steps.next();
    if (step.done) return step.value;
  }
}

/** A checkpoint with its tokenizer, as a training leaves it. */
async function saved(name: string): Promise<string> {
  const to = path.join(folder, name);
  if (existsSync(to)) return to;
  using model = new libmoe.LanguageModel(tiny, { seed: 1 });
  await libmoe.saveModel(model, to, {
    extra: async (into) => void libmoe.data.writeTokenizer(into, await smallTokenizer()),
  });
  return to;
}

// What the package promises to a program that imports it: every name, used as the promise shows it.
describe('the package', () => {
  it('exports what programs are promised', () => {
    const functions =
      'tensor zeros ones randn scope noGrad memory devices registerRouter routerNames loadModel saveModel upcycle loadTokenizer ' +
      'train evaluateDuring runRecipe evaluate registerTask registerMetric report checkpoint Module Router MoeLayer LanguageModel';
    for (const name of functions.split(' '))
      expect((libmoe as Record<string, unknown>)[name], name).toBeTypeOf('function');
    for (const name of ['ops', 'nn', 'optim', 'schedules', 'data', 'distributed', 'metrics', 'z'])
      expect((libmoe as Record<string, unknown>)[name], name).toBeTypeOf('object');
  });

  it('tensors: made with options, freed by scope, counted', () => {
    const before = libmoe.memory().tensors;
    const sum = libmoe.scope(() => {
      const x = libmoe.tensor([1, 2, 3, 4], [2, 2], { dtype: 'f32', device: 'cpu', requiresGrad: true });
      const noise = libmoe.randn([2, 2], { seed: 1 });
      expect(noise.toArray()).toEqual(libmoe.ops.randn([2, 2], { seed: 1 }).toArray());
      const loss = libmoe.ops.sum(
        libmoe.ops.multiply(x, libmoe.ops.add(libmoe.ones([2, 2]), libmoe.zeros([2, 2]))),
      );
      loss.backward();
      using gradient = x.grad!;
      expect(gradient.toArray()).toEqual([1, 1, 1, 1]);
      expect(libmoe.noGrad(() => libmoe.ops.scale(x, 2)).requiresGrad).toBe(false);
      return loss.item();
    });
    expect(sum).toBe(10);
    expect(libmoe.memory().tensors).toBe(before);
    expect(libmoe.devices()).toContain('cpu');
  });

  it('modules: written outside the package', () => {
    class Twice extends libmoe.Module {
      readonly inner = new libmoe.nn.Linear(4, 4, { bias: false });
      forward(x: libmoe.Tensor): libmoe.Tensor {
        return libmoe.ops.scale(this.inner.forward(x), 2);
      }
    }
    using module = new Twice();
    using copy = new Twice();
    expect([...module.namedParameters().keys()]).toEqual(['inner.weight']);
    copy.loadStateDict(module.stateDict());
    module.train();
    expect(module.training).toBe(true);
    module.eval();
    module.to({ dtype: 'f64', device: 'cpu' });
    expect(module.parameters()[0]!.dtype).toBe('f64');
  });

  it('MoE: a router of one’s own, by name and as an object, in a layer', () => {
    class First extends libmoe.Router {
      constructor(
        override readonly width: number,
        private readonly topK: number,
      ) {
        super();
      }
      route(tokens: libmoe.Tensor): libmoe.Routing {
        const rows = tokens.shape[0]!;
        const experts = libmoe.tensor(
          Array.from({ length: rows * this.topK }, (_, i) => i % this.topK),
          [rows, this.topK],
          { dtype: 'i32' },
        );
        return { experts, weights: libmoe.full([rows, this.topK], 1 / this.topK) };
      }
    }
    libmoe.registerRouter('first-ones', {
      options: libmoe.z.strictObject({}),
      create: (_, { width, topK }) => new First(width, topK),
    });
    try {
      expect(libmoe.routerNames()).toContain('first-ones');
      // A router that is an object knows the width of a token; for one that is a name the layer is told it.
      for (const place of [{ router: new First(8, 2) }, { router: 'first-ones', dModel: 8 }]) {
        using layer = new libmoe.MoeLayer({ ...place, experts: 4, topK: 2, expert });
        libmoe.scope(() => {
          const y = layer.forward(libmoe.randn([5, 8], { seed: 2 }));
          expect(y.shape).toEqual([5, 8]);
          libmoe.ops.sum(y).backward();
        });
        layer.zeroGrad();
      }
      expect(() => new libmoe.MoeLayer({ router: 'first-ones', experts: 4, topK: 2, expert })).toThrow(
        'set dModel',
      );
      using bounded = new libmoe.MoeLayer({
        router: { name: 'smoe' },
        dModel: 8,
        experts: 4,
        topK: 2,
        expert,
        capacityFactor: 1,
        dropPolicy: 'probability',
        shared: { hidden: 16 },
      });
      expect(bounded.shared).toBeDefined();
    } finally {
      libmoe.unregisterRouter('first-ones');
    }
  });

  it('checkpoints: loaded, upcycled, saved, evaluated with the tokenizer that lies beside them', async () => {
    const dir = await saved('dense');
    using dense = await libmoe.loadModel(dir, { device: 'cpu', dtype: 'f32' });
    using mixture = await libmoe.upcycle(dense, { experts: 4, topK: 2 });
    await libmoe.saveModel(mixture, path.join(folder, 'moe'));
    using again = await libmoe.loadModel(path.join(folder, 'moe'));
    expect(again.parameterCount()).toBe(mixture.parameterCount());
    expect(libmoe.loadTokenizer(dir).vocabularySize).toBe(290);

    const name = 'gold-length';
    libmoe.registerMetric(
      name,
      libmoe.metrics.meanMetric(() => 1, ['multiple_choice']),
    );
    libmoe.registerTask({
      task: 'choose',
      output_type: 'multiple_choice',
      doc_to_text: 'question',
      doc_to_choice: '{{[a, b]}}',
      doc_to_target: 0,
      metric_list: [{ metric: 'acc' }, { metric: name }],
      documents: [{ question: 'the', a: 'cat', b: 'mat' }],
    });
    const out = path.join(folder, 'eval');
    const results = await last(libmoe.evaluate(mixture, { tasks: ['choose'], limit: 1, out }));
    expect(results.results.choose?.['gold-length,none']).toBe(1);
    expect(results.config.tokenizer).toMatch(/^dense@/);
    expect(results.libmoe.scorer_mode).toBe('libmoe');
    expect(existsSync(path.join(out, 'results.json'))).toBe(true);

    using anew = new libmoe.LanguageModel(tiny);
    const task = { ...held, documents: [{ text: 'the cat sat' }] };
    await expect(last(libmoe.evaluate(anew, { tasks: [task] }))).rejects.toThrow(
      /ERR_LIBMOE_ARGUMENT: .*"tokenizer"/,
    );
    const tokenizer = libmoe.loadTokenizer(dir);
    const direct = await last(libmoe.evaluate(anew, { tasks: [task], tokenizer }));
    const adapted = libmoe.languageAdapter(anew, { tokenizer });
    const through = await last(libmoe.evaluate(adapted, { tasks: [task] }));
    expect(direct.results).toEqual(through.results);
    await expect(last(libmoe.evaluate(adapted, { tasks: [task], tokenizer }))).rejects.toThrow(
      /its own tokenizer/,
    );
  });

  it('training: a generator with the user’s code inside it', async () => {
    using model = new libmoe.LanguageModel({ ...tiny, moe: { experts: 4, topK: 2, expert } }, { seed: 1 });
    const tokens = Int32Array.from({ length: 400 }, (_, i) => (i * 7) % 31);
    const steps = 3;
    const optimizer = libmoe.optim.optimizer(model.namedParameters(), { name: 'adamw' });
    const seen: number[] = [];
    const calls: number[] = [];
    for await (const step of libmoe.train(model, {
      data: new libmoe.data.PackedLoader(libmoe.data.tokenDataset(tokens), {
        sequenceLength: 16,
        batchSequences: 2,
      }),
      optimizer,
      schedule: libmoe.schedules.schedule({ name: 'constant', learningRate: 1e-3 }, steps),
      steps,
      callbacks: [
        { name: 'count', onStep: () => void calls.push(1) },
        libmoe.evaluateDuring({
          at: [0.5],
          evaluate: ({ step }) => ({ 'my/score': step }),
          best: { metric: 'my/score', higherIsBetter: true },
        }),
      ],
      strategy: libmoe.single(),
      out: path.join(folder, 'run'),
    }))
      seen.push(step.loss);
    optimizer.dispose();
    model.zeroGrad();
    expect(seen).toHaveLength(steps);
    expect(seen.every(Number.isFinite)).toBe(true);
    expect(calls).toHaveLength(steps);
    const best = libmoe.namedCheckpoint(path.join(folder, 'run', 'checkpoints'), 'best');
    expect(best?.step).toBe(steps);
  });
});
