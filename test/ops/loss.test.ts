import { describe, expect, it } from 'vitest';
import { codeOf } from '../../ts/native/index.ts';
import { scale } from '../../ts/tensor/elementwise.ts';
import {
  type Dtype,
  defaultDevice,
  memory,
  noGrad,
  resetPeakMemory,
  scope,
  synchronise,
  type Tensor,
  tensor,
} from '../../ts/tensor/index.ts';
import {
  crossEntropy,
  linearCrossEntropy,
  linearLogits,
  tokenLogProbabilities,
} from '../../ts/tensor/loss.ts';
import { gradientCheck } from './gradient-check.ts';
import { distance, sample, withThreads } from './values.ts';

const ids = (list: readonly number[]) => tensor(Int32Array.from(list));
const caught = (fn: () => unknown): unknown => {
  try {
    fn();
  } catch (error) {
    return error;
  }
  return undefined;
};

/** Targets that cover the vocabulary, every third one not counted when `ignore`. */
const targetsFor = (tokens: number, vocabulary: number, ignore: boolean) =>
  Array.from({ length: tokens }, (_, i) => (ignore && i % 3 === 1 ? -1 : (i * 7) % vocabulary));

interface Problem {
  hidden: number[];
  weight: number[];
  bias?: number[] | undefined;
  targets: number[];
  tokens: number;
  d: number;
  vocabulary: number;
}

/** Plain f64 computation of logits, mean loss, log probabilities and all gradients. */
function reference({ hidden, weight, bias, targets, tokens, d, vocabulary }: Problem) {
  const counted = targets.filter((t) => t >= 0).length;
  const logits: number[][] = [];
  const logProbability: number[] = [];
  const dHidden = new Array<number>(tokens * d).fill(0);
  const dWeight = new Array<number>(vocabulary * d).fill(0);
  const dBias = new Array<number>(vocabulary).fill(0);
  let total = 0;
  for (let t = 0; t < tokens; t += 1) {
    const row = Array.from({ length: vocabulary }, (_, v) => {
      let sum = bias?.[v] ?? 0;
      for (let c = 0; c < d; c += 1) sum += hidden[t * d + c]! * weight[v * d + c]!;
      return sum;
    });
    logits.push(row);
    const m = Math.max(...row);
    const lse = m + Math.log(row.reduce((a, v) => a + Math.exp(v - m), 0));
    const target = targets[t]!;
    logProbability.push(target < 0 ? 0 : row[target]! - lse);
    if (target < 0) continue;
    total += lse - row[target]!;
    for (let v = 0; v < vocabulary; v += 1) {
      const g = (Math.exp(row[v]! - lse) - (v === target ? 1 : 0)) / counted;
      dBias[v]! += g;
      for (let c = 0; c < d; c += 1) {
        dHidden[t * d + c]! += g * weight[v * d + c]!;
        dWeight[v * d + c]! += g * hidden[t * d + c]!;
      }
    }
  }
  return { loss: counted ? total / counted : 0, logits, logProbability, dHidden, dWeight, dBias };
}

const sizes: [tokens: number, d: number, vocabulary: number, ignore: boolean, chunk: number][] = [
  [1, 1, 1, false, 0],
  [5, 7, 3, false, 0],
  [33, 20, 50, true, 0],
  [33, 20, 50, false, 8],
  [70, 48, 131, true, 16],
];
const tolerance: Partial<Record<Dtype, number>> = { f64: 1e-13, f32: 3e-6, bf16: 1e-2 };

describe.each(['f64', 'f32', 'bf16'] as const)('in %s', (dtype) => {
  it.each(sizes)(
    'linearCrossEntropy of %d tokens, d %d, vocabulary %d (ignore %s, chunk %d)',
    (tokens, d, vocabulary, ignore, chunk) => {
      scope(() => {
        for (const withBias of [true, false]) {
          const hidden = sample([tokens, d], 1, dtype, true);
          const weight = sample([vocabulary, d], 2, dtype, true);
          const bias = withBias ? sample([vocabulary], 3, dtype, true) : undefined;
          const targets = targetsFor(tokens, vocabulary, ignore);
          const r = reference({
            hidden: hidden.toArray(),
            weight: weight.toArray(),
            bias: bias?.toArray(),
            targets,
            tokens,
            d,
            vocabulary,
          });
          const loss = linearCrossEntropy(hidden, weight, bias, ids(targets), { chunk });
          expect(loss.shape).toEqual([]);
          expect(loss.dtype).toBe(dtype === 'f64' ? 'f64' : 'f32');
          expect(Math.abs(loss.item() - r.loss)).toBeLessThan(
            (dtype === 'f64' ? 1e-13 : 1e-6) * Math.max(1, r.loss),
          );
          scale(loss, 3).backward();
          const close = (t: Tensor | undefined, expected: number[]) => {
            expect(t!.dtype).toBe(dtype === 'f64' ? 'f64' : 'f32');
            const largest = Math.max(1e-3, ...expected.map(Math.abs)) * 3;
            t!.toArray().forEach((v, i) => {
              expect(Math.abs(v - 3 * expected[i]!)).toBeLessThan(tolerance[dtype]! * largest);
            });
            t!.dispose();
          };
          close(hidden.grad, r.dHidden);
          close(weight.grad, r.dWeight);
          if (bias) close(bias.grad, r.dBias);
          expect(noGrad(() => linearCrossEntropy(hidden, weight, bias, ids(targets))).item()).toBe(
            loss.item(),
          );
        }
      });
    },
  );

  it.each(sizes)(
    'crossEntropy, logits and log probabilities: %d tokens, d %d, vocabulary %d (%s, %d)',
    (tokens, d, vocabulary, ignore, chunk) => {
      scope(() => {
        const hidden = sample([tokens, d], 1, dtype);
        const weight = sample([vocabulary, d], 2, dtype);
        const bias = sample([vocabulary], 3, dtype);
        const targets = targetsFor(tokens, vocabulary, ignore);
        const problem = { targets, tokens, d, vocabulary };
        const r = reference({
          ...problem,
          hidden: hidden.toArray(),
          weight: weight.toArray(),
          bias: bias.toArray(),
        });
        const exact = dtype === 'f64' ? 1e-13 : 2e-6;
        const logits = linearLogits(hidden, weight, bias);
        expect(logits.shape).toEqual([tokens, vocabulary]);
        expect(distance(logits.toArray(), r.logits.flat())).toBeLessThan(exact);
        const p = tokenLogProbabilities(hidden, weight, bias, ids(targets), { chunk });
        expect(p.logProbability.dtype).toBe('f64');
        expect(distance(p.logProbability.toArray(), r.logProbability)).toBeLessThan(exact);
        expect(p.greedy.toArray()).toEqual(r.logits.map((row) => row.indexOf(Math.max(...row))));
        expect(Math.abs(crossEntropy(logits, ids(targets)).item() - r.loss)).toBeLessThan(10 * exact);
      });
    },
  );
});

describe('gradients', () => {
  it('of crossEntropy and linearCrossEntropy agree with central differences', () => {
    scope(() => {
      const targets = ids(targetsFor(7, 19, true));
      gradientCheck((x) => crossEntropy(x, targets), [sample([7, 19], 1, 'f64', true)]);
      gradientCheck(
        (h, w, b) => scale(linearCrossEntropy(h, w, b, targets, { chunk: 2 }), 2),
        [sample([7, 5], 1, 'f64', true), sample([19, 5], 2, 'f64', true), sample([19], 3, 'f64', true)],
      );
    });
  });

  it('are made only for what wants them, and add up over two passes', () => {
    scope(() => {
      const hidden = sample([6, 4], 1, 'f32');
      const weight = sample([9, 4], 2, 'f32', true);
      const run = () => linearCrossEntropy(hidden, weight, undefined, ids([0, 1, 2, 3, 4, 5])).backward();
      run();
      const once = weight.grad!.toArray();
      run();
      expect(hidden.grad).toBeUndefined();
      expect(weight.grad!.toArray()).toEqual(once.map((v) => Math.fround(2 * v)));
      weight.grad!.dispose();
    });
  });

  it('of crossEntropy in bf16 come in bf16', () => {
    scope(() => {
      const x = sample([3, 40], 1, 'bf16', true);
      const y = scale(x, 1);
      crossEntropy(y, ids([1, -1, 39])).backward();
      const g = x.grad!.toArray();
      expect(g.slice(40, 80)).toEqual(new Array(40).fill(0));
      expect(Math.abs(g.slice(0, 40).reduce((a, b) => a + b, 0))).toBeLessThan(5e-3);
      x.grad!.dispose();
    });
  });
});

describe('what does not count', () => {
  it('gives loss 0 and zero gradients when nothing does', () => {
    scope(() => {
      for (const tokens of [0, 3]) {
        const hidden = sample([tokens, 4], 1, 'f32', true);
        const weight = sample([9, 4], 2, 'f32', true);
        const bias = sample([9], 2, 'f32', true);
        const loss = linearCrossEntropy(hidden, weight, bias, ids(new Array(tokens).fill(-1)));
        expect(loss.item()).toBe(0);
        loss.backward();
        for (const t of [hidden, weight, bias]) {
          expect(t.grad!.toArray().every((v) => v === 0)).toBe(true);
          t.grad!.dispose();
        }
        expect(crossEntropy(sample([tokens, 9]), ids(new Array(tokens).fill(-1))).item()).toBe(0);
      }
    });
  });

  it('lets even a NaN in an ignored row pass by', () => {
    scope(() => {
      const hidden = tensor([1, 2, Number.NaN, Number.NaN], [2, 2], { requiresGrad: true });
      const weight = sample([5, 2], 2, 'f32', true);
      const loss = linearCrossEntropy(hidden, weight, undefined, ids([3, -1]));
      loss.backward();
      expect(Number.isFinite(loss.item())).toBe(true);
      expect(weight.grad!.toArray().every(Number.isFinite)).toBe(true);
      expect(hidden.grad!.toArray().slice(2)).toEqual([0, 0]);
      hidden.grad!.dispose();
      weight.grad!.dispose();
    });
  });
});

describe('determinism', () => {
  it.each(['f32', 'bf16'] as const)(
    'a token alone has the bits it has in a batch, for any chunk and threads (%s)',
    (dtype) => {
      scope(() => {
        const [tokens, d, vocabulary] = [45, 64, 300];
        const hidden = sample([tokens, d], 1, dtype);
        const weight = sample([vocabulary, d], 2, dtype);
        const targets = targetsFor(tokens, vocabulary, false);
        const run = (chunk: number) =>
          tokenLogProbabilities(hidden, weight, undefined, ids(targets), { chunk }).logProbability.toArray();
        const all = withThreads(1, () => run(0));
        for (const chunk of [1, 7, 45]) expect(withThreads(2, () => run(chunk))).toEqual(all);
        const data = hidden.toArray();
        for (const t of [0, 17, 44]) {
          const row = tensor(data.slice(t * d, t * d + d), [1, d], { dtype });
          const alone = tokenLogProbabilities(row, weight, undefined, ids([targets[t]!]));
          expect(alone.logProbability.item()).toBe(all[t]);
          const loss = linearCrossEntropy(row, weight, undefined, ids([targets[t]!])).item();
          expect(loss).toBe(Math.fround(-all[t]!));
        }
      });
    },
  );

  it.each(['f32', 'bf16'] as const)('gradients have the same bits with one thread and two (%s)', (dtype) => {
    scope(() => {
      const targets = ids(targetsFor(60, 500, true));
      const run = () => {
        const hidden = sample([60, 33], 1, dtype, true);
        const weight = sample([500, 33], 2, dtype, true);
        const bias = sample([500], 3, dtype, true);
        const loss = linearCrossEntropy(hidden, weight, bias, targets, { chunk: 16 });
        loss.backward();
        return [
          loss.item(),
          ...[hidden, weight, bias].flatMap((t) => {
            const g = t.grad!.toArray();
            t.grad!.dispose();
            return g;
          }),
        ];
      };
      const one = withThreads(1, run);
      const two = withThreads(2, run);
      expect(
        Buffer.from(Float64Array.from(two).buffer).equals(Buffer.from(Float64Array.from(one).buffer)),
      ).toBe(true);
    });
  });
});

describe('limits', () => {
  it('never holds all logits', () => {
    scope(() => {
      const [tokens, d, vocabulary] = [512, 8, 4000];
      const hidden = sample([tokens, d], 1, 'f32');
      const weight = sample([vocabulary, d], 2, 'f32');
      const targets = ids(targetsFor(tokens, vocabulary, false));
      resetPeakMemory();
      const before = memory().peakBytes;
      linearCrossEntropy(hidden, weight, undefined, targets, { chunk: 32 });
      expect(memory().peakBytes - before).toBeLessThan((tokens * vocabulary * 4) / 4);
    });
  });

  it('stays finite for large logits and takes the lowest index on ties', () => {
    scope(() => {
      const hidden = tensor([1000, -1000], [2, 1]);
      const weight = tensor([1, 1, -1], [3, 1]);
      const p = tokenLogProbabilities(hidden, weight, undefined, ids([1, 2]));
      expect(p.greedy.toArray()).toEqual([0, 2]);
      expect(p.logProbability.toArray()[0]).toBeCloseTo(-Math.LN2, 12);
      expect(linearCrossEntropy(hidden, weight, undefined, ids([2, 0])).item()).toBeCloseTo(2000, 0);
    });
  });

  it('refuses bad targets, shapes and dtypes', () => {
    scope(() => {
      const hidden = sample([2, 4], 1, 'f32', true);
      const weight = sample([9, 4], 2, 'f32', true);
      for (const bad of [9, -2]) {
        for (const fn of [
          () => linearCrossEntropy(hidden, weight, undefined, ids([0, bad])),
          () => crossEntropy(sample([2, 9]), ids([0, bad])),
          () => tokenLogProbabilities(hidden, weight, undefined, ids([0, bad])),
        ]) {
          const error = caught(() => {
            noGrad<unknown>(fn);
            synchronise(); // a device finds it while the host goes on
          });
          expect(codeOf(error)).toBe('ERR_LIBMOE_ARGUMENT');
          expect(String(error)).toContain(
            defaultDevice() === 'cpu' ? `got ${bad} at position 1` : 'position 1 is not',
          );
        }
      }
      expect(
        codeOf(caught(() => linearCrossEntropy(hidden, sample([9, 5], 1, 'f32'), undefined, ids([0, 1])))),
      ).toBe('ERR_LIBMOE_SHAPE');
      expect(codeOf(caught(() => linearCrossEntropy(hidden, weight, undefined, ids([0]))))).toBe(
        'ERR_LIBMOE_SHAPE',
      );
      expect(codeOf(caught(() => linearCrossEntropy(hidden, sample([9, 4]), undefined, ids([0, 1]))))).toBe(
        'ERR_LIBMOE_DTYPE',
      );
      expect(codeOf(caught(() => linearLogits(hidden, weight, sample([8], 1, 'f32'))))).toBe(
        'ERR_LIBMOE_SHAPE',
      );
    });
  });
});
