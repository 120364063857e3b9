import { describe, expect, it } from 'vitest';
import { z } from 'zod';
import { balanceModes, routerDefinition, routerNames } from '../../ts/moe/index.ts';
import { tensor } from '../../ts/tensor/index.ts';
import { leaveToCollector } from '../collected.ts';
import { checkGradients } from './routers/gradients.ts';
import { rowsOf, softmaxOf, waves } from './routers/plain-numbers.ts';
import { made, pass } from './routers/routed.ts';

// Every loss with every router that is registered: value against a few lines of arithmetic on the router's logits, gradient against slopes in f64.
leaveToCollector();

const hasLosses = (name: string): boolean => {
  const { options } = routerDefinition(name);
  return options instanceof z.ZodObject && 'balance' in options.shape;
};
const place = { experts: 4, topK: 1 };
const offsets = [0, 4, 7];
const mean = (values: number[]): number => values.reduce((a, v) => a + v, 0) / values.length;
const negativeEntropy = (p: number[]): number => p.reduce((a, v) => a + (v > 0 ? v * Math.log(v) : 0), 0);
const meanRow = (rows: number[][]): number[] => rows[0]!.map((_, c) => mean(rows.map((row) => row[c]!)));

/** The losses that are the same for every router, from its logits. */
function expected(mode: string, logits: number[][]): number {
  const p = logits.map(softmaxOf);
  const sequences = [p.slice(0, 4), p.slice(4)];
  if (mode === 'step') return mean(p.map(negativeEntropy));
  if (mode === 'global') return negativeEntropy(meanRow(p));
  if (mode === 'z') return mean(logits.map((row) => Math.log(row.reduce((a, v) => a + Math.exp(v), 0)) ** 2));
  return mean(sequences.map((rows) => negativeEntropy(meanRow(rows))));
}

/** One loss of a router, and how strong it is at step 5 of a coefficient that rises to 1 within 10 steps. */
function lossOf(name: string, options: object, loss: 'balance' | 'routerZ') {
  using router = made(name, place, options);
  using sequenceOffsets = tensor(Int32Array.from(offsets));
  const given = { training: true, sequenceOffsets, step: 5, totalSteps: 20, seed: 1 };
  return pass(router, waves(7), given, (routing, losses) => {
    const outputs = routing.logits!.shape[1]!;
    const { value, coefficient } = losses.get(loss)!;
    return { value: value.item(), coefficient, logits: rowsOf(routing.logits!.toArray(), outputs) };
  });
}

const rising = { kind: 'linear', from: 0, to: 1, steps: 10 };

describe.each(routerNames().filter(hasLosses))('%s', (name) => {
  it.each(balanceModes.filter((mode) => mode !== 'none'))(
    'takes the balance loss %s on a schedule',
    (mode) => {
      const options = { balance: mode, balanceCoefficient: rising, zCoefficient: 0 };
      const { value, coefficient, logits } = lossOf(name, options, 'balance');
      expect(coefficient).toBe(0.5);
      // The others depend on the method's own choices: its own tests have their values.
      if (mode !== 'switch' && mode !== 'standard') expect(value).toBeCloseTo(expected(mode, logits), 9);
      else expect(value).toBeGreaterThan(0);
      using router = made(name, place, options);
      using sequenceOffsets = tensor(Int32Array.from(offsets));
      const context = { training: true, sequenceOffsets, step: 5, totalSteps: 20, seed: 1 };
      checkGradients(router, waves(7), context);
    },
  );

  it('takes the z-loss on a schedule', () => {
    const options = { balance: 'none', zCoefficient: rising };
    const { value, coefficient, logits } = lossOf(name, options, 'routerZ');
    expect(coefficient).toBe(0.5);
    expect(value).toBeCloseTo(expected('z', logits), 9);
  });
});

it('a router without scores refuses them, and says why', () => {
  const without = routerNames().filter((name) => !hasLosses(name));
  expect(without.length).toBeGreaterThan(0);
  for (const name of without)
    for (const options of [{ balance: 'switch' }, { zCoefficient: 1 }])
      expect(() => made(name, place, options)).toThrow(
        new RegExp(
          `ERR_LIBMOE_CONFIG: router "${name}" takes no ${Object.keys(options)[0]}: it has no scores`,
        ),
      );
});
