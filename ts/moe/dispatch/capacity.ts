import { fail } from '../../native/index.ts';
import type { Tensor } from '../../tensor/index.ts';

/**
 * Slots per expert: ceil(capacityFactor · topK · tokens / experts), at least 1 and at most `tokens · topK`.
 * Throws ERR_LIBMOE_ARGUMENT unless the factor is positive.
 */
export function capacityOf(capacityFactor: number, topK: number, tokens: number, experts: number): number {
  if (!(capacityFactor > 0))
    fail('ERR_LIBMOE_ARGUMENT', `capacityFactor must be positive, got ${capacityFactor}`);
  // A factor such as 1.1 is not exact: the tolerance keeps 1.1 · 10 from becoming 12.
  const exact = (capacityFactor * topK * tokens) / experts;
  return Math.min(tokens * topK, Math.max(1, Math.ceil(exact * (1 - 1e-12))));
}

/** How many tokens a capacity is reckoned with, at least 1: masked ones go nowhere and make no room. Waits for the device when there is a mask. */
export const countedTokens = (tokens: number, mask: Tensor | undefined): number =>
  mask ? Math.max(1, mask.toArray().filter(Boolean).length) : tokens;
