// Every router as it trains, alone and in a MoE layer of LibMoE's 154M recipe, each in turn with `smoe`.
import {
  createRouter,
  ForwardContext,
  MoeLayer as Layer,
  type MoeLayer,
  type Router,
  routerDefinition,
  routerNames,
  withSlots,
} from '../ts/moe/index.ts';
import { record, runBackward } from '../ts/tensor/autograd.ts';
import { scope, type Tensor, tensor } from '../ts/tensor/index.ts';
import { view } from '../ts/tensor/tensor.ts';
import type { BenchCase, Work } from './case.ts';
import { input } from './inputs.ts';

const width = 512;
const experts = 66;
const tokens = 2048;
const sequence = 1024;
const hidden = 128;
const layers = 16;
const vocabulary = 8000;

/** With an expert for every token that is as wide as two, 6 of the others make the same work. */
const topKOf = (name: string): number => (routerDefinition(name).sharedExpert ? 6 : 8);
/** A router that chooses nothing has no matrix: its floor is the memory that it touches. */
const outputsOf: Record<string, number> = {
  hash: 0,
  random: 0,
  'moe++': experts + 8,
  'tc-moe': 2 * experts + 8,
};

/** Floating-point operations of the products, forward and backward (twice as many again). */
function routerFlops(name: string): number {
  const outputs = outputsOf[name] ?? experts;
  const product = (rows: number, of: number, to: number): number => 3 * 2 * rows * of * to;
  const scores = product(tokens, width, outputs);
  if (name === 'noisy-top-k') return 2 * scores;
  if (name === 'xmoe') return product(tokens, width, 16) + product(tokens, 16, experts);
  // The hypernetwork's weights get no gradient.
  if (name === 'hyper') return scores + (2 * product(1, width / 4, experts * (width + 1))) / 3;
  // Constant experts' own mixing, their vectors, and the residual.
  if (name === 'moe++')
    return (
      scores + product(tokens, width, 12) + product(tokens, 6, width) + product(tokens, outputs, outputs)
    );
  return scores;
}

/** Of all experts that tokens choose; of the cheap ones of moe++ and tc-moe, only an even router's share is saved. */
function expertFlops(name: string): number {
  const all: Record<string, number> = {
    dense: experts,
    // capacity 1.25 is not reached by an even router
    'moe++': (topKOf(name) * experts) / outputsOf['moe++']!,
    'tc-moe': (topKOf(name) * 2 * experts) / outputsOf['tc-moe']!,
  };
  const active = (all[name] ?? topKOf(name)) + (routerDefinition(name).sharedExpert ? 2 : 0);
  return 3 * 2 * 2 * tokens * active * width * hidden;
}

/** At the start half of remoe's gates are open, later topK of them: the state of most of a run, by a bias. */
function settle(router: Router): void {
  if (!('sparsityWeight' in router)) return;
  const { weight, bias } = router as unknown as { weight: Tensor; bias: Tensor };
  const squares = weight.toArray().reduce((a, w) => a + w * w, 0);
  // The tokens are uniform with variance 0.96; one normal number in 8.25 is above 1.168.
  const deviation = Math.sqrt((0.96 * squares) / experts);
  bias.write(new Array<number>(experts).fill(-1.168 * deviation));
}

const optionsOf = (name: string): object => (name === 'remoe' ? { bias: true } : {});

/** The tensor as the result of an operation, which tokens are in a model: their gradient is added up and handed on, not kept. */
function asResult(x: Tensor): Tensor {
  const y = view(x, x.shape);
  record({ name: 'result', inputs: [x], outputs: [y], backward: () => [] });
  return y;
}

/** What one training pass of a layer sees. */
function surroundings() {
  const x = input({ shape: [tokens, width], seed: 1, grad: true }, 'f32', true);
  const sequenceOffsets = tensor(Int32Array.from({ length: tokens / sequence + 1 }, (_, i) => i * sequence));
  const tokenIds = input({ shape: [tokens], seed: 2, below: vocabulary }, 'f32');
  const previous = new Map<number, Tensor>();
  const inputs = [x, sequenceOffsets, tokenIds];
  return {
    tokens: () => asResult(x),
    context(outputs: number): ForwardContext {
      const context = new ForwardContext({
        training: true,
        step: 1, // the end of the run: hyper has reached its topK
        totalSteps: 1,
        sequenceOffsets,
        tokenIds,
      });
      if (!previous.has(outputs)) {
        const logits = input({ shape: [tokens, outputs], seed: 3, grad: true }, 'f32', true);
        logits.owner = undefined;
        previous.set(outputs, logits);
      }
      context.collection.remember({ layer: 0, logits: asResult(previous.get(outputs)!), borrowed: true });
      return context;
    },
    dispose() {
      for (const t of [...inputs, ...previous.values()]) t.dispose();
    },
  };
}

function clear(leaves: readonly Tensor[]): void {
  for (const leaf of leaves) {
    leaf.grad?.dispose();
    leaf.grad = undefined;
  }
}

/** The losses of a pass and what backward gives them. */
function lossRoots(context: ForwardContext): [Tensor[], Tensor[]] {
  const losses = context.losses().filter(({ value }) => value.node);
  return [losses.map(({ value }) => value), losses.map(({ coefficient }) => tensor([coefficient], []))];
}

function routerWork(name: string): Work {
  const topK = topKOf(name);
  const router = createRouter(name, optionsOf(name), {
    width,
    experts,
    topK,
    layer: 1,
    layers,
    compat: 'fixed',
    shared: routerDefinition(name).sharedExpert === true,
  });
  settle(router);
  const around = surroundings();
  const leaves = router.parameters();
  const gradients = new Map<string, Tensor>();
  const gradientOf = (t: Tensor): Tensor => {
    const key = t.shape.join();
    if (!gradients.has(key)) {
      const made = input({ shape: t.shape, seed: 4 }, 'f32');
      made.owner = undefined;
      gradients.set(key, made);
    }
    return gradients.get(key)!;
  };
  return {
    run() {
      scope(() => {
        using context = around.context(outputsOf[name] ?? experts);
        const place = context.routing(1, 'bench');
        const routing = withSlots(router.route(around.tokens(), place), tokens);
        for (const loss of routing.losses ?? []) context.addRoutingLoss('bench', loss);
        const [values, coefficients] = lossRoots(context);
        const outputs = [routing.weights, routing.extra].filter((t) => t?.node !== undefined) as Tensor[];
        runBackward([...outputs, ...values], [...outputs.map(gradientOf), ...coefficients]);
      });
      clear(leaves);
    },
    dispose() {
      around.dispose();
      router.dispose();
      for (const t of gradients.values()) t.dispose();
    },
  };
}

function layerWork(name: string): Work {
  const layer: MoeLayer = new Layer({
    router: { name, ...optionsOf(name) },
    experts,
    topK: topKOf(name),
    dModel: width,
    expert: { hidden, activation: 'relu' },
    ...(routerDefinition(name).sharedExpert && { shared: { hidden: 2 * hidden } }),
    layer: 1,
    layerCount: layers,
    init: 'libmoe',
  });
  layer.train();
  settle(layer.router);
  const around = surroundings();
  const start = input({ shape: [tokens, width], seed: 5 }, 'f32');
  const leaves = layer.parameters();
  return {
    run() {
      scope(() => {
        using context = around.context(outputsOf[name] ?? experts);
        const out = layer.forward(around.tokens(), context);
        const [values, coefficients] = lossRoots(context);
        runBackward([out, ...values], [start, ...coefficients]);
      });
      clear(leaves);
    },
    dispose() {
      around.dispose();
      start.dispose();
      layer.dispose();
    },
  };
}

const base = 'smoe';

function routerCase(name: string): BenchCase {
  return {
    name: `routers/${name}/f32/train`,
    flops: routerFlops(name),
    bytes: 4 * tokens * width * 3, // tokens read twice, their gradient written
    setup: () => routerWork(name),
    ...(name !== base && {
      baseline: { name: base, flops: routerFlops(base), setup: () => routerWork(base) },
    }),
  };
}

function layerCase(name: string): BenchCase {
  const flops = (of: string): number => routerFlops(of) + expertFlops(of);
  return {
    name: `router-layers/${name}/f32/train`,
    flops: flops(name),
    bytes: 4 * experts * width * hidden * 2 * 3, // expert weights read twice, their gradients written
    setup: () => layerWork(name),
    ...(name !== base && { baseline: { name: base, flops: flops(base), setup: () => layerWork(base) } }),
  };
}

export const cases: readonly BenchCase[] = [
  ...routerNames().map(routerCase),
  ...routerNames().map(layerCase),
];
