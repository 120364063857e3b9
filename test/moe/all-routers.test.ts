import { afterAll, describe, expect, it } from 'vitest';
import { type Compat, checkpointed, ForwardContext, MoeLayer, routerDefinition } from '../../ts/moe/index.ts';
import { Module } from '../../ts/nn/module.ts';
import { add, scale, square } from '../../ts/tensor/elementwise.ts';
import { parameter, scope, setThreads, type Tensor, tensor, threads } from '../../ts/tensor/index.ts';
import { mean } from '../../ts/tensor/reduction.ts';
import { leaveToCollector } from '../collected.ts';
import { routerCases } from './routers/cases.ts';
import { acrossRows, checkGradients } from './routers/gradients.ts';
import { waves } from './routers/plain-numbers.ts';
import { made } from './routers/routed.ts';

// Whatever router is registered is tested here, in every behaviour it has. One that needs more than these passes give it fails: a router works
// with tokens, their ids, sequences and a mask, and says what else it cannot do without where it is made.
leaveToCollector();

const before = threads();
afterAll(() => setThreads(before));

const width = 12;

/** Two layers, so that the second sees the logits of the first. */
class Pair extends Module {
  readonly first: MoeLayer;
  readonly second: MoeLayer;

  constructor(router: { name: string; [option: string]: unknown }, compat: Compat, sizes: Sizes, seed = 7) {
    super();
    const layer = (index: number) =>
      new MoeLayer({
        router,
        compat,
        ...sizes,
        dModel: width,
        expert: { hidden: 6 },
        layer: index,
        layerCount: 2,
        values: { seed, name: `layer${index}` },
        ...(routerDefinition(router.name).sharedExpert && { shared: { hidden: 6 } }),
      });
    this.first = layer(0);
    this.second = layer(1);
  }

  forward(x: Tensor, context: ForwardContext): Tensor {
    return this.second.forward(add(x, this.first.forward(x, context)), context);
  }
}

interface Sizes {
  experts: number;
  topK: number;
}

interface Pass {
  values: readonly number[];
  step?: number;
  /** Intermediate results are computed again during backward. */
  recompute?: boolean;
}

/** One forward and backward pass: output, losses, gradients of tokens and every parameter, all as numbers. */
async function run(pair: Pair, { values, step = 1, recompute = false }: Pass) {
  const count = values.length / width;
  using tokenIds = tensor(Int32Array.from({ length: count }, (_, t) => (7 * t) % 11));
  using sequenceOffsets = tensor(Int32Array.from([0, Math.ceil(count / 2), count]));
  using context = new ForwardContext({
    training: true,
    step: step - 1,
    totalSteps: 4,
    seed: 3,
    tokenIds,
    sequenceOffsets,
  });
  using tokens = parameter(tensor([...values], [count, width]));
  const forward = scope(() => {
    const out = recompute
      ? checkpointed(context, (inner, x) => pair.forward(x!, inner), [tokens])
      : pair.forward(tokens, context);
    let loss = mean(square(out));
    const losses = context.losses();
    for (const { value, coefficient } of losses) loss = add(loss, scale(value, coefficient));
    const numbers = {
      out: out.toArray(),
      losses: losses.map(({ name, layer, value }) => [name, layer, value.item()] as const),
    };
    loss.backward();
    return numbers;
  });
  const gradients = Object.fromEntries(
    [['tokens', tokens] as const, ...pair.namedParameters()].map(([name, t]) => [
      name,
      t.grad?.toArray() ?? [],
    ]),
  );
  const records = await Promise.all(context.records.map((record) => record.read()));
  tokens.grad?.dispose();
  return { ...forward, gradients, records };
}

/** A step of plain gradient descent, and what routers do after one. */
async function train(pair: Pair, values: readonly number[], step: number): Promise<void> {
  const { gradients, records } = await run(pair, { values, step });
  for (const [name, t] of pair.namedParameters()) {
    const gradient = gradients[name]!;
    t.write(t.toArray().map((v, i) => v - 0.1 * (gradient[i] ?? 0)));
  }
  pair.zeroGrad();
  const layers = new Map(records.map(({ layer, counts, tokens }) => [layer, { counts, tokens }]));
  for (const layer of [pair.first, pair.second])
    layer.afterStep({ ...layers.get(layer.name)!, step, totalSteps: 4, layers });
}

const stateOf = (pair: Pair): Map<string, number[]> =>
  new Map([...pair.stateDict()].map(([name, t]) => [name, t.toArray()]));

const finite = (all: Awaited<ReturnType<typeof run>>): void => {
  const numbers = [...all.out, ...Object.values(all.gradients).flat(), ...all.losses.map((l) => l[2])];
  expect(numbers.every(Number.isFinite)).toBe(true);
};

/** Parameters that the forward pass rescales row by row, of which it takes no gradient: LibMoE's XMoE does. */
const rescaled: Record<string, string[]> = { 'xmoe libmoe': ['embeddings'] };

describe.each(routerCases('vision-language'))('$name, $compat', ({ name, compat, options, topKs }) => {
  const topK = topKs.includes(2) ? 2 : 1;
  const most = topKs.includes(4) ? 4 : 1;
  const router = { name, ...options };
  const sizes = { experts: 4, topK };

  it('runs forward and backward, and its records count', async () => {
    using pair = new Pair(router, compat, sizes);
    const all = await run(pair, { values: waves(9, width) });
    finite(all);
    for (const record of all.records) {
      expect(record.tokens).toBe(9);
      expect(record.counts.length).toBeGreaterThanOrEqual(4);
      expect(record.entropy).toBeGreaterThanOrEqual(0);
      expect(record.probabilities.every(Number.isFinite)).toBe(true);
    }
  });

  it('has the gradients of weights, losses and extra output (finite differences, f64)', () => {
    using one = made(name, { experts: 4, topK, compat }, options);
    using tokenIds = tensor(Int32Array.from([3, 1, 4, 1, 5, 9, 2]));
    using tokenMask = tensor([1, 1, 1, 1, 0, 1, 1], [7], { dtype: 'bool' });
    using sequenceOffsets = tensor(Int32Array.from([0, 4, 7]));
    const context = { training: true, tokenIds, tokenMask, sequenceOffsets, step: 1, totalSteps: 4 };
    checkGradients(one, waves(7), {
      ...context,
      adjust: (field, gradient, t) =>
        rescaled[`${name} ${compat}`]?.includes(field) ? acrossRows(gradient, t) : gradient,
    });
  });

  it('takes one token, all experts per token, one expert, and tokens that are all alike', async () => {
    const alike = Array.from({ length: 16 }, () => waves(1, width)).flat();
    for (const [at, values] of [
      [sizes, waves(1, width)],
      [{ experts: 4, topK: most }, waves(5, width)],
      [{ experts: 1, topK: 1 }, waves(5, width)],
      [{ experts: 4, topK: 1 }, alike],
    ] as const) {
      using pair = new Pair(router, compat, at);
      finite(await run(pair, { values }));
    }
  });

  it('goes on from a saved state with the same bits', async () => {
    using whole = new Pair(router, compat, sizes);
    for (const step of [1, 2]) await train(whole, waves(9, width), step);
    const saved = new Map(
      [...whole.stateDict()].map(([key, t]) => [key, tensor(t.toArray(), t.shape, { dtype: t.dtype })]),
    );
    for (const step of [3, 4]) await train(whole, waves(9, width), step);
    using resumed = new Pair(router, compat, sizes, 8);
    resumed.loadStateDict(saved);
    for (const t of saved.values()) t.dispose();
    for (const step of [3, 4]) await train(resumed, waves(9, width), step);
    expect(stateOf(resumed)).toEqual(stateOf(whole));
  });

  it('gives the same bits on one thread and on two, and when the pass is computed again', async () => {
    using pair = new Pair(router, compat, sizes);
    const values = waves(301, width);
    const once = async (count: number, recompute: boolean) => {
      setThreads(count);
      pair.zeroGrad();
      return run(pair, { values, recompute });
    };
    const single = await once(1, false);
    expect(await once(2, false)).toEqual(single);
    expect(await once(2, true)).toEqual(single);
  });

  it('refuses behaviours it does not have', () => {
    const known = routerDefinition(name).compat ?? ['fixed'];
    for (const other of ['fixed', 'libmoe', 'original'] as const)
      if (!known.includes(other))
        expect(() => made(name, { experts: 4, topK, compat: other })).toThrow(`no compat "${other}"`);
    expect(() => made(name, { experts: 4, topK, compat }, { ...options, noSuchOption: 1 })).toThrow(
      /unknown key "noSuchOption"/,
    );
  });
});
