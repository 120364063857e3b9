import type { CheapArguments } from '../native/grouped_ffn.ts';
import { fail, native } from '../native/index.ts';
import { record } from './autograd.ts';
import { isGradEnabled } from './lifetime.ts';
import type { DispatchPlan } from './permutation.ts';
import { empty, emptyLike, type Tensor } from './tensor.ts';

/** Between an expert's two matrices; `clamped_swiglu` for gated ones only: quickGelu(min(gate, 7)) · (clamp(up, ±7) + 1). */
export type ExpertActivation =
  | 'identity'
  | 'relu'
  | 'silu'
  | 'gelu_erf'
  | 'gelu_tanh'
  | 'quick_gelu'
  | 'clamped_swiglu';

/** In the order of native/ops/grouped_ffn.h. */
export const expertActivations: readonly ExpertActivation[] = [
  'identity',
  'relu',
  'silu',
  'gelu_erf',
  'gelu_tanh',
  'quick_gelu',
  'clamped_swiglu',
];

/** The weights of all experts of a layer, in one dtype. */
export interface ExpertWeights {
  /** [experts, hidden, d], or gated [experts, 2 * hidden, d]: the gate rows, then the up rows. */
  up: Tensor;
  /** [experts, hidden], or gated [experts, 2 * hidden]. */
  upBias?: Tensor | undefined;
  /** [experts, d, hidden]. */
  down: Tensor;
  /** [experts, d]. */
  downBias?: Tensor | undefined;
}

/** The form of the experts, and what is kept for backward. */
export interface GroupedFfnOptions {
  activation: ExpertActivation;
  /** `act(gate) * up` (SwiGLU and its kin, Shazeer, arXiv 2002.05202) instead of `act(up)`. */
  gated: boolean;
  /** Keep only x for backward and compute the first product again there. Default false: its result is kept. */
  recompute?: boolean;
}

/**
 * All experts of a MoE layer: `out[t] = Σ_j weights[t, j] · FFN_{expert of choice j}(x[t])`, over the choices that the plan kept, in the order
 * of j. Gathers, activates, weights and combines without copies of x. Tokens without a kept choice get zeros.
 * Differentiable in x, the gate weights and all expert weights (the memory-lean form of SonicMoE, arXiv 2512.14080: only x and the
 * pre-activation are kept). Results do not depend on the number of threads, those of a token not on other tokens.
 *
 * @param x [tokens, d] f32, bf16 or f64.
 * @param plan from dispatchPlan(); may be disposed before backward runs.
 * @param weights [tokens, topK] f32 (f64 for f64), any sign.
 * @throws ERR_LIBMOE_SHAPE, ERR_LIBMOE_DTYPE for tensors that do not fit together; ERR_LIBMOE_ARGUMENT for an unknown activation or a plan
 * that contradicts itself.
 */
export function groupedFfn(
  x: Tensor,
  plan: DispatchPlan,
  weights: Tensor,
  experts: ExpertWeights,
  options: GroupedFfnOptions,
): Tensor {
  const { up, upBias, down, downBias } = experts;
  const activation = expertActivations.indexOf(options.activation);
  if (activation < 0) {
    fail(
      'ERR_LIBMOE_ARGUMENT',
      `activation expects one of ${expertActivations.join(', ')}, got ${String(options.activation)}`,
    );
  }
  const inputs = [x, weights, up, down, upBias, downBias] as const;
  const { rows, offsets, inverse } = plan;
  const layer = () =>
    [
      activation,
      options.gated,
      x.handle,
      rows.handle,
      offsets.handle,
      inverse.handle,
      weights.handle,
      up.handle,
      upBias?.handle ?? null,
      down.handle,
      downBias?.handle ?? null,
    ] as const;
  const wanted = isGradEnabled() && inputs.some((t) => t?.requiresGrad);
  const out = emptyLike(x);
  const z =
    wanted && !options.recompute
      ? empty([rows.size, up.shape[1] ?? 0], { dtype: x.dtype, device: x.device })
      : undefined;
  native().groupedFfn(...layer(), z?.handle ?? null, out.handle);
  record({
    name: 'groupedFfn',
    inputs,
    outputs: [out],
    saved: [...inputs, rows, offsets, inverse, z].filter((t) => t !== undefined),
    backward([dOut], sink) {
      if (!dOut) return;
      const dx = sink.needs(0) ? emptyLike(x) : undefined;
      const dWeights = sink.needs(1) ? emptyLike(weights) : undefined;
      const [dUp, dDown, dUpBias, dDownBias] = [sink.into(2), sink.into(3), sink.into(4), sink.into(5)];
      native().groupedFfnBackward(
        ...layer(),
        z?.handle ?? null,
        dOut.handle,
        dx?.handle ?? null,
        dWeights?.handle ?? null,
        dUp?.tensor.handle ?? null,
        dUpBias?.tensor.handle ?? null,
        dDown?.tensor.handle ?? null,
        dDownBias?.tensor.handle ?? null,
        dUp?.accumulate ?? false,
        dUpBias?.accumulate ?? false,
        dDown?.accumulate ?? false,
        dDownBias?.accumulate ?? false,
      );
      return [dx, dWeights];
    },
  });
  z?.dispose();
  return out;
}

/** What {@link cheapExperts} combines. */
export interface CheapExpertsOptions {
  /** i32 [tokens, topK] router outputs, −1 for none, and their weights, f32 (f64 for f64). */
  choices: Tensor;
  weights: Tensor;
  /** Outputs `first` … `first + copies − 1` give the token; the c after them constants. */
  first: number;
  copies: number;
  /** [tokens, 2 · c] and [c, d] in the dtype of the weights: of the softmax over two that mixes token and vector, and the vectors. */
  constants?: { mix: Tensor; vectors: Tensor } | undefined;
}

/**
 * Weighted output of experts that need no product (Jin et al., "MoE++", arXiv 2410.07348), [tokens, d] like `x`: copies x, and constants
 * α₀ x + α₁ v with α the softmax of a token's two numbers in `mix`. Choices of other outputs have no part. Differentiable in all but choices.
 * @throws ERR_LIBMOE_SHAPE, ERR_LIBMOE_DTYPE
 */
export function cheapExperts(x: Tensor, options: CheapExpertsOptions): Tensor {
  const { choices, weights, first, copies, constants } = options;
  const { mix, vectors } = constants ?? {};
  const args = (): CheapArguments => [
    x.handle,
    choices.handle,
    weights.handle,
    mix?.handle ?? null,
    vectors?.handle ?? null,
    first,
    copies,
  ];
  const out = emptyLike(x);
  try {
    native().cheapExperts(...args(), out.handle);
  } catch (error) {
    out.dispose();
    throw error;
  }
  const inputs = [x, weights, mix, vectors];
  record({
    name: 'cheapExperts',
    inputs,
    outputs: [out],
    saved: [...inputs, choices].filter((t) => t !== undefined),
    backward([dOut]) {
      const dx = emptyLike(x);
      const dWeights = emptyLike(weights);
      const dMix = mix && emptyLike(mix);
      const dVectors = vectors && emptyLike(vectors);
      const given = [dx.handle, dWeights.handle, dMix?.handle ?? null, dVectors?.handle ?? null] as const;
      native().cheapExpertsBackward(...args(), dOut!.handle, ...given);
      return [dx, dWeights, dMix, dVectors];
    },
  });
  return out;
}
