import { z } from 'zod';
import { fail } from '../../native/index.ts';
import { streamOf } from '../../nn/initialisers.ts';
import { gate } from '../../tensor/gating.ts';
import { noGrad, type Tensor, zeros } from '../../tensor/index.ts';
import { uniformRows } from '../../tensor/random.ts';
import type { RoutingContext } from '../context.ts';
import { type RouterPlace, registerRouter } from '../registry.ts';
import { Router, requireTokens } from '../router.ts';
import type { Routing } from '../routing.ts';

const options = z.object({
  /** Another seed is another hash function. */
  seed: z.number().int().min(0).default(42),
});

/**
 * Hash layers (Roller et al., arXiv 2106.04426), the random hash: a token's experts follow from its id in the vocabulary alone, its topK
 * different experts weigh 1/topK. Every layer has its own function. Nothing is learned.
 */
class HashRouter extends Router {
  override readonly width: number;
  readonly topK: number;
  readonly #experts: number;
  readonly #seed: number;

  constructor(seed: number, place: RouterPlace) {
    super();
    this.width = place.width;
    this.topK = place.topK;
    this.#experts = place.experts;
    this.#seed = streamOf(`hash/${seed}/${place.layer}`);
  }

  override route(tokens: Tensor, context: RoutingContext): Routing {
    requireTokens(tokens, this.width, context.layerName);
    const { tokenIds, tokenMask, sequenceOffsets, trace } = context;
    const [count = 0] = tokens.shape;
    if (!tokenIds)
      return fail(
        'ERR_LIBMOE_ARGUMENT',
        `MoE layer ${context.layerName}: the router hash needs the ids of the tokens: set tokenIds in the ForwardContext (a language model does)`,
      );
    if (tokenIds.size !== count)
      fail(
        'ERR_LIBMOE_SHAPE',
        `MoE layer ${context.layerName}: ${tokenIds.size} token ids came for ${count} tokens`,
      );
    return noGrad(() => {
      const { topK } = this;
      const { device } = tokens;
      // The topK largest of uniform numbers that the id alone decides: every choice of experts is as likely.
      const own = (): Tensor =>
        gate(uniformRows(tokenIds, this.#experts, { seed: this.#seed }), { topK, tokenMask }).experts;
      const like = { dtype: tokens.dtype === 'f64' ? 'f64' : 'f32', device } as const;
      const chosen = gate(zeros([count, this.#experts], like), {
        topK,
        experts: context.replayed ?? own(),
        tokenMask,
        sequenceOffsets,
        probabilities: trace,
      });
      const { experts, weights, probabilities } = chosen;
      return { experts, weights, probabilities, statistics: chosen };
    });
  }
}

registerRouter('hash', {
  summary: 'experts by token id (control)',
  byTokenId: true,
  options,
  create: ({ seed }, place) => new HashRouter(seed, place),
});
