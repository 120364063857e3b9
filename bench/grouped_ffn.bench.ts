import { ForwardContext } from '../ts/moe/context.ts';
import { Experts } from '../ts/moe/experts.ts';
import { MoeLayer } from '../ts/moe/index.ts';
import { runBackward } from '../ts/tensor/autograd.ts';
import { cast } from '../ts/tensor/elementwise.ts';
import { gate } from '../ts/tensor/gating.ts';
import { linear } from '../ts/tensor/gemm.ts';
import { bytesPerElement, type Dtype, noGrad, scope, type Tensor, tensor, view } from '../ts/tensor/index.ts';
import { dispatchPlan } from '../ts/tensor/permutation.ts';
import type { BenchCase, Work } from './case.ts';
import { type InputSpec, input, mixed, sampled, toleranceOf } from './inputs.ts';

/** The shapes of the specification's CPU tables: T tokens, model size d, expert size f, E experts, k of them per token. */
interface Shape {
  name: string;
  tokens: number;
  d: number;
  f: number;
  experts: number;
  topK: number;
  gated: boolean;
  activation: 'silu' | 'relu';
}

const swiglu = { gated: true, activation: 'silu' } as const;
const shapes: Shape[] = [
  { name: 'A', tokens: 4096, d: 512, f: 1024, experts: 8, topK: 2, ...swiglu },
  { name: 'B', tokens: 2048, d: 1024, f: 512, experts: 64, topK: 8, ...swiglu },
  { name: 'C512', tokens: 4096, d: 512, f: 128, experts: 66, topK: 8, gated: false, activation: 'relu' },
  { name: 'D', tokens: 64, d: 1024, f: 512, experts: 64, topK: 8, ...swiglu },
];

/** The layers of the specification's GPU table. A and B are above. */
const gpuShapes: Shape[] = [
  { name: '154M', tokens: 16384, d: 512, f: 128, experts: 66, topK: 8, gated: false, activation: 'relu' },
  { name: '660M', tokens: 16384, d: 1024, f: 256, experts: 66, topK: 8, gated: false, activation: 'relu' },
  { name: 'OLMoE', tokens: 16384, d: 2048, f: 1024, experts: 64, topK: 8, ...swiglu },
  { name: 'Qwen3', tokens: 32768, d: 2048, f: 768, experts: 128, topK: 8, ...swiglu },
];

type Routing = 'uniform' | 'zipf';
/**
 * `experts`: the routed part alone, the choices are given: sort, experts, weighted sum. `layer`: the whole layer as users build it: router with
 * statistics, balance loss and routing record, sort, experts, weighted sum; in training also the backward pass of all of it, to the gradients of
 * input, router and experts.
 */
type Part = 'experts' | 'layer';
const balanceCoefficient = 0.01;

/**
 * Tokens and router such that both sides choose the same experts, whatever the order in which they add: all are small multiples of powers of two,
 * so the logits are exact. The first two features of every token are 1 and carry what the router adds to each expert's logit: −log(rank) for
 * Zipf's law with exponent 1 (rounded), and a step too small to matter that parts ties.
 */
function tokensAndRouter({ tokens, d, experts }: Shape, routing: Routing, dtype: Dtype, train: boolean) {
  const x = Float32Array.from({ length: tokens * d }, (_, i) =>
    i % d < 2 ? 1 : ((mixed(i, 1) % 219) - 109) / 64,
  );
  const router = Float32Array.from({ length: experts * d }, (_, i) => {
    const expert = Math.floor(i / d);
    if (i % d === 0) return routing === 'zipf' ? Math.round(-Math.log(expert + 1) * 32) / 32 : 0;
    if (i % d === 1) return expert * 2 ** -20;
    return ((mixed(i, 2) % 7) - 3) / 64;
  });
  return {
    x: tensor(x, [tokens, d], { dtype, requiresGrad: train }),
    router: tensor(router, [experts, d], { dtype }),
  };
}

function expertWeights({ d, f, experts, gated }: Shape): { up: InputSpec; down: InputSpec } {
  return {
    up: { shape: [experts, gated ? 2 * f : f, d], scale: 1 / Math.sqrt(d), seed: 3 },
    down: { shape: [experts, d, f], scale: 1 / Math.sqrt(f), seed: 4 },
  };
}

/** Sort, experts and weighted sum for choices and weights that are there. */
function expertsWork(shape: Shape, routing: Routing, dtype: Dtype): Work {
  const { experts, topK, d, f, gated, activation } = shape;
  const { x, router } = tokensAndRouter(shape, routing, dtype, false);
  const { up, down } = expertWeights(shape);
  const set = new Experts(experts, d, { hidden: f, gated, activation, bias: false, dtype, values: 'later' });
  load(set.up, input(up, dtype));
  load(set.down, input(down, dtype));
  const { choices, weights } = noGrad(() =>
    scope(() => {
      const g = gate(linear(cast(x, 'f32'), cast(router, 'f32')), { topK });
      return { choices: g.experts, weights: g.weights };
    }),
  );
  const forward = () => set.forward(x, dispatchPlan(choices, { experts }), weights);
  return {
    run: () => noGrad(() => scope(() => void forward())),
    results: () => noGrad(() => scope(() => ({ out: sampled(forward()) }))),
    dispose() {
      for (const t of [x, router, choices, weights]) t.dispose();
      set.dispose();
    },
  };
}

function layerWork(shape: Shape, routing: Routing, dtype: Dtype, train: boolean): Work {
  const { tokens, experts, topK, d, f, gated, activation } = shape;
  const layer = new MoeLayer({
    router: { name: 'smoe', balanceCoefficient },
    experts: new Experts(experts, d, { hidden: f, gated, activation, bias: false, dtype, values: 'later' }),
    topK,
    dModel: d,
    dtype,
  });
  const { x, router } = tokensAndRouter(shape, routing, dtype, train);
  const parameters = layer.namedParameters();
  const [up, down, weight] = ['experts.up', 'experts.down', 'router.weight'].map(
    (name) => parameters.get(name)!,
  );
  const specs = expertWeights(shape);
  load(up!, input(specs.up, dtype));
  load(down!, input(specs.down, dtype));
  load(weight!, router);
  const start = input({ shape: [tokens, d], seed: 5 }, dtype);
  const coefficient = tensor([balanceCoefficient], []);
  layer.train(train);
  const pass = (): Tensor => {
    using context = new ForwardContext({ training: train });
    const out = layer.forward(x, context);
    if (train) runBackward([out, context.losses()[0]!.value], [start, coefficient]);
    return out;
  };
  const touches = [up!, down!, weight!].map(touching);
  const leaves = { x, router: weight!, up: up!, down: down! };
  const clear = () => {
    for (const leaf of Object.values(leaves)) {
      leaf.grad?.dispose();
      leaf.grad = undefined;
    }
  };
  return {
    run() {
      if (!train) return noGrad(() => scope(() => void pass()));
      // As after an optimizer's step: nothing that was derived from the weights may be used again. (Today nothing is kept: they are packed on the fly.)
      for (const touch of touches) touch();
      scope(() => void pass());
      clear();
    },
    results() {
      if (!train) return noGrad(() => scope(() => ({ out: sampled(pass()) })));
      const out = scope(() => sampled(pass()));
      const gradients = Object.entries(leaves).map(([name, leaf]) => [`d ${name}`, sampled(leaf.grad!)]);
      clear();
      return { out, ...Object.fromEntries(gradients) };
    },
    dispose() {
      for (const t of [x, start, coefficient]) t.dispose();
      layer.dispose();
    },
  };
}

function load(parameter: Tensor, values: Tensor): void {
  parameter.write(values.readSync());
  values.dispose();
}

/** A function that writes the first element anew; it waits for no device. */
function touching(weight: Tensor): () => void {
  using first = view(weight, [1]);
  const value = first.readSync();
  return () => {
    using place = view(weight, [1]);
    place.write(value);
  };
}

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
      part === 'layer' ? layerWork(shape, routing, dtype, train) : expertsWork(shape, routing, dtype),
    peer: {
      script: 'moe_layer.py',
      request: { ...shape, ...expertWeights(shape), balanceCoefficient, dtype, part, pass, routing },
    },
  };
}

const onGpu: BenchCase[] = gpuShapes.flatMap((shape) =>
  (['uniform', 'zipf'] as const).flatMap((routing) =>
    [
      layerCase(shape, 'bf16', 'experts', false, routing),
      layerCase(shape, 'bf16', 'layer', false, routing),
      layerCase(shape, 'bf16', 'layer', true, routing),
    ].map((c) => ({ ...c, gpuOnly: true })),
  ),
);

const everywhere: BenchCase[] = shapes.flatMap((shape) =>
  (['f32', 'bf16'] as const).flatMap((dtype) =>
    (['uniform', 'zipf'] as const).flatMap((routing) => [
      layerCase(shape, dtype, 'experts', false, routing),
      layerCase(shape, dtype, 'layer', false, routing),
      layerCase(shape, dtype, 'layer', true, routing),
    ]),
  ),
);

export const cases: BenchCase[] = [...everywhere, ...onGpu];
