import { describe, expect, it } from 'vitest';
import type { LanguageModelOptions } from '../../ts/models/language/index.ts';
import { packSequences } from '../../ts/models/language/index.ts';
import { noGrad } from '../../ts/tensor/index.ts';
import { optimizer, schedule, train } from '../../ts/training/index.ts';
import { leaveToCollector } from '../collected.ts';
import { tinyConfig, tinyModel, tinyMoe } from '../models/tiny.ts';
import { ToyData } from './toy.ts';

leaveToCollector();

/** Trains two steps, changes one parameter, and returns what the third says. */
async function third(
  config: LanguageModelOptions,
  parameter: RegExp,
  value: number,
  change: { checkpointing?: boolean; microBatches?: number } = {},
): Promise<string> {
  const model = tinyModel({ ...config, vocabularySize: 64 });
  model.activationCheckpointing = change.checkpointing ?? false;
  const adam = optimizer(model.namedParameters(), { name: 'adamw' });
  try {
    const training = train(model, {
      data: new ToyData(),
      optimizer: adam,
      schedule: schedule({ name: 'constant', learningRate: 1e-3 }, 4),
      steps: 4,
      microBatches: change.microBatches ?? 1,
    });
    for await (const { step } of training) {
      if (step < 2) continue;
      const [, target] = [...model.namedParameters()].find(([name]) => parameter.test(name))!;
      target.write(target.toArray().fill(value));
    }
    return 'nothing';
  } catch (error) {
    return (error as Error).message;
  } finally {
    adam.dispose();
    model.dispose();
  }
}

describe('the guard against NaN names the step and the first layer', () => {
  it.each([
    ['a dense block', tinyConfig, /^blocks\.1\.feedForward\.down/, {}],
    ['an attention', tinyConfig, /^blocks\.1\.attention\.query/, { microBatches: 2 }],
    ['a recomputed block', tinyConfig, /^blocks\.1\.feedForward\.down/, { checkpointing: true }],
    ['an expert', tinyMoe, /^blocks\.1\.moe\.experts\.down/, {}],
  ] as const)('a NaN in %s', async (_, config, parameter, change) => {
    const message = await third(config, parameter, Number.NaN, change);
    expect(message).toMatch(/^ERR_LIBMOE_NOT_FINITE: step 3: parameter blocks\.1\.\S+ holds a NaN/);
    expect(message).toMatch(/; the first output that is not finite is that of layer 1\./);
  });

  it('an overflow of finite weights', async () => {
    const message = await third(tinyConfig, /^blocks\.1\.feedForward\.down/, 1e38);
    expect(message).toMatch(
      /^ERR_LIBMOE_NOT_FINITE: step 3: the cross entropy is NaN; the first output that is not finite is that of layer 1\./,
    );
  });

  it('a NaN that a router meets before there is a loss', async () => {
    const inside = await third(tinyMoe, /^blocks\.1\.attention\.query/, Number.NaN);
    expect(inside).toMatch(
      /^ERR_LIBMOE_NOT_FINITE: step 3: parameter blocks\.1\.attention.*; MoE layer 1: the logits of token 0 hold NaN/,
    );
    const before = await third(tinyMoe, /^blocks\.0\.attention\.query/, Number.NaN, { microBatches: 2 });
    expect(before).toMatch(/step 3: .*the first output that is not finite is that of layer 0; MoE layer 1: /);
  });

  it('a router outside training names its layer', () => {
    using model = tinyModel(tinyMoe);
    const weight = model.blocks[1]!.moe!.router.namedParameters().get('weight')!;
    weight.write(weight.toArray().fill(Number.NaN));
    expect(() => noGrad(() => model.forward(packSequences([[1, 2, 3]])))).toThrow(
      /^ERR_LIBMOE_NOT_FINITE: MoE layer 1: the logits of token 0/,
    );
  });
});
