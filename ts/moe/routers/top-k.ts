import type { Gate } from '../../tensor/gating.ts';
import type { Tensor } from '../../tensor/index.ts';
import type { RoutingContext } from '../context.ts';
import type { GateStatistics } from '../losses.ts';
import { requireTokens } from '../router.ts';
import type { Routing } from '../routing.ts';
import { gateRouting } from './gate-routing.ts';
import { ScoringRouter } from './scoring.ts';

/** Scores experts by logits = tokens Wᵀ (+ b), in f32 or wider, and chooses the topK best. */
export class TopKRouter extends ScoringRouter {
  /** Throws ERR_LIBMOE_SHAPE for tokens of another width, ERR_LIBMOE_NOT_FINITE for logits that are no numbers. */
  override route(tokens: Tensor, context: RoutingContext): Routing {
    requireTokens(tokens, this.width, context.layerName);
    const logits = this.logits(tokens, context);
    const terms = { ...this.lossTerms, topK: this.topK };
    const chosen = this.choose(logits, context);
    return gateRouting(chosen, logits, terms, context, this.counted(chosen, logits, context));
  }

  /** What the losses are taken of. */
  protected counted(chosen: Gate, _logits: Tensor, _context: RoutingContext): GateStatistics {
    return chosen;
  }
}
