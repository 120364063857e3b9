// Everything of a MoE layer but its experts: router product, scores, choice, statistics, balance loss and the sort, as the forward pass of training has
// them, in turn with the whole layer.
import type { BenchCase } from './case.ts';
import { layerWork } from './layer-work.ts';
import { restricted, type Shape, targetShapes } from './shapes.ts';

function routing(shape: Shape): BenchCase {
  const { name, tokens, d, f, experts, topK, gated } = shape;
  const slots = tokens * topK;
  const flops = 2 * tokens * experts * d;
  return {
    name: `routing/${name}/bf16/recorded/uniform`,
    flops,
    // Tokens and router read; choices and weights written; of the sort choices read, rows and their inverse written.
    bytes: 2 * (tokens + experts) * d + 8 * slots + 12 * slots,
    setup: () => layerWork(shape, 'uniform', 'bf16', 'recorded', 'experts'),
    baseline: {
      name: 'the layer with its experts',
      flops: flops + 2 * slots * d * (gated ? 3 : 2) * f,
      setup: () => layerWork(shape, 'uniform', 'bf16', 'recorded'),
    },
    ...restricted(shape),
  };
}

export const cases: readonly BenchCase[] = targetShapes.map(routing);
