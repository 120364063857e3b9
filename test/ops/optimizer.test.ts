import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { codeOf } from '../../ts/native/index.ts';
import { type Dtype, full, scope, type Tensor, tensor, zeros } from '../../ts/tensor/index.ts';
import { adamwStep, clipFactor, globalNorm, nonFinite, sgdStep } from '../../ts/tensor/optimizer.ts';
import { sample, values, withThreads } from './values.ts';

interface Golden {
  shapes: number[][];
  learningRates: number[];
  initial: number[][];
  gradients: number[][][];
  cases: Record<
    string,
    {
      weightDecay: number[];
      beta1?: number;
      beta2?: number;
      epsilon?: number;
      momentum?: number;
      nesterov?: boolean;
      parameters: number[][];
    }
  >;
}
const golden = JSON.parse(
  readFileSync(new URL('../golden/optimizer/steps.json', import.meta.url), 'utf8'),
) as Golden;

const caught = (fn: () => unknown): unknown => {
  try {
    fn();
  } catch (error) {
    return error;
  }
  return undefined;
};

/** Runs a golden case in `dtype`; gradients come multiplied by 4 and are scaled back. */
function run(name: string, dtype: Dtype): number[][] {
  const c = golden.cases[name]!;
  const state = (like: readonly Tensor[]) =>
    like.map((p) => zeros(p.shape, { dtype: dtype === 'f64' ? 'f64' : 'f32' }));
  const parameters = golden.initial.map((v, i) => tensor(v, golden.shapes[i], { dtype }));
  const masters = dtype === 'bf16' ? golden.initial.map((v, i) => tensor(v, golden.shapes[i])) : undefined;
  const [first, second] = [state(parameters), state(parameters)];
  golden.learningRates.forEach((learningRate, step) => {
    scope(() => {
      const gradients = golden.gradients[step]!.map((g, i) =>
        tensor(
          g.map((v) => 4 * v),
          golden.shapes[i],
          { dtype: dtype === 'f64' ? 'f64' : 'f32' },
        ),
      );
      const lists = { parameters, gradients, ...(masters && { masters }) };
      const options = { ...c, learningRate, gradientScale: 0.25 };
      if (name.startsWith('adamw'))
        adamwStep({ ...lists, firstMoments: first, secondMoments: second }, { ...options, step: step + 1 });
      else sgdStep({ ...lists, momenta: first }, options);
    });
  });
  if (masters) {
    // The parameter is its master, rounded.
    parameters.forEach((p, i) => {
      expect(p.toArray()).toEqual(tensor(masters[i]!.toArray(), p.shape, { dtype: 'bf16' }).toArray());
    });
    return masters.map((m) => m.toArray());
  }
  return parameters.map((p) => p.toArray());
}

describe.each(Object.keys(golden.cases))('%s', (name) => {
  it.each(['f32', 'f64', 'bf16'] as const)('agrees with PyTorch after twenty steps in %s', (dtype) => {
    scope(() => {
      run(name, dtype).forEach((p, i) => {
        const expected = golden.cases[name]!.parameters[i]!;
        p.forEach((v, j) => {
          expect(Math.abs(v - expected[j]!)).toBeLessThan(1e-6 * Math.max(1, Math.abs(expected[j]!)));
        });
      });
    });
  });
});

describe('adamwStep', () => {
  it('gives the same bits with one thread and two, and alone or among others', () => {
    scope(() => {
      const n = 40_001;
      const step = (count: number) =>
        scope(() => {
          const make = (seed: number) =>
            Array.from({ length: count }, (_, i) => tensor(values(n, seed + i), [n], { dtype: 'f32' }));
          const parameters = make(1);
          adamwStep(
            {
              parameters,
              gradients: make(20),
              firstMoments: make(30),
              secondMoments: Array.from({ length: count }, () => full([n], 0.5)),
            },
            { learningRate: 1e-2, step: 3, weightDecay: 0.1 },
          );
          return Buffer.from((parameters[0]!.readSync() as Float32Array).buffer);
        });
      const one = withThreads(1, () => step(1));
      expect(withThreads(2, () => step(1)).equals(one)).toBe(true);
      expect(withThreads(2, () => step(3)).equals(one)).toBe(true);
    });
  });

  it('reads bf16 gradients and accepts no parameters at all', () => {
    scope(() => {
      const parameter = tensor([1, 2], [2], { dtype: 'bf16' });
      const gradient = tensor([1, -1], [2], { dtype: 'bf16' });
      const lists = {
        parameters: [parameter],
        gradients: [gradient],
        firstMoments: [zeros([2])],
        secondMoments: [zeros([2])],
      };
      adamwStep(lists, { learningRate: 0.5, step: 1 });
      expect(parameter.toArray()).toEqual([0.5, 2.5]);
      adamwStep(
        { parameters: [], gradients: [], firstMoments: [], secondMoments: [] },
        { learningRate: 1, step: 1 },
      );
    });
  });

  it('refuses bad lists and options and then changes nothing', () => {
    scope(() => {
      const p = tensor([1, 2, 3]);
      const lists = (n = 3, dtype: Dtype = 'f32') => ({
        parameters: [p],
        gradients: [full([n], 1, { dtype })],
        firstMoments: [zeros([3])],
        secondMoments: [zeros([3])],
      });
      const options = { learningRate: 0.1, step: 1 };
      const cases: [string, () => void][] = [
        ['ERR_LIBMOE_SHAPE', () => adamwStep(lists(4), options)],
        ['ERR_LIBMOE_DTYPE', () => adamwStep(lists(3, 'f64'), options)],
        ['ERR_LIBMOE_ARGUMENT', () => adamwStep({ ...lists(), gradients: [] }, options)],
        [
          'ERR_LIBMOE_ARGUMENT',
          () => adamwStep({ ...lists(), masters: [] as never[], secondMoments: [] }, options),
        ],
        [
          'ERR_LIBMOE_ARGUMENT',
          () => sgdStep({ parameters: [p, p], gradients: [zeros([3]), zeros([3])] }, { learningRate: 0.1 }),
        ],
        ['ERR_LIBMOE_ARGUMENT', () => adamwStep(lists(), { ...options, step: 0 })],
        ['ERR_LIBMOE_ARGUMENT', () => adamwStep(lists(), { ...options, beta1: 1 })],
        ['ERR_LIBMOE_ARGUMENT', () => adamwStep(lists(), { ...options, learningRate: Number.NaN })],
        ['ERR_LIBMOE_ARGUMENT', () => adamwStep(lists(), { ...options, weightDecay: [0, 0] })],
        ['ERR_LIBMOE_ARGUMENT', () => adamwStep(lists(), { ...options, gradientScale: Infinity })],
        ['ERR_LIBMOE_ARGUMENT', () => sgdStep(lists(), { learningRate: 0.1, momentum: 0.9 })],
        ['ERR_LIBMOE_ARGUMENT', () => sgdStep(lists(), { learningRate: 0.1, nesterov: true })],
      ];
      for (const [code, fn] of cases) expect(codeOf(caught(fn))).toBe(code);
      expect(p.toArray()).toEqual([1, 2, 3]);
      const half = tensor([1], [1], { dtype: 'bf16' });
      expect(
        codeOf(
          caught(() =>
            sgdStep(
              { parameters: [half], gradients: [zeros([1])], masters: [undefined] },
              { learningRate: 1 },
            ),
          ),
        ),
      ).toBe('ERR_LIBMOE_ARGUMENT');
    });
  });
});

describe('globalNorm and nonFinite', () => {
  it('sums squares of all tensors in f64', () => {
    scope(() => {
      const xs = [
        sample([1000, 33], 1, 'f32'),
        sample([17], 2, 'f64'),
        sample([5000], 3, 'bf16'),
        zeros([0]),
      ];
      const expected = Math.sqrt(xs.flatMap((x) => x.toArray()).reduce((a, v) => a + v * v, 0));
      const normOf = (list: readonly Tensor[]): number => globalNorm(list).item();
      const one = withThreads(1, () => normOf(xs));
      expect(Math.abs(one / expected - 1)).toBeLessThan(1e-13);
      expect(withThreads(2, () => normOf(xs))).toBe(one);
      expect(normOf([])).toBe(0);
      expect(normOf([full([4], 2 ** 100)])).toBe(2 ** 101); // its square does not fit into f32
    });
  });

  it('gives the factor of clipping, NaN where anything is not finite, and such a step changes nothing', () => {
    scope(() => {
      const gradient = tensor([3, 4]);
      const factorOf = (losses: number[], limit?: number, from = gradient): number =>
        clipFactor(globalNorm([from]), [tensor(losses)], limit).item();
      expect(factorOf([1], 1)).toBe(1 / (5 + 1e-6));
      expect(factorOf([1], 10)).toBe(1);
      expect(factorOf([1])).toBe(1);
      expect(factorOf([1, Number.NaN], 1)).toBeNaN();
      expect(factorOf([Infinity])).toBeNaN();
      expect(factorOf([1], 1, tensor([1, Infinity]))).toBeNaN();
      expect(caught(() => factorOf([1], 0))).toMatchObject({ code: 'ERR_LIBMOE_ARGUMENT' });
      const state = () => ({ parameters: [tensor([1, 2])], gradients: [gradient] });
      for (const [factor, changes] of [
        [0.5, true],
        [Number.NaN, false],
      ] as const) {
        const adam = { ...state(), firstMoments: [zeros([2])], secondMoments: [zeros([2])] };
        const options = { learningRate: 0.5, factor: tensor([factor], undefined, { dtype: 'f64' }) };
        adamwStep(adam, { ...options, step: 1 });
        expect(adam.parameters[0]!.toArray()[0] !== 1).toBe(changes);
        expect(adam.firstMoments[0]!.toArray()[0] !== 0).toBe(changes);
        const sgd = state();
        sgdStep(sgd, options);
        expect(sgd.parameters[0]!.toArray()).toEqual(changes ? [1 - 0.75, 2 - 1] : [1, 2]);
      }
    });
  });

  it('finds the first tensor with a NaN or an infinity', () => {
    scope(() => {
      const clean = sample([40_000], 1, 'f32');
      for (const dtype of ['f32', 'bf16', 'f64'] as const)
        for (const bad of [Number.NaN, Infinity, -Infinity]) {
          const data = values(20_000, 2);
          data[19_999] = bad;
          const dirty = tensor(data, undefined, { dtype });
          expect(nonFinite([clean, zeros([0]), dirty, dirty])).toBe(2);
        }
      expect(nonFinite([clean, full([3], 3e38)])).toBe(-1);
      expect(nonFinite([])).toBe(-1);
    });
  });
});
