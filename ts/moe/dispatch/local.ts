import type { Tensor } from '../../tensor/index.ts';
import { type DispatchPlan, type DropPolicy, dispatchPlan } from '../../tensor/permutation.ts';
import type { Routing } from '../routing.ts';
import { capacityOf, countedTokens } from './capacity.ts';

/** Number of experts, and what happens when one is full. */
export interface DispatchSettings {
  experts: number;
  /** Choices per token that the capacity is reckoned with; default those of the routing. */
  topK?: number;
  /** Default: no expert is ever full. */
  capacityFactor?: number | undefined;
  /** Slots per expert, one number or one each, instead of a factor. */
  capacity?: number | readonly number[] | undefined;
  dropPolicy?: DropPolicy | undefined;
  /** bool [tokens]: false tokens have no part in the capacity. */
  tokenMask?: Tensor | undefined;
  /** For the drop policy `random`. */
  seed?: number;
}

/** The plan of a layer whose experts are all in this process. */
export function dispatchLocally(routing: Routing, settings: DispatchSettings): DispatchPlan {
  const { experts, capacityFactor, dropPolicy, seed } = settings;
  const [tokens = 0, width = 0] = routing.experts.shape;
  const capacity =
    settings.capacity ??
    (capacityFactor === undefined
      ? undefined
      : capacityOf(
          capacityFactor,
          settings.topK ?? width,
          countedTokens(tokens, settings.tokenMask),
          experts,
        ));
  return dispatchPlan(routing.experts, {
    experts,
    capacity,
    dropPolicy,
    weights: routing.weights,
    ...(seed !== undefined && { seed }),
  });
}
