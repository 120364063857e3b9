import { z } from 'zod';
import { gate } from '../../tensor/gating.ts';
import { noGrad, type Tensor, zeros } from '../../tensor/index.ts';
import { uniform } from '../../tensor/random.ts';
import type { RoutingContext } from '../context.ts';
import { type RouterPlace, registerRouter } from '../registry.ts';
import { Router, requireTokens } from '../router.ts';
import type { Routing } from '../routing.ts';

/** topK different experts for every token, each set equally likely, weights 1/topK: what a router must beat. Nothing is learned. */
class RandomRouter extends Router {
  override readonly width: number;
  readonly topK: number;
  readonly #experts: number;

  constructor(place: RouterPlace) {
    super();
    this.width = place.width;
    this.topK = place.topK;
    this.#experts = place.experts;
  }

  override route(tokens: Tensor, context: RoutingContext): Routing {
    requireTokens(tokens, this.width, context.layerName);
    const { topK } = this;
    return noGrad(() => {
      const like = { dtype: tokens.dtype === 'f64' ? 'f64' : 'f32', device: tokens.device } as const;
      const shape = [tokens.shape[0]!, this.#experts];
      // The topK largest of equally distributed numbers are a set chosen at random.
      const experts =
        context.replayed ??
        gate(uniform(shape, { ...like, seed: context.random('choice') }), {
          topK,
          tokenMask: context.tokenMask,
        }).experts;
      // Equal logits make equal weights and the statistics of an even router.
      const chosen = gate(zeros(shape, like), {
        topK,
        experts,
        tokenMask: context.tokenMask,
        sequenceOffsets: context.sequenceOffsets,
        probabilities: context.trace,
      });
      return {
        experts: chosen.experts,
        weights: chosen.weights,
        probabilities: chosen.probabilities,
        statistics: chosen,
      };
    });
  }
}

registerRouter('random', {
  summary: 'experts by chance (control)',
  options: z.object({}),
  create: (_, place) => new RandomRouter(place),
});
