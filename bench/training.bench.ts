import type { TokenBatch } from '../ts/data/index.ts';
import { LanguageModel, type LanguageModelOptions, parameterReport } from '../ts/models/language/index.ts';
import { ForwardContext } from '../ts/moe/context.ts';
import { native } from '../ts/native/index.ts';
import { add, scale } from '../ts/tensor/elementwise.ts';
import { bytesPerElement, type Dtype, full, scope, type Tensor } from '../ts/tensor/index.ts';
import { clipFactor, globalNorm } from '../ts/tensor/optimizer.ts';
import { optimizer } from '../ts/training/optimizer.ts';
import type { BenchCase, Work } from './case.ts';
import { type InputSpec, input, sampled, toleranceOf } from './inputs.ts';
import { load } from './layer-inputs.ts';

/** A model, its batch and its optimizer; everything that training_step.py is told. */
interface Setting {
  name: string;
  dtype: Dtype;
  config: LanguageModelOptions;
  sequenceLength: number;
  batchSequences: number;
  clipNorm: number;
  learningRate: number;
  weightDecay: number;
}

function demo(experts: number): Setting {
  const feedForward = { hidden: 256, activation: 'silu', gated: true } as const;
  return {
    name: `demo-${experts > 0 ? 'moe' : 'dense'}`,
    dtype: 'f32',
    config: {
      ...{ vocabularySize: 2048, dModel: 128, layers: 4, heads: 4, keyValueHeads: 2 },
      feedForward,
      tieEmbeddings: true,
      maxPositions: 256,
      ...(experts > 0 && {
        moe: { experts, topK: 2, router: { name: 'smoe', balanceCoefficient: 0.01 }, expert: feedForward },
      }),
    },
    sequenceLength: 128,
    batchSequences: 16,
    clipNorm: 1,
    learningRate: 1e-3,
    weightDecay: 0.01,
  };
}

/** recipes/language/154m/smoe.yaml, one of the four micro-batches of a step: what one GPU of LibMoE's four does. */
const recipe154m: Setting = {
  name: '154M-smoe',
  dtype: 'bf16',
  config: {
    ...{ vocabularySize: 8000, dModel: 512, layers: 16, heads: 4, headDim: 82 },
    norm: 'layernorm',
    rotary: { fraction: 0.5 },
    outputBias: true,
    maxPositions: 1024,
    init: 'libmoe',
    moe: {
      experts: 66,
      topK: 8,
      router: { name: 'smoe', balanceCoefficient: 0.01 },
      expert: { hidden: 128, activation: 'relu', gated: false },
    },
  },
  sequenceLength: 1024,
  batchSequences: 16,
  clipNorm: 0.1,
  learningRate: 0.00025,
  weightDecay: 0.01,
};

/** The same in small, for trying it out. */
const toy: Setting = {
  ...recipe154m,
  name: 'toy-154M-smoe',
  config: {
    ...recipe154m.config,
    ...{ vocabularySize: 300, dModel: 32, layers: 2, heads: 2, headDim: 18, maxPositions: 32 },
    moe: {
      ...recipe154m.config.moe!,
      experts: 6,
      topK: 2,
      expert: { hidden: 16, activation: 'relu', gated: false },
    },
  },
  sequenceLength: 32,
  batchSequences: 4,
};

/** What a parameter starts as, on both sides; undefined: ones, the scale of a norm. */
function startOf(name: string, { shape }: Tensor, index: number): InputSpec | undefined {
  return name.endsWith('orm.weight') ? undefined : { shape, seed: 100 + index, scale: 0.03 };
}

function stepWork({ config, dtype, sequenceLength, batchSequences, clipNorm, ...s }: Setting): Work {
  const tokens = sequenceLength * batchSequences;
  const model = new LanguageModel(config, { seed: 'later', dtype });
  const parameters = [...model.namedParameters()];
  const begin = () => {
    for (const [i, [name, t]] of parameters.entries()) {
      const spec = startOf(name, t, i);
      load(t, spec ? input(spec, dtype) : full(t.shape, 1, { dtype }));
    }
  };
  begin();
  const adamw = optimizer(new Map(parameters), { name: 'adamw', weightDecay: s.weightDecay });
  const ids = Int32Array.from(
    { length: tokens + 1 },
    (_, i) => (i * 7919 + ((i * i) % 1009)) % config.vocabularySize,
  );
  const batch: TokenBatch = {
    ids: ids.slice(0, tokens),
    targets: ids.slice(1),
    sequenceOffsets: Int32Array.from({ length: batchSequences + 1 }, (_, i) => i * sequenceLength),
  };
  model.train();
  const pass = (): number => {
    using context = new ForwardContext({ training: true, step: 0, totalSteps: 1 });
    return scope(() => {
      const crossEntropy = model.loss(batch, context);
      let total = crossEntropy;
      for (const { value, coefficient } of context.losses()) total = add(total, scale(value, coefficient));
      total.backward();
      return total.item();
    });
  };
  const gradients = () => [...adamw.parameters.values()].flatMap(({ grad }) => (grad ? [grad] : []));
  return {
    run() {
      pass();
      using norm = globalNorm(gradients());
      using factor = clipFactor(norm, [], clipNorm);
      adamw.step(s.learningRate, factor);
      adamw.zeroGrad();
    },
    results() {
      begin();
      const loss = pass();
      using norm = globalNorm(gradients());
      const found: Record<string, readonly number[]> = { loss: [loss], 'gradient norm': [norm.item()] };
      // In bf16 two orders of rounding drift apart over the layers: the norm must do.
      if (dtype === 'f32')
        for (const [name, { grad }] of adamw.parameters) found[`d ${name}`] = sampled(grad!);
      adamw.zeroGrad();
      return found;
    },
    dispose() {
      adamw.dispose();
      model.dispose();
      native().trim();
    },
  };
}

function step(setting: Setting, place: Partial<BenchCase>): BenchCase {
  const { name, dtype, config, sequenceLength, batchSequences } = setting;
  const tokens = sequenceLength * batchSequences;
  const report = parameterReport(config, sequenceLength);
  // Weights read twice, f32 gradients written and read, two moments and the f32 weights updated.
  const perParameter = 2 * bytesPerElement(dtype) + 4 * 6;
  return {
    name: `training/${name}/${dtype}/step`,
    flops: report.flopsPerToken * tokens,
    bytes: report.total * perParameter,
    tolerance: toleranceOf(dtype),
    setup: () => stepWork(setting),
    peer: {
      script: 'training_step.py',
      get request() {
        using model = new LanguageModel(config, { seed: 'later', dtype });
        const parameters = [...model.namedParameters()].map(([named, t], i) => {
          return { name: named, ...(startOf(named, t, i) ?? { shape: t.shape, ones: true }) };
        });
        return { ...setting, config: model.config, parameters };
      },
      gpuModes: ['compiled', 'eager'],
    },
    ...place,
  };
}

export const cases: readonly BenchCase[] = [
  step(demo(0), { memory: true }),
  step(demo(8), { memory: true }),
  step(recipe154m, { gpuOnly: true }),
  step(toy, { onlyFor: 'toy' }),
];
