import { z } from 'zod';
import { fail } from '../../native/index.ts';
import { streamOf } from '../../nn/initialisers.ts';
import { gate } from '../../tensor/gating.ts';
import { noGrad, type Tensor, tensor, zeros } from '../../tensor/index.ts';
import { uniform } from '../../tensor/random.ts';
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
  /** Experts of the ids seen so far: only saves drawing them again. */
  readonly #known = new Map<number, readonly number[]>();

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
      const own = (): Tensor => {
        const mask = tokenMask?.toArray();
        const none = new Array<number>(topK).fill(-1);
        const experts = tokenIds.toArray().flatMap((id, t) => (mask && !mask[t] ? none : this.#of(id)));
        return tensor(Int32Array.from(experts), [count, topK], { device });
      };
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

  #of(id: number): readonly number[] {
    const found = this.#known.get(id);
    if (found) return found;
    using numbers = uniform([1, this.#experts], { seed: this.#seed, stream: id, device: 'cpu' });
    const drawn = gate(numbers, { topK: this.topK });
    const experts = drawn.experts.toArray();
    for (const t of Object.values(drawn) as Tensor[]) t.dispose();
    this.#known.set(id, experts);
    return experts;
  }
}

registerRouter('hash', {
  summary: 'experts by token id (control)',
  byTokenId: true,
  options,
  create: ({ seed }, place) => new HashRouter(seed, place),
});
