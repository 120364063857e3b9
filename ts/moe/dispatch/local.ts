import type { Tensor } from '../../tensor/index.ts';
import { type DispatchPlan, type DropPolicy, dispatchPlan } from '../../tensor/permutation.ts';
import type { Routing } from '../routing.ts';
import { capacityOf, maskedCapacityOf } from './capacity.ts';

/** Number of experts, and what happens when one is full. */
export interface DispatchSettings {
  experts: number;
  /** Choices per token that the capacity is reckoned with; default those of the routing. */
  topK?: number;
  /** Default: no expert is ever full. */
  capacityFactor?: number | undefined;
  /** Slots per expert, one number or one each, instead of a factor; as a tensor i32 [1] or [experts]. */
  capacity?: number | readonly number[] | Tensor | undefined;
  dropPolicy?: DropPolicy | undefined;
  /** bool [tokens]: false tokens have no part in the capacity. */
  tokenMask?: Tensor | undefined;
  /** For the drop policy `random`. */
  seed?: number;
}

/** The plan of a layer whose experts are all in this process. */
export function dispatchLocally(routing: Routing, settings: DispatchSettings): DispatchPlan {
  const { experts, capacityFactor: factor, dropPolicy, seed, tokenMask } = settings;
  const [tokens = 0, width = 0] = routing.experts.shape;
  const { topK = width } = settings;
  const byFactor = () => {
    if (factor === undefined) return undefined;
    return tokenMask
      ? maskedCapacityOf(factor, topK, tokenMask, experts)
      : capacityOf(factor, topK, tokens, experts);
  };
  const capacity = settings.capacity ?? byFactor();
  return dispatchPlan(routing.experts, {
    experts,
    capacity,
    dropPolicy,
    weights: routing.weights,
    ...(seed !== undefined && { seed }),
  });
}
