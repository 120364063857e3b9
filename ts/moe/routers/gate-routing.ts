import { cast } from '../../tensor/elementwise.ts';
import type { Gate, GateOptions } from '../../tensor/gating.ts';
import type { Tensor } from '../../tensor/index.ts';
import type { RoutingContext } from '../context.ts';
import { type GateLossOptions, type GateStatistics, gateLosses } from '../losses.ts';
import type { Routing } from '../routing.ts';

/** Casts to f32, or to f64 beside tokens in f64: what routers compute in. */
export function widen(tokens: Tensor): (t: Tensor) => Tensor {
  const wide = tokens.dtype === 'f64' ? 'f64' : 'f32';
  return (t) => (t.dtype === wide ? t : cast(t, wide));
}

/** Options of a gate that follow from the pass and the losses that will be taken of it. */
export function passOptions(
  context: RoutingContext,
  losses: Pick<GateLossOptions, 'balance'>,
  score: GateOptions['score'] = 'softmax',
): Omit<GateOptions, 'topK'> {
  const { balance } = losses;
  return {
    score,
    probability: balance === 'standard' && score === 'sigmoid' ? 'normalised-sigmoid' : 'softmax',
    tokenMask: context.tokenMask,
    sequenceOffsets: context.sequenceOffsets,
    probabilities: context.trace,
    entropy: balance === 'step',
    experts: context.replayed,
  };
}

/** The routing that a gate over `logits` decided, with its losses; these of other statistics where a method counts otherwise. */
export function gateRouting(
  gate: Gate,
  logits: Tensor,
  losses: GateLossOptions,
  context: RoutingContext,
  counted: GateStatistics = gate,
): Routing {
  return {
    experts: gate.experts,
    weights: gate.weights,
    logits,
    probabilities: gate.probabilities,
    losses: gateLosses(counted, losses, context),
    statistics: gate,
  };
}
