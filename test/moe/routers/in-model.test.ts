import { afterAll, describe, expect, it } from 'vitest';
import {
  LanguageModel,
  type LanguageModelOptions,
  packSequences,
} from '../../../ts/models/language/index.ts';
import { ForwardContext, routerDefinition } from '../../../ts/moe/index.ts';
import { add, scale } from '../../../ts/tensor/elementwise.ts';
import { scope, setThreads, threads } from '../../../ts/tensor/index.ts';
import { optimizer } from '../../../ts/training/index.ts';
import { tinyConfig } from '../../models/tiny.ts';
import { type RouterCase, routerCases } from './cases.ts';
import { made } from './routed.ts';

// Models this small have nothing to share out: threads would only wait for each other.
const before = threads();
setThreads(1);
afterAll(() => setThreads(before));

/** The two best experts where the router takes two. */
const optionsOf = ({ name, compat, options, topKs }: RouterCase): LanguageModelOptions => ({
  ...tinyConfig,
  moe: {
    experts: 4,
    topK: topKs.includes(2) ? 2 : 1,
    router: { name, ...options },
    compat,
    expert: { hidden: 8 },
    ...(routerDefinition(name).sharedExpert && { shared: { hidden: 8 } }),
  },
});
const ofRouters = (model: LanguageModel): [path: string, values: number[]][] =>
  [...model.namedParameters()]
    .filter(([path]) => path.includes('.moe.router.'))
    .map(([path, p]) => [path, p.toArray()]);
const batch = {
  ...packSequences([
    [5, 9, 2, 7],
    [1, 5, 9, 3],
  ]),
  targets: Int32Array.from([9, 2, 7, 4, 5, 9, 3, 0]),
};

/** One pass forward and backward: the objective, and every gradient. */
function pass(model: LanguageModel): { loss: number; gradients: Map<string, number[]> } {
  using context = new ForwardContext({ training: true, step: 3, totalSteps: 4 });
  const loss = scope(() => {
    let total = model.loss(batch, context);
    for (const { value, coefficient } of context.losses()) total = add(total, scale(value, coefficient));
    const value = total.item();
    total.backward();
    return value;
  });
  const gradients = new Map<string, number[]>();
  for (const [name, p] of model.namedParameters()) if (p.grad) gradients.set(name, p.grad.toArray());
  return { loss, gradients };
}

describe.each(routerCases('language'))('$name ($compat) in a language model', (given) => {
  it('gives the same when blocks are computed again, and trains every parameter of its own', () => {
    using model = new LanguageModel(optionsOf(given), { seed: 1 });
    model.train();
    const plain = pass(model);
    model.zeroGrad();
    model.activationCheckpointing = true;
    expect(pass(model)).toEqual(plain);
    model.zeroGrad();
    const trained = ofRouters(model);
    using alone = made(given.name, { experts: 4, topK: 1, compat: given.compat }, given.options);
    expect(trained.length).toBeGreaterThanOrEqual(tinyConfig.layers * alone.namedParameters().size);
    for (const [path] of trained)
      expect(
        plain.gradients.get(path)?.some((g) => g !== 0),
        path,
      ).toBe(true);
  });

  it('learns a batch by heart, in bf16 too', () => {
    for (const dtype of ['f32', 'bf16'] as const) {
      using model = new LanguageModel(optionsOf(given), { seed: 1, dtype });
      model.train();
      const adam = optimizer(model.namedParameters(), { name: 'adamw' });
      const losses = Array.from({ length: 8 }, () => {
        const { loss } = pass(model);
        adam.step(0.01);
        model.zeroGrad();
        return loss;
      });
      adam.dispose();
      expect(losses.at(-1)!, `${dtype}: ${losses.join(' ')}`).toBeLessThan(losses[0]! - 0.2);
    }
  });

  it('starts from the seed and the layer', ({ skip }) => {
    const state = (seed: number) => {
      using model = new LanguageModel(optionsOf(given), { seed });
      return ofRouters(model);
    };
    const started = state(1);
    expect(state(1)).toEqual(started);
    if (started.length === 0) skip(`${given.name} has no parameters`);
    if (started.every(([, values]) => new Set(values).size === 1))
      skip(`${given.name}, ${given.compat}: every parameter starts as one number, whatever the seed`);
    expect(state(2)).not.toEqual(started);
    if (given.options.flavour === 'vision-language') return; // LibMoE seeds those layers alike
    const different = new Set(
      started.map(([path, values]) => `${path.replace(/\d+/, '#')} ${values.join()}`),
    );
    expect(different.size).toBeGreaterThan(started.length / 3);
  });
});
