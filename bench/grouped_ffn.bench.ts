import { bytesPerElement, type Dtype } from '../ts/tensor/index.ts';
import type { BenchCase } from './case.ts';
import { toleranceOf } from './inputs.ts';
import { balanceCoefficient, expertWeights, type Routing } from './layer-inputs.ts';
import { expertsWork, layerWork } from './layer-work.ts';
import { cpuShapes, gpuShapes, restricted, type Shape, targetShapes, toy } from './shapes.ts';

/**
 * `experts`: the routed part alone, the choices are given: sort, experts, weighted sum. `layer`: the whole layer as users build it: router with
 * statistics, balance loss and routing record, sort, experts, weighted sum; in training also the backward pass of all of it, to the gradients of
 * input, router and experts.
 */
type Part = 'experts' | 'layer';

function layerCase(shape: Shape, dtype: Dtype, part: Part, train: boolean, routing: Routing): BenchCase {
  const { name, tokens, d, f, experts, topK, gated } = shape;
  const hidden = gated ? 2 * f : f;
  const routed = part === 'layer' ? experts * d : 0;
  const weights = experts * d * (hidden + f) + routed;
  const forward = 2 * tokens * topK * d * (hidden + f) + 2 * tokens * routed;
  const pass = train ? 'train' : 'forward';
  return {
    name: `grouped_ffn/${name}/${dtype}/${part}/${pass}/${routing}`,
    flops: train ? 3 * forward : forward,
    // Weights and x read, out written; training reads the weights again and writes their f32 gradients.
    bytes: train
      ? (2 * weights + 4 * tokens * d) * bytesPerElement(dtype) + 4 * weights
      : (weights + 2 * tokens * d) * bytesPerElement(dtype),
    // A rounding may decide on which side of ReLU's kink an activation lies, and so whether it has a gradient.
    tolerance: Math.max(toleranceOf(dtype), train && shape.activation === 'relu' ? 1e-2 : 0),
    setup: () =>
      part === 'layer' ? layerWork(shape, routing, dtype, pass) : expertsWork(shape, routing, dtype),
    peer: {
      script: 'moe_layer.py',
      request: { ...shape, ...expertWeights(shape), balanceCoefficient, dtype, part, pass, routing },
      gpuModes: ['grouped_mm', 'triton', 'sort_loop', 'dense', 'products', 'grouped_mm_compiled'],
    },
    ...restricted(shape),
  };
}

/** What the forward pass keeps for backward, against formulations that copy the rows of tokens: bytes, which no device changes. */
function savedCase(shape: Shape): BenchCase {
  const { name, tokens, d, f, topK, gated } = shape;
  const slots = tokens * topK;
  return {
    ...layerCase(shape, 'bf16', 'experts', false, 'uniform'),
    name: `grouped_ffn/${name}/bf16/experts/saved/uniform`,
    // The least that can be kept: the input, the pre-activation (of a ReLU the activation), and 12 bytes of routing per choice.
    bytes: 2 * tokens * d + (gated ? 4 : 2) * slots * f + 12 * slots,
    setup: () => expertsWork(shape, 'uniform', 'bf16', true),
    peer: {
      script: 'moe_layer.py',
      request: {
        ...shape,
        ...expertWeights(shape),
        ...{ balanceCoefficient, dtype: 'bf16', part: 'experts', pass: 'saved', routing: 'uniform' },
        // On the CPU, where the fastest way would be taken: rows copied in and out of the experts' order, products with their own backward.
        method: 'by_hand',
      },
      gpuModes: ['by_hand', 'grouped_mm'],
    },
    gpuOnly: false,
    // Minutes of a processor's time for the large ones: only for who asks.
    onlyFor: name === toy.name ? toy.name : 'saved',
  };
}

const dtypesOf = (shape: Shape): readonly Dtype[] => (cpuShapes.includes(shape) ? ['f32', 'bf16'] : ['bf16']);

const timed: BenchCase[] = [...cpuShapes, ...gpuShapes, toy].flatMap((shape) =>
  dtypesOf(shape).flatMap((dtype) =>
    (['uniform', 'zipf'] as const).flatMap((routing) => [
      layerCase(shape, dtype, 'experts', false, routing),
      layerCase(shape, dtype, 'layer', false, routing),
      layerCase(shape, dtype, 'layer', true, routing),
    ]),
  ),
);

export const cases: BenchCase[] = [...timed, ...targetShapes.map(savedCase)];
