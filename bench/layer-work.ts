// A MoE layer, or its routed experts, made ready to be timed.
import { ForwardContext } from '../ts/moe/context.ts';
import { Experts } from '../ts/moe/experts.ts';
import { MoeLayer } from '../ts/moe/index.ts';
import { parameter, runBackward } from '../ts/tensor/autograd.ts';
import { cast } from '../ts/tensor/elementwise.ts';
import { gate } from '../ts/tensor/gating.ts';
import { linear } from '../ts/tensor/gemm.ts';
import {
  bytesPerElement,
  type Dtype,
  memory,
  noGrad,
  scope,
  type Tensor,
  tensor,
  view,
} from '../ts/tensor/index.ts';
import { dispatchPlan } from '../ts/tensor/permutation.ts';
import type { Work } from './case.ts';
import { input, sampled } from './inputs.ts';
import { balanceCoefficient, expertWeights, load, type Routing, tokensAndRouter } from './layer-inputs.ts';
import type { Shape } from './shapes.ts';

/**
 * Sort, experts and weighted sum for choices and weights that are there. `saved`: recorded for a backward pass, which does not come; what is kept for
 * it is measured.
 */
export function expertsWork(shape: Shape, routing: Routing, dtype: Dtype, saved = false): Work {
  const { experts, topK, d, f, gated, activation } = shape;
  const { x, router } = tokensAndRouter(shape, routing, dtype, saved);
  const { up, down } = expertWeights(shape);
  const set = new Experts(experts, d, { hidden: f, gated, activation, bias: false, dtype, values: 'later' });
  load(set.up, input(up, dtype));
  load(set.down, input(down, dtype));
  const { choices, weights: given } = noGrad(() =>
    scope(() => {
      const g = gate(linear(cast(x, 'f32'), cast(router, 'f32')), { topK });
      return { choices: g.experts, weights: g.weights };
    }),
  );
  const weights = saved ? parameter(given) : given;
  const forward = () => {
    using plan = dispatchPlan(choices, { experts });
    return set.forward(x, plan, weights);
  };
  const pass = <T>(use: (out: Tensor) => T): T =>
    saved ? scope(() => use(forward())) : noGrad(() => scope(() => use(forward())));
  return {
    run: () => pass(() => {}),
    ...(saved
      ? {
          saved() {
            const before = memory().bytes;
            // The layer's input is alive already, but it is kept: it counts.
            return pass((out) => memory().bytes - before - bytesOf(out) + bytesOf(x));
          },
        }
      : { results: () => pass((out) => ({ out: sampled(out) })) }),
    dispose() {
      for (const t of [x, router, choices, weights]) t.dispose();
      set.dispose();
    },
  };
}

const bytesOf = (t: Tensor): number => t.size * bytesPerElement(t.dtype);

/** `forward` without a record; `recorded`: the forward pass of training, with losses; `train`: and the backward pass. */
export type Pass = 'forward' | 'recorded' | 'train';

/** A set of experts that does nothing: the layer's router, statistics, losses and sort are left. */
class NoExperts extends Experts {
  override forward(x: Tensor): Tensor {
    return x;
  }
}

/** A layer; `without` its experts, which then have no size. */
export function layerWork(
  shape: Shape,
  routing: Routing,
  dtype: Dtype,
  pass: Pass,
  without?: 'experts',
): Work {
  const { tokens, experts, topK, d, f, gated, activation } = shape;
  const train = pass === 'train';
  const expert = { hidden: f, gated, activation, bias: false, dtype, values: 'later' } as const;
  const layer = new MoeLayer({
    router: { name: 'smoe', balanceCoefficient },
    experts: without ? new NoExperts(experts, d, { ...expert, hidden: 1 }) : new Experts(experts, d, expert),
    topK,
    dModel: d,
    dtype,
  });
  const { x, router } = tokensAndRouter(shape, routing, dtype, pass !== 'forward');
  const parameters = layer.namedParameters();
  const [up, down, weight] = ['experts.up', 'experts.down', 'router.weight'].map(
    (name) => parameters.get(name)!,
  );
  const specs = expertWeights(shape);
  if (!without) {
    load(up!, input(specs.up, dtype));
    load(down!, input(specs.down, dtype));
  }
  load(weight!, router);
  const start = train ? input({ shape: [tokens, d], seed: 5 }, dtype) : undefined;
  const coefficient = tensor([balanceCoefficient], []);
  layer.train(pass !== 'forward');
  const once = (): Tensor => {
    using context = new ForwardContext({ training: pass !== 'forward' });
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
      if (pass === 'forward') return noGrad(() => scope(() => void once()));
      // As after an optimizer's step: nothing that was derived from the weights may be used again. (Today nothing is kept: they are packed on the fly.)
      if (train) for (const touch of touches) touch();
      scope(() => void once());
      clear();
    },
    results() {
      if (!train) return noGrad(() => scope(() => ({ out: sampled(once()) })));
      const out = scope(() => sampled(once()));
      const gradients = Object.entries(leaves).map(([name, leaf]) => [`d ${name}`, sampled(leaf.grad!)]);
      clear();
      return { out, ...Object.fromEntries(gradients) };
    },
    dispose() {
      for (const t of [x, start, coefficient]) t?.dispose();
      layer.dispose();
    },
  };
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
