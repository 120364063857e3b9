import { add } from '../../tensor/elementwise.ts';
import { type Gate, type GateOptions, gate } from '../../tensor/gating.ts';
import { noGrad, type Tensor } from '../../tensor/index.ts';
import { cat, slice } from '../../tensor/shape.ts';
import { softmax } from '../../tensor/softmax.ts';

/**
 * The gate of LibMoE's cosine routers: experts are chosen by p = softmax(logits), plus a bias [experts] if there is one, and the weights are
 * the softmax over the chosen of these sums, a second one. Probabilities and all other statistics are those of p.
 */
export function doubleSoftmaxGate(
  logits: Tensor,
  options: Omit<GateOptions, 'weights'>,
  bias?: Tensor,
): Gate {
  const p = softmax(logits);
  const { topK, tokenMask, sequenceOffsets, experts } = options;
  const own = { topK, tokenMask, sequenceOffsets, experts, weights: 'activation' } as const;
  const choice = gate(bias ? add(p, bias) : p, own);
  const first = gate(logits, { ...options, experts: choice.experts });
  return { ...first, weights: choice.weights, summary: mixed(first.summary, choice.summary) };
}

/** The summary of one gate with what another says of the weights, columns 2 and 3. */
const mixed = (of: Tensor, weights: Tensor): Tensor =>
  noGrad(() => cat([slice(of, 1, 0, 2), slice(weights, 1, 2, 4), slice(of, 1, 4, 5)], 1));
