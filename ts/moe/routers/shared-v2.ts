import type { z } from 'zod';
import type { Gate } from '../../tensor/gating.ts';
import type { Tensor } from '../../tensor/index.ts';
import type { RoutingContext } from '../context.ts';
import { type RouterPlace, registerRouter } from '../registry.ts';
import { checkGroups, deepseekOptions, type ExpertGroups } from './expert-groups.ts';
import { TopKRouter } from './top-k.ts';
import { ruleOf, topKOptions, undivided, withLibmoeStart } from './top-k-rule.ts';

/** With groups (DeepSeek-V2's device-limited routing) a group is worth its best score. */
const options = topKOptions.extend(deepseekOptions);

/** Whether the chosen probabilities are the weights. */
const asTheyAre = (given: z.output<typeof options>, { compat }: Pick<RouterPlace, 'compat'>): boolean =>
  !given.activationAfterTopK && !(given.normalise ?? compat !== 'original');

/**
 * The routed part of DeepSeekMoE and DeepSeek-V2 (Dai et al., arXiv 2401.06066; arXiv 2405.04434): softmax over the routed experts, the topK best,
 * beside an expert that sees every token, which the layer owns. `topK` counts routed experts alone.
 * `fixed` divides the chosen probabilities by their sum, as LibMoE does; `libmoe` counts only first choices in the vision-language balance loss
 * and starts every layer alike, with the std 0.02 whatever `init` says; `original` leaves the probabilities as they are.
 */
class SharedV2Router extends TopKRouter {
  readonly #groups: ExpertGroups;

  constructor(given: z.output<typeof options>, place: RouterPlace) {
    const rule = ruleOf('softmax', given, place);
    withLibmoeStart(rule, given, place.compat);
    if (asTheyAre(given, place)) rule.weights = 'scores';
    rule.losses = { ...rule.losses, over: given.balanceOver };
    super(rule, given, place);
    checkGroups('shared-v2', given.groups, place);
    this.#groups = given.groups;
  }

  protected override choose(logits: Tensor, context: RoutingContext): Gate {
    return super.choose(logits, context, this.#groups ? { groups: { ...this.#groups, top: 1 } } : {});
  }
}

registerRouter('shared-v2', {
  summary: 'DeepSeek-V2: softmax beside a shared expert',
  unlikeDense: (given, moe) =>
    asTheyAre(given, moe)
      ? (undivided(given) ?? 'the chosen probabilities are not divided by their sum (compat original)')
      : undefined,
  options,
  compat: ['fixed', 'libmoe', 'original'],
  sharedExpert: true,
  create: (given, place) => new SharedV2Router(given, place),
});
