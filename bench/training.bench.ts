import type { TokenBatch } from '../ts/data/index.ts';
import { LanguageModel, parameterReport } from '../ts/models/language/index.ts';
import { ForwardContext } from '../ts/moe/context.ts';
import { native } from '../ts/native/index.ts';
import { add, scale } from '../ts/tensor/elementwise.ts';
import { scope } from '../ts/tensor/index.ts';
import { clipFactor, globalNorm } from '../ts/tensor/optimizer.ts';
import { optimizer } from '../ts/training/optimizer.ts';
import type { BenchCase } from './case.ts';

/** The demo's model and batch. */
const shape = {
  vocabularySize: 2048,
  dModel: 128,
  layers: 4,
  heads: 4,
  keyValueHeads: 2,
  hidden: 256,
  experts: 8,
  topK: 2,
  sequenceLength: 128,
  batchSequences: 16,
};

function step(experts: number): BenchCase {
  const {
    vocabularySize,
    dModel,
    layers,
    heads,
    keyValueHeads,
    hidden,
    topK,
    sequenceLength,
    batchSequences,
  } = shape;
  const feedForward = { hidden, activation: 'silu', gated: true } as const;
  const config = {
    vocabularySize,
    dModel,
    layers,
    heads,
    keyValueHeads,
    feedForward,
    tieEmbeddings: true,
    maxPositions: 256,
    ...(experts > 0 && { moe: { experts, topK, router: { name: 'smoe' }, expert: feedForward } }),
  };
  const tokens = sequenceLength * batchSequences;
  const report = parameterReport(config, sequenceLength);
  return {
    name: `training/demo-${experts > 0 ? 'moe' : 'dense'}/f32/step`,
    flops: report.flopsPerToken * tokens,
    bytes: report.total * 4 * 8, // weight read twice, gradient written and read, two moments and the weight updated
    memory: true,
    peer: { script: 'training_step.py', request: { ...shape, experts } },
    setup() {
      const model = new LanguageModel(config, { seed: 1 });
      const adamw = optimizer(model.namedParameters(), { name: 'adamw' });
      const ids = Int32Array.from(
        { length: tokens + 1 },
        (_, i) => (i * 7919 + ((i * i) % 1009)) % vocabularySize,
      );
      const batch: TokenBatch = {
        ids: ids.slice(0, tokens),
        targets: ids.slice(1),
        sequenceOffsets: Int32Array.from({ length: batchSequences + 1 }, (_, i) => i * sequenceLength),
      };
      model.train();
      return {
        run() {
          const context = new ForwardContext({ training: true, step: 0, totalSteps: 1 });
          scope(() => {
            const crossEntropy = model.loss(batch, context);
            let total = crossEntropy;
            for (const { value, coefficient } of context.losses())
              total = add(total, scale(value, coefficient));
            total.backward();
            crossEntropy.item();
          });
          const gradients = [...adamw.parameters.values()].flatMap(({ grad }) => (grad ? [grad] : []));
          using norm = globalNorm(gradients);
          using factor = clipFactor(norm, [], 1);
          adamw.step(1e-3, factor);
          adamw.zeroGrad();
        },
        dispose() {
          adamw.dispose();
          model.dispose();
          native().trim();
        },
      };
    },
  };
}

export const cases: readonly BenchCase[] = [step(0), step(shape.experts)];
