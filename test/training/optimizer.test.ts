import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { readSafetensors, writeSafetensors } from '../../ts/storage/index.ts';
import { type Dtype, keep, parameter, scope, type Tensor, tensor } from '../../ts/tensor/index.ts';
import { type OptimizerOptions, optimizer } from '../../ts/training/index.ts';
import { readOptimizerState, writeOptimizerState } from '../../ts/training/optimizer-state.ts';
import { temporaryFolder } from '../storage/temporary.ts';

const root = temporaryFolder();
let folders = 0;
const folder = () => {
  const path = join(root, String(folders++));
  mkdirSync(path);
  return path;
};

function withParameters(
  dtype: Dtype,
  test: (parameters: Map<string, Tensor>, gradients: (...values: number[][]) => void) => void,
): void {
  const parameters = new Map([
    ['block.weight', parameter(tensor([1, -2, 3, 0.5], [2, 2], { dtype }))],
    ['block.bias', parameter(tensor([0.25, -1], [2], { dtype }))],
  ]);
  const gradients = (...values: number[][]) => {
    for (const [i, p] of [...parameters.values()].entries()) {
      p.grad?.dispose();
      p.grad = values[i] && keep(tensor(values[i], p.shape, { dtype: dtype === 'f64' ? 'f64' : 'f32' }));
    }
  };
  try {
    test(parameters, gradients);
  } finally {
    for (const p of parameters.values()) {
      p.grad?.dispose();
      p.dispose();
    }
  }
}

/** AdamW of Loshchilov & Hutter (2019), algorithm 2, on one number. */
function adamw(values: number, gradients: number[], rate: number, decay: number): number {
  let [p, m, v] = [values, 0, 0];
  for (const [i, g] of gradients.entries()) {
    m = 0.9 * m + 0.1 * g;
    v = 0.999 * v + 0.001 * g * g;
    p -= rate * decay * p;
    p -= (rate * (m / (1 - 0.9 ** (i + 1)))) / (Math.sqrt(v / (1 - 0.999 ** (i + 1))) + 1e-8);
  }
  return p;
}

describe('optimizer', () => {
  it('is AdamW, with decay on everything by default', () => {
    withParameters('f64', (parameters, gradients) => {
      const adam = optimizer(parameters, { name: 'adamw', weightDecay: 0.1 });
      for (let step = 1; step <= 3; step += 1) {
        gradients([step, -1, 0.5, 2], [1, step]);
        adam.step(0.01);
      }
      const [weight, bias] = [...parameters.values()].map((p) => p.toArray());
      expect(weight![0]).toBeCloseTo(adamw(1, [1, 2, 3], 0.01, 0.1), 12);
      expect(weight![3]).toBeCloseTo(adamw(0.5, [2, 2, 2], 0.01, 0.1), 12);
      expect(bias![1]).toBeCloseTo(adamw(-1, [1, 2, 3], 0.01, 0.1), 12);
      adam.dispose();
    });
  });

  it('leaves named parameters undecayed, scales rates by group, freezes', () => {
    const cases: [Partial<OptimizerOptions>, number, number][] = [
      [{ excludeFromDecay: ['*.bias'] }, 0.1, 0],
      [{ groups: [{ match: '*.bias', weightDecay: 0.3 }] }, 0.1, 0.3],
    ];
    for (const [options, weightDecay, biasDecay] of cases) {
      withParameters('f64', (parameters, gradients) => {
        const adam = optimizer(parameters, {
          name: 'adamw',
          weightDecay: 0.1,
          ...options,
        } as OptimizerOptions);
        gradients([1, 1, 1, 1], [1, 1]);
        adam.step(0.01);
        const [weight, bias] = [...parameters.values()].map((p) => p.toArray());
        expect(weight![0]).toBeCloseTo(adamw(1, [1], 0.01, weightDecay), 12);
        expect(bias![0]).toBeCloseTo(adamw(0.25, [1], 0.01, biasDecay), 12);
        adam.dispose();
      });
    }
    withParameters('f64', (parameters, gradients) => {
      const groups = [
        { match: 'block.w*', learningRateScale: 0 },
        { match: 'block.*', learningRateScale: 10 },
      ];
      const adam = optimizer(parameters, { name: 'adamw', weightDecay: 0, groups });
      gradients([1, 1, 1, 1], [1, 1]);
      adam.step(0.01);
      expect(parameters.get('block.weight')!.toArray()).toEqual([1, -2, 3, 0.5]);
      expect(parameters.get('block.bias')!.toArray()[0]).toBeCloseTo(adamw(0.25, [1], 0.1, 0), 12);
      adam.dispose();
    });
  });

  it('counts the updates of each parameter: one without a gradient is not touched', () => {
    withParameters('f64', (parameters, gradients) => {
      const adam = optimizer(parameters, { name: 'adamw', weightDecay: 0.1 });
      gradients([1, 1, 1, 1]);
      adam.step(0.01);
      adam.step(0.01);
      expect(parameters.get('block.bias')!.toArray()).toEqual([0.25, -1]);
      gradients([1, 1, 1, 1], [2, 2]);
      adam.step(0.01);
      expect([...adam.steps.values()]).toEqual([3, 1]);
      expect(parameters.get('block.bias')!.toArray()[0]).toBeCloseTo(adamw(0.25, [2], 0.01, 0.1), 12);
      expect(parameters.get('block.weight')!.toArray()[0]).toBeCloseTo(adamw(1, [1, 1, 1], 0.01, 0.1), 12);
      adam.dispose();
    });
  });

  it('scales gradients on the way, and is SGD with momentum', () => {
    withParameters('f64', (parameters, gradients) => {
      const sgd = optimizer(parameters, { name: 'sgd', momentum: 0.9 });
      using half = tensor([0.5], undefined, { dtype: 'f64' });
      gradients([2, 0, 0, 0], [0, 0]);
      sgd.step(0.1, half);
      expect(parameters.get('block.weight')!.toArray()[0]).toBeCloseTo(1 - 0.1, 12);
      sgd.step(0.1, half);
      expect(parameters.get('block.weight')!.toArray()[0]).toBeCloseTo(1 - 0.1 - 0.1 * 1.9, 12);
      sgd.dispose();
    });
  });

  it('keeps f32 masters of bf16 parameters: small updates add up', () => {
    withParameters('bf16', (parameters, gradients) => {
      const adam = optimizer(parameters, { name: 'adamw', weightDecay: 0 });
      expect(Object.keys(adam.slots.get('block.weight')!).sort()).toEqual([
        'firstMoment',
        'master',
        'secondMoment',
      ]);
      gradients([1, 1, 1, 1], [1, 1]);
      // Each update is 0.001, a quarter of the distance between bf16 neighbours above 1.
      for (let step = 0; step < 16; step += 1) adam.step(0.001);
      expect(adam.slots.get('block.weight')!.master!.toArray()[0]).toBeCloseTo(1 - 0.016, 5);
      expect(parameters.get('block.weight')!.toArray()[0]).toBeCloseTo(0.984375, 8);
      adam.dispose();
    });
  });

  it.each([
    [{ name: 'adam' }, 'ERR_LIBMOE_CONFIG'],
    [{ name: 'adamw', beta1: 1 }, 'beta1'],
    [{ name: 'adamw', momentum: 0.9 }, 'momentum'],
    [{ name: 'adamw', excludeFromDecay: ['*.bais'] }, 'the pattern "*.bais" fits no trained parameter'],
    [{ name: 'sgd', groups: [{ match: 'block.weight.' }] }, 'fits no trained parameter'],
  ])('refuses %j', (options, message) => {
    withParameters('f32', (parameters) => {
      expect(() => optimizer(parameters, options as OptimizerOptions)).toThrow(message);
    });
  });

  it('refuses to train nothing, integers, or at a rate that is no number', () => {
    withParameters('f32', (parameters) => {
      const adam = optimizer(parameters, { name: 'adamw' });
      expect(() => adam.step(Number.NaN)).toThrow('ERR_LIBMOE_ARGUMENT');
      adam.dispose();
      for (const p of parameters.values()) p.requiresGrad = false;
      expect(() => optimizer(parameters, { name: 'adamw' })).toThrow('nothing to train');
    });
    scope(() => {
      const ids = tensor([1], [1], { dtype: 'i32', requiresGrad: true });
      expect(() => optimizer(new Map([['ids', ids]]), { name: 'adamw' })).toThrow('ERR_LIBMOE_DTYPE');
    });
  });
});

describe('optimizer state on disk', () => {
  it.each(['f32', 'bf16'] as const)('comes back with the same bits (%s)', (dtype) => {
    withParameters(dtype, (parameters, gradients) => {
      const path = folder();
      const adam = optimizer(parameters, { name: 'adamw' });
      gradients([1, -0.3, 0.7, 2], [0.1, 3]);
      adam.step(0.01);
      writeOptimizerState(path, adam);
      const again = optimizer(parameters, { name: 'adamw' });
      readOptimizerState(path, again);
      expect([...again.steps]).toEqual([...adam.steps]);
      for (const [name, slots] of adam.slots) {
        for (const [slot, kept] of Object.entries(slots)) {
          expect(again.slots.get(name)![slot]!.readSync(), `${name} ${slot}`).toEqual(kept.readSync());
        }
      }
      adam.dispose();
      again.dispose();
    });
  });

  it('is put together from the shards of several ranks, cut anywhere', () => {
    withParameters('f32', (parameters, gradients) => {
      const [whole, cut] = [folder(), folder()];
      const adam = optimizer(parameters, { name: 'adamw' });
      gradients([1, -0.3, 0.7, 2], [0.1, 3]);
      adam.step(0.01);
      writeOptimizerState(whole, adam);
      const shard = (number: string, from: number, to: number, names: string[]) =>
        scope(() => {
          const layout: Record<string, unknown> = {};
          const parts = new Map<string, Tensor>();
          for (const [entry, full] of readSafetensors(join(whole, 'optimizer-00000.safetensors'))) {
            const [slot, name] = entry.split('/') as [string, string];
            if (!names.includes(name)) continue;
            const range = name === 'block.bias' ? [0, 2] : [from, to];
            parts.set(entry, tensor(full.toArray().slice(range[0], range[1])));
            layout[entry] = { parameter: name, slot, shape: full.shape, range };
          }
          const steps = JSON.stringify(Object.fromEntries(names.map((name) => [name, 1])));
          const metadata = { optimizer: 'adamw', steps, layout: JSON.stringify(layout) };
          writeSafetensors(join(cut, `optimizer-${number}.safetensors`), parts, { metadata });
        });
      shard('00000', 0, 3, ['block.weight']);
      const again = optimizer(parameters, { name: 'adamw' });
      expect(() => readOptimizerState(cut, again)).toThrow(/missing: firstMoment\/block\.bias/);
      shard('00001', 2, 4, ['block.weight', 'block.bias']);
      expect(() => readOptimizerState(cut, again)).toThrow('overlap or leave a gap');
      shard('00001', 3, 4, ['block.weight', 'block.bias']);
      readOptimizerState(cut, again);
      for (const [name, slots] of adam.slots) {
        for (const [slot, kept] of Object.entries(slots)) {
          expect(again.slots.get(name)![slot]!.readSync()).toEqual(kept.readSync());
        }
      }
      adam.dispose();
      again.dispose();
    });
  });

  it('refuses what belongs to another optimizer or another model', () => {
    withParameters('f32', (parameters) => {
      const path = folder();
      const adam = optimizer(parameters, { name: 'adamw' });
      writeOptimizerState(path, adam);
      const sgd = optimizer(parameters, { name: 'sgd', momentum: 0.9 });
      expect(() => readOptimizerState(path, sgd)).toThrow(
        'holds the state of the optimizer "adamw", this run uses "sgd"',
      );
      const fewer = optimizer(new Map([...parameters].slice(0, 1)), { name: 'adamw' });
      expect(() => readOptimizerState(path, fewer)).toThrow(/unexpected: .*block\.bias/);
      const other = parameter(tensor([1, 2, 3, 4], [4, 1]));
      const reshaped = optimizer(new Map([...parameters, ['block.weight', other]]), { name: 'adamw' });
      expect(() => readOptimizerState(path, reshaped)).toThrow(
        'has the shape [2, 2], this model needs [4, 1]',
      );
      expect(() => readOptimizerState(folder(), adam)).toThrow('has no optimizer-*.safetensors');
      const broken = folder();
      writeFileSync(join(broken, 'optimizer-00000.safetensors'), 'no');
      expect(() => readOptimizerState(broken, adam)).toThrow('ERR_LIBMOE_CHECKPOINT');
      for (const each of [adam, sgd, fewer, reshaped, other]) each.dispose();
    });
  });
});
