import { describe, expect, it } from 'vitest';
import { LanguageModel, packSequences } from '../../ts/models/language/index.ts';
import { ForwardContext } from '../../ts/moe/index.ts';
import { add, scale } from '../../ts/tensor/elementwise.ts';
import { memory, noGrad, resetPeakMemory, scope, type Tensor } from '../../ts/tensor/index.ts';
import { someIds, tinyConfig, tinyLibmoe, tinyModel, tinyMoe } from './tiny.ts';

const std = (values: readonly number[]): number => {
  const mean = values.reduce((a, b) => a + b, 0) / values.length;
  return Math.sqrt(values.reduce((a, b) => a + (b - mean) ** 2, 0) / (values.length - 1));
};
const trainingBatch = (
  lengths: number[],
): { ids: Int32Array; targets: Int32Array; sequenceOffsets: Int32Array } => {
  const { ids, sequenceOffsets } = packSequences(lengths.map((n, i) => someIds(n, i)));
  return { ids, sequenceOffsets, targets: ids.map((id) => (id + 1) % 50) };
};

/** The loss with all auxiliary ones: a graph that nobody walks is freed by the collector only. */
const objective = (loss: Tensor, context: ForwardContext): Tensor =>
  context.losses().reduce((sum, { value, coefficient }) => add(sum, scale(value, coefficient)), loss);

describe('LanguageModel', () => {
  it("starts as LibMoE's models do", () => {
    const hidden = 12;
    using model = new LanguageModel(
      {
        ...tinyLibmoe,
        dModel: 48,
        layers: 4,
        init: 'libmoe',
        moe: { layers: [1, 3], experts: 6, topK: 2, expert: { hidden, activation: 'relu', gated: false } },
      },
      { seed: 3 },
    );
    const gain = Math.sqrt(2 / 4);
    const { attention, feedForward } = model.blocks[0]!;
    // exactly, by construction; keys and values are one matrix in LibMoE
    expect(std(attention.query.weight.toArray())).toBeCloseTo(gain * 48 ** -0.5, 7);
    expect(std(attention.output.weight.toArray())).toBeCloseTo(gain * 24 ** -0.5, 7);
    expect(std([...attention.key.weight.toArray(), ...attention.value.weight.toArray()])).toBeCloseTo(
      gain * 48 ** -0.5,
      7,
    );
    expect(std(feedForward!.down.toArray())).toBeCloseTo(gain * 40 ** -0.5, 7);
    expect(Math.max(...feedForward!.upBias!.toArray())).toBe(0);
    // Gaussians, within four standard errors
    const parameters = model.namedParameters();
    const near = (name: string, wanted: number): void => {
      const values = parameters.get(name)!.toArray();
      expect(Math.abs(std(values) / wanted - 1), name).toBeLessThan(4 / Math.sqrt(2 * values.length));
    };
    near('embedding.weight', 48 ** -0.5);
    near('blocks.1.moe.experts.up', gain * 48 ** -0.5);
    near('blocks.1.moe.experts.down', gain * (6 * hidden) ** -0.5);
    near('blocks.3.moe.router.weight', gain * 48 ** -0.5);
    near('output.weight', 48 ** -0.5 / Math.sqrt(3));
    const bias = parameters.get('output.bias')!.toArray();
    expect(Math.max(...bias.map(Math.abs))).toBeLessThanOrEqual(48 ** -0.5);
    expect(parameters.get('blocks.1.moe.router.weight')!.toArray()).not.toEqual(
      parameters.get('blocks.3.moe.router.weight')!.toArray(),
    );
  });

  it('draws every value from the seed and the name alone', () => {
    using deep = tinyModel({ ...tinyConfig, layers: 3 });
    using shallow = tinyModel({ ...tinyConfig, layers: 2 });
    using other = tinyModel(tinyConfig, { seed: 2 });
    const query = (model: LanguageModel): number[] => model.blocks[1]!.attention.query.weight.toArray();
    expect(query(deep)).toEqual(query(shallow));
    expect(query(deep)).not.toEqual(query(other));
  });

  it("draws routers from the seed, with what a method adds to a model's rule", () => {
    const routers = (name: string, compat: 'fixed' | 'libmoe' | 'original', seed: number, options = {}) => {
      const moe = { ...tinyMoe.moe!, layers: 'all', compat, router: { name, ...options } } as const;
      using model = tinyModel({ ...tinyMoe, moe }, { seed });
      return model.blocks.map((block) => block.moe!.router.namedParameters().get('weight')!.toArray());
    };
    const norms = (weight: number[]) =>
      [0, 1, 2, 3].map((e) => Math.hypot(...weight.slice(24 * e, 24 * (e + 1))).toFixed(4));
    for (const name of ['smoe', 'sigmoid']) {
      for (const compat of ['fixed', 'libmoe', 'original'] as const)
        expect(routers(name, compat, 1), `${name} ${compat}`).not.toEqual(routers(name, compat, 2));
      // LibMoE seeds the routers of all its vision-language layers alike; its published numbers have it
      const vision = { flavour: 'vision-language' };
      const [first, ...others] = routers(name, 'libmoe', 1, vision);
      for (const other of others) expect(other).toEqual(first);
      expect(first).not.toEqual(routers(name, 'libmoe', 2, vision)[0]);
      expect(new Set(routers(name, 'fixed', 1, vision).map(String)).size).toBe(3);
    }
    expect(routers('smoe', 'original', 1)).toEqual(routers('smoe', 'fixed', 1));
    expect(new Set(norms(routers('smoe', 'fixed', 1)[0]!)).size).toBe(4);
    expect(new Set(norms(routers('sigmoid', 'original', 1)[0]!)).size).toBe(1);
    expect(std(routers('sigmoid', 'original', 1, { init: { std: 2 } }).flat())).toBeCloseTo(2, 0);
  });

  it('learns', () => {
    using model = tinyModel(tinyMoe);
    const batch = trainingBatch([20, 9]);
    const losses: number[] = [];
    for (let step = 0; step < 8; step++) {
      scope(() => {
        using context = new ForwardContext({ training: true, step });
        const loss = model.loss(batch, context);
        losses.push(loss.item());
        objective(loss, context).backward();
        expect(context.records).toHaveLength(1);
      });
      for (const parameter of model.parameters()) {
        const gradient = parameter.grad!.toArray();
        parameter.write(parameter.toArray().map((value, i) => value - 0.3 * gradient[i]!));
      }
      model.zeroGrad();
    }
    expect(losses.at(-1)!).toBeLessThan(0.8 * losses[0]!);
  });

  it('recomputes blocks for the same gradient bits in less memory', () => {
    using model = tinyModel({ ...tinyMoe, layers: 6 });
    const batch = trainingBatch([90, 60]);
    const run = (): { gradients: number[][]; peak: number } => {
      model.zeroGrad();
      resetPeakMemory();
      const before = memory().bytes;
      scope(() => {
        using context = new ForwardContext({ training: true });
        objective(model.loss(batch, context), context).backward();
      });
      return {
        gradients: model.parameters().map((p) => p.grad?.toArray() ?? []),
        peak: memory().peakBytes - before,
      };
    };
    run();
    const kept = run();
    model.activationCheckpointing = true;
    const again = run();
    expect(again.gradients).toEqual(kept.gradients);
    expect(again.peak).toBeLessThan(0.7 * kept.peak);
  });

  it('recomputes after its context has gone: the tape keeps the choices', () => {
    using model = tinyModel(tinyMoe);
    model.eval(); // without a context nobody walks the graphs of the balance losses
    const batch = trainingBatch([20, 10]);
    const gradients = (): number[][] => {
      model.zeroGrad();
      scope(() => model.loss(batch).backward());
      return model.parameters().map((p) => p.grad?.toArray() ?? []);
    };
    const kept = gradients();
    model.activationCheckpointing = true;
    expect(gradients()).toEqual(kept);
  });

  it('leaves nothing behind, with and without a context, and when it fails', () => {
    using model = tinyModel(tinyMoe);
    noGrad(() => model.forward(packSequences([[1, 2]]))).dispose(); // makes the rotary table
    const before = memory().tensors;
    noGrad(() => model.forward(packSequences([someIds(5)]))).dispose();
    scope(() => {
      using context = new ForwardContext({ training: true });
      const loss = model.loss(trainingBatch([5]), context);
      objective(loss, context).backward();
    });
    model.zeroGrad();
    const batch = trainingBatch([5]);
    expect(() => model.forward({ ...batch, ids: batch.ids.map(() => 50) })).toThrow(
      /ERR_LIBMOE_DATA.*ids must lie in 0…49/,
    );
    expect(() => model.forward({ ids: new Int32Array(0), sequenceOffsets: new Int32Array([0]) })).toThrow(
      /at least one token/,
    );
    expect(() => model.forward(packSequences([someIds(97)]))).toThrow(
      /ERR_LIBMOE_ARGUMENT.*maxPositions.*up to 96/,
    );
    expect(() => model.forward({ ...batch, positions: new Int32Array([0, 1, 2, 3, -1]) })).toThrow(
      /positions must lie in/,
    );
    expect(() => packSequences([[1], []])).toThrow(/sequence 1 is empty/);
    expect(memory().tensors).toBe(before);
  });

  it('leaves nothing behind when it fails after a MoE layer ran', () => {
    using model = tinyModel({ ...tinyMoe, moe: { ...tinyMoe.moe!, layers: 'all' } });
    noGrad(() => model.forward(packSequences([[1, 2]]))).dispose();
    const { weight } = model.blocks[2]!.feedForwardNorm;
    weight.write(weight.toArray().fill(Number.NaN));
    const before = memory().tensors;
    for (const training of [true, false]) {
      if (training) model.train();
      else model.eval();
      expect(() => noGrad(() => model.forward(packSequences([[1, 2, 3]])))).toThrow(
        /ERR_LIBMOE_NOT_FINITE.*layer 2/,
      );
      expect(memory().tensors).toBe(before);
    }
  });

  it('computes in bf16 what it computes in f32, roughly', () => {
    using model = tinyModel({ ...tinyMoe, init: { std: 0.1 } });
    const batch = packSequences([someIds(12)]);
    const logits = (): number[] => noGrad(() => scope(() => model.logits(model.forward(batch)).toArray()));
    const exact = logits();
    model.to({ dtype: 'bf16' });
    const rounded = logits();
    const worst = exact.reduce((most, value, i) => Math.max(most, Math.abs(value - rounded[i]!)), 0);
    expect(worst).toBeGreaterThan(0);
    expect(worst).toBeLessThan(0.05 * Math.max(...exact.map(Math.abs)));
  });
});
