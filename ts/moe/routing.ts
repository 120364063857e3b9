import { fail } from '../native/index.ts';
import { type Tensor, tensor, zeros } from '../tensor/index.ts';
import { cat, gatherRows, reshape } from '../tensor/shape.ts';
import type { RoutingLoss } from './collection.ts';

/** Statistics of the router's outputs R in the S sequences of the batch, as the gating op takes them. */
export interface RoutingStatistics {
  /** i32 [S, R] over all choices, and over first choices. */
  counts: Tensor;
  firstCounts: Tensor;
  /** [S, R]. */
  probabilitySums: Tensor;
  /** `[S, 5]`: see Gate.summary. */
  summary: Tensor;
}

interface RoutingExtras {
  /** [tokens, R], what the next layer's router gets as `previousLogits`. */
  logits?: Tensor | undefined;
  /** [tokens, R], only when a trace is asked for. */
  probabilities?: Tensor | undefined;
  losses?: readonly RoutingLoss[] | undefined;
  /** `[tokens, width]`: output of experts without computation, already weighted. */
  extra?: Tensor | undefined;
  statistics?: RoutingStatistics | undefined;
  /** Slots per expert, one number for all or one each, instead of what the layer's capacityFactor says; as a tensor i32 [1] or [experts]. */
  capacity?: number | readonly number[] | Tensor | undefined;
  /** i32: choices beyond a capacity that the router dropped itself, where the layer's experts have no part in them. */
  dropped?: Tensor | undefined;
  /** i32 [tokens, topK] over the router's outputs, where these differ from `experts` (signed or zero-computation experts). */
  choices?: Tensor | undefined;
}

/** Where every token goes: the same number of choices for each. */
export interface Routing extends RoutingExtras {
  /** i32 [tokens, topK]; −1 is no expert; one expert may come more than once. */
  experts: Tensor;
  /** [tokens, topK] f32 (f64 for f64), any sign. */
  weights: Tensor;
}

/** Where tokens go when their numbers of experts differ (ReMoE, expert choice): a list of A assignments in any order. */
export interface AssignmentRouting extends RoutingExtras {
  assignments: {
    /** i32 [A]. */
    token: Tensor;
    expert: Tensor;
    /** [A] f32 (f64 for f64). */
    weight: Tensor;
  };
}

/** What a router may return. */
export type AnyRouting = Routing | AssignmentRouting;

/**
 * The routing with as many choices for every token as the busiest one has (at least one), the rest −1; an assignment list keeps its order per
 * token. Reads the list from the device. Throws ERR_LIBMOE_ARGUMENT for a token out of range.
 */
export function withSlots(routing: AnyRouting, tokens: number): Routing {
  if (!('assignments' in routing)) return routing;
  const { assignments, ...rest } = routing;
  const token = assignments.token.toArray();
  const expert = assignments.expert.toArray();
  if (expert.length !== token.length || assignments.weight.size !== token.length)
    fail(
      'ERR_LIBMOE_SHAPE',
      `assignments need as many tokens, experts and weights; got ${token.length}, ${expert.length}, ${assignments.weight.size}`,
    );
  const next = new Int32Array(tokens);
  for (const t of token) {
    if (!(t >= 0 && t < tokens)) fail('ERR_LIBMOE_ARGUMENT', `an assignment names token ${t} of ${tokens}`);
    next[t]! += 1;
  }
  const topK = Math.max(
    1,
    next.reduce((a, b) => Math.max(a, b), 0),
  );
  const experts = new Int32Array(tokens * topK).fill(-1);
  const from = new Int32Array(tokens * topK).fill(token.length); // the row of zeros after the list
  next.fill(0);
  token.forEach((t, i) => {
    const slot = t * topK + next[t]!++;
    experts[slot] = expert[i]!;
    from[slot] = i;
  });
  const { device, dtype } = assignments.weight;
  const padded = cat([reshape(assignments.weight, [token.length, 1]), zeros([1, 1], { dtype, device })]);
  return {
    ...rest,
    experts: tensor(experts, [tokens, topK], { device }),
    weights: reshape(gatherRows(padded, tensor(from, undefined, { device })), [tokens, topK]),
  };
}
