import { fail } from '../../native/index.ts';
import { add, cast, divide, greater, maximum, minimum, scale } from '../../tensor/elementwise.ts';
import { noGrad, type Tensor } from '../../tensor/index.ts';
import { sum } from '../../tensor/reduction.ts';
import { reshape } from '../../tensor/shape.ts';

/** A factor such as 1.1 is not exact: the tolerance keeps 1.1 · 10 from becoming 12. */
const tolerance = 1 - 1e-12;

/**
 * Slots per expert: ceil(capacityFactor · topK · tokens / experts), at least 1 and at most `tokens · topK`.
 * Throws ERR_LIBMOE_ARGUMENT unless the factor is positive.
 */
export function capacityOf(capacityFactor: number, topK: number, tokens: number, experts: number): number {
  requireFactor(capacityFactor);
  const slots = wholeSlots((capacityFactor * topK * tokens) / experts);
  return Math.min(tokens * topK, slots);
}

/** {@link capacityOf} the tokens that a mask leaves, at least one: masked ones go nowhere and make no room. On the device, i32 [1]. */
export function maskedCapacityOf(
  capacityFactor: number,
  topK: number,
  mask: Tensor,
  experts: number,
): Tensor {
  requireFactor(capacityFactor);
  return noGrad(() => {
    const tokens = countedTokens(mask);
    const slots = wholeSlotsOf(divide(scale(tokens, capacityFactor * topK), experts));
    return cast(minimum(scale(tokens, topK), slots), 'i32');
  });
}

/** How many tokens a mask leaves, at least 1; f64 [1], on the device. */
export const countedTokens = (mask: Tensor): Tensor =>
  noGrad(() => maximum(reshape(sum(cast(mask, 'f64')), [1]), 1));

/** An expert's share of the choices in whole slots, at least 1. */
export const wholeSlots = (share: number): number => Math.max(1, Math.ceil(share * tolerance));

/** The same on the device, f64. */
export function wholeSlotsOf(share: Tensor): Tensor {
  return noGrad(() => {
    const least = scale(share, tolerance);
    const below = cast(cast(least, 'i32'), 'f64');
    return maximum(add(below, cast(greater(least, below), 'f64')), 1);
  });
}

function requireFactor(capacityFactor: number): void {
  if (!(capacityFactor > 0))
    fail('ERR_LIBMOE_ARGUMENT', `capacityFactor must be positive, got ${capacityFactor}`);
}
