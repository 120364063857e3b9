import { fail } from '../native/index.ts';
import { type ActivationName, engineActivations, requireGated } from '../nn/feed-forward.ts';
import { type Initialiser, kaimingUniform, normal, startWith } from '../nn/initialisers.ts';
import { firstValues, type LayerOptions, newParameter, requirePositive } from '../nn/linear.ts';
import { Module } from '../nn/module.ts';
import { add, cast, multiply } from '../tensor/elementwise.ts';
import { groupedFfn } from '../tensor/grouped_ffn.ts';
import { full, type Tensor, tensor, view, zeros } from '../tensor/index.ts';
import type { DispatchPlan } from '../tensor/permutation.ts';
import { sum } from '../tensor/reduction.ts';
import { gatherRows, pad, reshape, scatterAddRows, slice } from '../tensor/shape.ts';

/** LibMoE's standard deviations for a language model's MoE layer, as its code has them (Nguyen et al., "LibMoE", arXiv 2411.00918). */
export function libmoeStd(sizes: {
  width: number;
  hidden: number;
  experts: number;
  layers: number;
  initScale?: number;
}): {
  up: number;
  down: number;
  router: number;
} {
  const { width, hidden, experts, layers, initScale = 1 } = sizes;
  const gain = Math.sqrt(2 / layers) * Math.sqrt(initScale);
  return { up: width ** -0.5 * gain, down: (experts * hidden) ** -0.5 * gain, router: width ** -0.5 * gain };
}

/** How experts start: as PyTorch's Linear, as LibMoE's language models, or all weights N(0, std²) with zero biases. */
export type ExpertInit = 'linear' | 'libmoe' | { std: number };

/** The form of an expert. */
export interface ExpertOptions {
  hidden: number;
  /** Width of what an expert gives; default that of a token. */
  outputs?: number | undefined;
  activation: ActivationName;
  /** Gated (SwiGLU and kin): `up` holds the gate's rows, then those of up. */
  gated: boolean;
  bias: boolean;
}

/** What a MoE layer asks of its experts. */
export interface ExpertSet {
  readonly count: number;
  /** Σⱼ weights[t, j] · expert(x[t]) over the kept choices of the plan: x [tokens, width] → [tokens, width out]. */
  forward(x: Tensor, plan: DispatchPlan, weights: Tensor): Tensor;
}

/** All experts of a layer as packed weights: the fast path. One expert has the layout of a dense FeedForward. */
export class Experts extends Module implements ExpertSet {
  readonly count: number;
  readonly width: number;
  readonly outputs: number;
  readonly hidden: number;
  readonly activation: ActivationName;
  readonly gated: boolean;
  /** Compute the hidden activations again during backward instead of keeping them. */
  recompute: boolean;
  /** [experts, hidden or 2·hidden, width]. */
  up: Tensor;
  upBias?: Tensor;
  /** [experts, outputs, hidden]. */
  down: Tensor;
  downBias?: Tensor;

  constructor(
    count: number,
    width: number,
    options: ExpertOptions & LayerOptions & { init?: ExpertInit; layers?: number; recompute?: boolean },
  ) {
    super();
    const { hidden, outputs = width, activation, gated, bias, init = 'linear', layers = 1 } = options;
    requirePositive('Experts', { experts: count, width, outputs, hidden });
    requireGated('Experts', options);
    if (!Object.hasOwn(engineActivations, activation))
      fail(
        'ERR_LIBMOE_ARGUMENT',
        `unknown activation "${String(activation)}"; one of ${Object.keys(engineActivations).join(', ')}`,
      );
    this.count = count;
    this.width = width;
    this.outputs = outputs;
    this.hidden = hidden;
    this.activation = activation;
    this.gated = gated;
    this.recompute = options.recompute ?? false;
    const rows = gated ? 2 * hidden : hidden;
    const std = libmoeStd({ width, hidden, experts: count, layers });
    const values = options.values ?? firstValues;
    const weight = (which: 'up' | 'down'): Initialiser =>
      init === 'linear' ? kaimingUniform() : normal(init === 'libmoe' ? std[which] : init.std);
    this.up = newParameter([count, rows, width], options);
    startWith(this.up, values, 'up', weight('up'));
    if (bias) {
      this.upBias = newParameter([count, rows], options);
      if (init === 'linear') startWith(this.upBias, values, 'upBias', kaimingUniform(width));
    }
    this.down = newParameter([count, outputs, hidden], options);
    startWith(this.down, values, 'down', weight('down'));
    if (bias) {
      this.downBias = newParameter([count, outputs], options);
      if (init === 'linear') startWith(this.downBias, values, 'downBias', kaimingUniform(hidden));
    }
  }

  forward(x: Tensor, plan: DispatchPlan, weights: Tensor): Tensor {
    const { up, upBias, down, downBias, gated, recompute, outputs } = this;
    const form = { activation: engineActivations[this.activation], gated, recompute };
    if (outputs === this.width) return groupedFfn(x, plan, weights, { up, upBias, down, downBias }, form);
    // The fused operation knows one width: zeros fill up the narrower side, and get neither values nor gradients.
    const width = Math.max(outputs, this.width);
    const wide = { up: filledUp(up, 2, width), upBias, down: filledUp(down, 1, width) };
    const bias = downBias && filledUp(downBias, 1, width);
    const out = groupedFfn(filledUp(x, 1, width), plan, weights, { ...wide, downBias: bias }, form);
    return outputs < width ? slice(out, 1, 0, outputs) : out;
  }
}

/** `x` with zeros behind it along `axis`, `size` long. */
function filledUp(x: Tensor, axis: number, size: number): Tensor {
  const missing = size - x.shape[axis]!;
  return missing === 0 ? x : pad(x, [...Array<[0, 0]>(axis).fill([0, 0]), [0, missing]]);
}

/**
 * Σⱼ expert(weights[t, j] · x[t]): as {@link ExpertSet.forward}, but the weights multiply what the experts see. Makes a weighted copy of x per choice,
 * which then is a token with one choice of its own.
 */
export function onWeightedInputs(experts: ExpertSet, x: Tensor, plan: DispatchPlan, weights: Tensor): Tensor {
  const [tokens = 0, width = 0] = x.shape;
  const [, topK = 1] = weights.shape;
  const rows = tokens * topK;
  const copies = multiply(
    reshape(x, [tokens, 1, width]),
    cast(reshape(weights, [tokens, topK, 1]), x.dtype), // the dtype of x, as Llama 4 has it
  );
  using inverse = view(plan.inverse, [rows, 1]);
  using ones = full([rows, 1], 1, { dtype: weights.dtype, device: weights.device });
  const single: DispatchPlan = { ...plan, tokens: rows, topK: 1, inverse };
  const each = experts.forward(reshape(copies, [rows, width]), single, ones);
  return topK === 1 ? each : sum(reshape(each, [tokens, topK, each.shape[1]!]), 1);
}

/** A module that maps tokens [n, width] to [n, width out], as every expert must. */
export type ExpertModule = Module & {
  /** `[rows, width]` to `[rows, width]`. */
  forward(x: Tensor): Tensor;
};

/**
 * Any modules as experts: one call each on its own tokens. Their numbers size the tensors that the modules get, so every forward pass waits for
 * the device to learn them; packed {@link Experts} do not.
 */
export class ModuleExperts extends Module implements ExpertSet {
  readonly modules: ExpertModule[];

  constructor(modules: readonly ExpertModule[]) {
    super();
    if (modules.length === 0) fail('ERR_LIBMOE_ARGUMENT', 'a MoE layer needs at least one expert');
    this.modules = [...modules];
  }

  get count(): number {
    return this.modules.length;
  }

  forward(x: Tensor, plan: DispatchPlan, weights: Tensor): Tensor {
    const rows = plan.rows.toArray();
    const offsets = plan.offsets.toArray();
    const device = x.device;
    const column = reshape(weights, [weights.size, 1]);
    let out: Tensor | undefined;
    this.modules.forEach((expert, e) => {
      const slots = rows.slice(offsets[e], offsets[e + 1]);
      if (slots.length === 0) return;
      const token = tensor(
        Int32Array.from(slots, (slot) => Math.floor(slot / plan.topK)),
        undefined,
        { device },
      );
      const slot = tensor(Int32Array.from(slots), undefined, { device });
      const own = expert.forward(gatherRows(x, token));
      const weighted = multiply(own, cast(gatherRows(column, slot), own.dtype));
      const part = scatterAddRows([plan.tokens, own.shape[1]!], token, weighted);
      out = out ? add(out, part) : part;
    });
    return out ?? zeros(x.shape, { dtype: x.dtype, device });
  }
}
