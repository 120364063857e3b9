import type { GatingArguments, NoisyArguments } from '../native/gating.ts';
import { fail, native } from '../native/index.ts';
import { record } from './autograd.ts';
import { noGrad, scope } from './lifetime.ts';
import { slice } from './shape.ts';
import { empty, full, type Tensor, view } from './tensor.ts';

/** How {@link gate} scores, chooses and weighs experts, and which statistics it takes. */
export interface GateOptions {
  /** Choices per token, 1 … E. */
  topK: number;
  /** Default softmax. */
  score?: 'softmax' | 'sigmoid' | undefined;
  /**
   * How weights come from the chosen scores s (default 'renormalise'): `scores` takes them as they are, `renormalise` s / (Σ s + epsilon),
   * `activation` applies the score function to the k chosen logits alone (softmax over k; or each sigmoid).
   */
  weights?: 'scores' | 'renormalise' | 'activation' | undefined;
  /** Default 0. */
  epsilon?: number | undefined;
  /** What `probabilitySums` and `probabilities` are made of (default softmax); `normalised-sigmoid` divides a row of sigmoids by its sum. */
  probability?: 'softmax' | 'sigmoid' | 'normalised-sigmoid' | undefined;
  /** [experts], dtype of the logits: added to the scores for choosing only; gets no gradient. */
  selectionBias?: Tensor | undefined;
  /** Group-limited selection (DeepSeek-V3): only the `kept` best of `count` equal blocks of experts; a block is worth its `top` (2) best scores. */
  groups?: { count: number; kept: number; top?: number } | undefined;
  /** i32 [tokens, topK]: the choices are given (a replayed pass, a swap): only their weights and the statistics are computed. */
  experts?: Tensor | undefined;
  /** bool [tokens]: false tokens choose nothing (experts −1, weight 0) and are counted nowhere. */
  tokenMask?: Tensor | undefined;
  /** i32 [sequences + 1]: statistics per sequence; default one. */
  sequenceOffsets?: Tensor | undefined;
  /** Also return dense probabilities [tokens, experts]. */
  probabilities?: boolean | undefined;
  /** Also return the entropy of each token's softmax [tokens]. */
  entropy?: boolean | undefined;
}

/** What {@link gate} returns; floats have the dtype of the logits, S is the number of sequences. */
export interface Gate {
  /** i32 [tokens, topK], best first, ties to the lower index; −1 where the token is masked or every other logit is −∞. */
  experts: Tensor;
  /** [tokens, topK], differentiable. */
  weights: Tensor;
  /** [tokens], 0 for masked tokens, differentiable. */
  logSumExp: Tensor;
  /** [S, experts], differentiable. */
  probabilitySums: Tensor;
  /** i32 [S, experts] over all choices, and over first choices only. */
  counts: Tensor;
  firstCounts: Tensor;
  /** `[S, 5]`: tokens counted, then sums over them of: entropy of the softmax (nats), entropy of the rescaled weights, w₁ − w₂, p₁ − p₂. */
  summary: Tensor;
  /** [tokens, experts], differentiable, when asked for. */
  probabilities?: Tensor;
  /** [tokens], differentiable, when asked for. */
  entropy?: Tensor;
}

/** Columns of {@link Gate.summary}. */
export const gateSummaryColumns = 5;
const scores = ['softmax', 'sigmoid'] as const; // these three in the order of native/ops/gating.h
const rules = ['scores', 'renormalise', 'activation'] as const;
const kinds = ['softmax', 'sigmoid', 'normalised-sigmoid'] as const;

function position<T extends string>(name: string, list: readonly T[], value: T): number {
  const at = list.indexOf(value);
  if (at < 0) fail('ERR_LIBMOE_ARGUMENT', `gate: ${name} must be one of ${list.join(', ')}, got ${value}`);
  return at;
}

/**
 * Chooses `topK` experts per token from logits [tokens, experts] (f32 or f64; cast bf16 first) and takes every statistic that losses and
 * diagnostics need, in one pass.
 * @throws ERR_LIBMOE_NOT_FINITE for NaN or +∞ in a token's logits or an expert's selection bias, naming token or expert; ERR_LIBMOE_ARGUMENT
 *   when topK exceeds the number of experts; ERR_LIBMOE_SHAPE for an empty batch
 */
export function gate(logits: Tensor, options: GateOptions): Gate {
  const { topK, selectionBias, tokenMask, sequenceOffsets, groups } = options;
  const [tokens = 0, experts = 0] = logits.shape;
  const like = { dtype: logits.dtype, device: logits.device };
  const whole = { dtype: 'i32', device: logits.device } as const;
  if (logits.rank !== 2 || tokens === 0 || experts === 0) {
    const came = `[${logits.shape.join(', ')}]`;
    fail('ERR_LIBMOE_SHAPE', `gate expects logits [tokens, experts] with at least one of each, got ${came}`);
  }
  if (!Number.isInteger(topK) || topK < 1 || topK > experts)
    fail(
      'ERR_LIBMOE_ARGUMENT',
      `gate: topK must be a whole number from 1 to ${experts} (the experts), got ${topK}`,
    );
  const args = (): GatingArguments => [
    logits.handle,
    selectionBias?.handle,
    tokenMask?.handle,
    sequenceOffsets?.handle,
    topK,
    position('score', scores, options.score ?? 'softmax'),
    position('weights', rules, options.weights ?? 'renormalise'),
    options.epsilon ?? 0,
    position('probability', kinds, options.probability ?? 'softmax'),
    groups?.count ?? 1,
    groups?.kept ?? 1,
    groups?.top ?? 2,
    options.experts !== undefined,
  ];
  const sequences = sequenceOffsets ? Math.max(1, sequenceOffsets.size - 1) : 1;
  const out: Gate = {
    experts: options.experts ? view(options.experts, [tokens, topK]) : empty([tokens, topK], whole),
    weights: empty([tokens, topK], like),
    logSumExp: empty([tokens], like),
    probabilitySums: empty([sequences, experts], like),
    counts: empty([sequences, experts], whole),
    firstCounts: empty([sequences, experts], whole),
    summary: empty([sequences, gateSummaryColumns], like),
  };
  if (options.probabilities) out.probabilities = empty([tokens, experts], like);
  if (options.entropy) out.entropy = empty([tokens], like);
  try {
    native().gateForward(
      ...args(),
      out.experts.handle,
      out.weights.handle,
      out.logSumExp.handle,
      out.probabilitySums.handle,
      out.counts.handle,
      out.firstCounts.handle,
      out.summary.handle,
      out.probabilities?.handle,
      out.entropy?.handle,
    );
  } catch (error) {
    for (const t of Object.values(out) as Tensor[]) t.dispose();
    throw error;
  }
  const { experts: chosen, weights, logSumExp, probabilitySums, probabilities, entropy } = out;
  const outputs = [weights, logSumExp, probabilitySums];
  if (probabilities) outputs.push(probabilities);
  if (entropy) outputs.push(entropy);
  const saved = [logits, chosen, weights, selectionBias, tokenMask, sequenceOffsets].filter(
    (t) => t !== undefined,
  );
  record({
    name: 'gate',
    inputs: [logits],
    outputs,
    saved,
    backward: (gradients) => {
      const dlogits = empty(logits.shape, like);
      const of = (t: Tensor | undefined) => (t ? gradients[outputs.indexOf(t)]?.handle : undefined);
      const given = [
        of(weights),
        of(logSumExp),
        of(probabilitySums),
        of(probabilities),
        of(entropy),
      ] as const;
      native().gateBackward(...args(), chosen.handle, weights.handle, ...given, dlogits.handle);
      return [dlogits];
    },
  });
  return out;
}

/** What {@link noisyLogits} needs to know. */
export interface NoisyOptions {
  /** Choices per token; below the number of experts. 0: no loads are wanted. */
  topK: number;
  /** The least standard deviation of the noise; default 0. */
  floor?: number | undefined;
  /** bool [tokens]: false tokens are expected nowhere. */
  tokenMask?: Tensor | undefined;
}

/**
 * Noisy top-k gating (Shazeer et al., arXiv 1701.06538). `scores` [tokens, 2 · experts] hold the logits without noise and then the raw deviations,
 * `noise` [tokens, experts] normal numbers: logits = clean + noise · (softplus(raw) + floor). `load` [experts] is the number of tokens that each
 * expert may expect: Σ over tokens of Φ((clean − t) / deviation), t the topK-th largest logit of the others. Both are differentiable in `scores`;
 * f32 or f64. Throws ERR_LIBMOE_SHAPE and ERR_LIBMOE_ARGUMENT (topK).
 */
export function noisyLogits(
  scores: Tensor,
  noise: Tensor,
  { topK, floor = 0, tokenMask }: NoisyOptions,
): { logits: Tensor; load: Tensor } {
  const like = { dtype: scores.dtype, device: scores.device };
  const [tokens = 0, experts = 0] = noise.shape;
  const logits = empty([tokens, experts], like);
  const load = empty([experts], like);
  const rivals = empty([tokens, 2], { dtype: 'i32', device: scores.device });
  const args = (): NoisyArguments => [scores.handle, noise.handle, tokenMask?.handle, floor, topK];
  try {
    native().noisyForward(...args(), logits.handle, load.handle, rivals.handle);
  } catch (error) {
    for (const t of [logits, load, rivals]) t.dispose();
    throw error;
  }
  record({
    name: 'noisyLogits',
    inputs: [scores],
    outputs: [logits, load],
    saved: [scores, noise, logits, rivals, ...(tokenMask ? [tokenMask] : [])],
    backward: ([dLogits, dLoad]) => {
      const dScores = empty(scores.shape, like);
      const given = [dLogits?.handle, dLoad?.handle] as const;
      native().noisyBackward(...args(), logits.handle, rivals.handle, ...given, dScores.handle);
      return [dScores];
    },
  });
  rivals.dispose();
  return { logits, load };
}

/**
 * i32 [tokens, most]: the experts of every token where their number differs, the highest score first, ties to the lower index, then −1. `most` is the
 * largest number, at least 1, on the CPU; on other devices, which would have to be waited for, it is the number of experts. Without `each` all
 * experts with a positive score; with it (a number, or i32 [1], at least 1) every expert takes the `each` tokens that score highest with it, ties
 * to the lower token. Masked tokens have none. `scores` [tokens, experts], f32 or f64.
 * @throws ERR_LIBMOE_NOT_FINITE naming the first token with NaN or +∞
 */
export function expertLists(
  scores: Tensor,
  { each, tokenMask }: { each?: number | Tensor | undefined; tokenMask?: Tensor | undefined } = {},
): Tensor {
  const whole = { dtype: 'i32', device: scores.device } as const;
  return scope(() => {
    const all = empty(scores.shape, whole);
    const most = empty([1], whole);
    const taken = typeof each === 'number' ? full([1], each, whole) : each;
    native().expertLists(scores.handle, tokenMask?.handle, taken?.handle, all.handle, most.handle);
    return scores.device === 'cpu' ? noGrad(() => slice(all, 1, 0, most.item())) : all;
  });
}

/** values[t, experts[t, k]], 0 for −1: `values` [tokens, experts] (f32 or f64), `experts` i32 [tokens, topK]. Differentiable in `values`. */
export function take(values: Tensor, experts: Tensor): Tensor {
  const like = { dtype: values.dtype, device: values.device };
  const out = empty(experts.shape, like);
  try {
    native().take(values.handle, experts.handle, out.handle);
  } catch (error) {
    out.dispose();
    throw error;
  }
  record({
    name: 'take',
    inputs: [values],
    outputs: [out],
    saved: [experts],
    backward: ([dOut]) => {
      const dValues = empty(values.shape, like);
      native().takeBackward(experts.handle, dOut!.handle, dValues.handle);
      return [dValues];
    },
  });
  return out;
}
