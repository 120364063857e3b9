import { describe, expect, it } from 'vitest';
import {
  LanguageModel,
  type LanguageModelOptions,
  packSequences,
} from '../../../ts/models/language/index.ts';
import { type Compat, ForwardContext, routerDefinition } from '../../../ts/moe/index.ts';
import { add, scale } from '../../../ts/tensor/elementwise.ts';
import { scope } from '../../../ts/tensor/index.ts';
import { optimizer } from '../../../ts/training/index.ts';
import { tinyConfig } from '../../models/tiny.ts';

const names = ['cosine', 'hyper', 'noisy-top-k', 'perturbed-cosine', 'switch', 'xmoe'];
const cases = names.flatMap((name) =>
  (routerDefinition(name).compat ?? ['fixed']).map((compat) => [name, compat] as const),
);
const optionsOf = (name: string, compat: Compat): LanguageModelOptions => ({
  ...tinyConfig,
  moe: { experts: 4, topK: name === 'switch' ? 1 : 2, router: { name }, compat, expert: { hidden: 8 } },
});
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

describe.each(cases)('%s (%s) in a language model', (name, compat) => {
  it('gives the same when blocks are computed again, and trains every parameter of its own', () => {
    using model = new LanguageModel(optionsOf(name, compat), { seed: 1 });
    model.train();
    const plain = pass(model);
    model.zeroGrad();
    model.activationCheckpointing = true;
    expect(pass(model)).toEqual(plain);
    model.zeroGrad();
    const router = [...model.namedParameters().keys()].filter((path) => path.includes('.moe.router.'));
    expect(router.length).toBeGreaterThan(0);
    for (const path of router)
      expect(
        plain.gradients.get(path)?.some((g) => g !== 0),
        path,
      ).toBe(true);
  });

  it('learns a batch by heart, in bf16 too', () => {
    for (const dtype of ['f32', 'bf16'] as const) {
      using model = new LanguageModel(optionsOf(name, compat), { seed: 1, dtype });
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

  it('starts from the seed and the layer', () => {
    const state = (seed: number) => {
      using model = new LanguageModel(optionsOf(name, compat), { seed });
      return [...model.namedParameters()]
        .filter(([path]) => path.includes('.moe.router.'))
        .map(([path, p]) => `${path.replace(/\d+/, '#')} ${p.toArray().join()}`);
    };
    expect(state(1)).toEqual(state(1));
    if (name === 'noisy-top-k' && compat === 'original') return; // zeros
    expect(state(1)).not.toEqual(state(2));
    expect(new Set(state(1)).size).toBeGreaterThan(state(1).length / 3);
  });
});
