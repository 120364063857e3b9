import { z } from 'zod';
import { fail } from '../../native/index.ts';
import { buffer } from '../../nn/module.ts';
import { cast, scale } from '../../tensor/elementwise.ts';
import type { Gate } from '../../tensor/gating.ts';
import { noGrad, type Tensor, zeros } from '../../tensor/index.ts';
import { coefficientSchema } from '../coefficient.ts';
import type { RoutingContext } from '../context.ts';
import { type RouterPlace, registerRouter } from '../registry.ts';
import type { Compat, StepChoices } from '../router.ts';
import { TopKRouter } from './top-k.ts';
import { ownWeightOptions, ruleOf } from './top-k-rule.ts';

const options = ownWeightOptions.extend({
  /** Factor of the balance loss; default 1e-4 (sequence-wise), in `libmoe` 0.01. */
  balanceCoefficient: coefficientSchema.optional(),
  /** u: by how much an expert's bias moves after each step; 0 turns the correction off. */
  biasUpdate: z.number().min(0).default(0.001),
  /** The part of the training run after which biases stay; 1: never. DeepSeek-V3 stopped at 0.966. */
  biasUpdateUntil: z.number().min(0).max(1).default(1),
  /** Only the `kept` best of `count` equal groups of experts may be chosen from. */
  groups: z
    .strictObject({ count: z.number().int().positive(), kept: z.number().int().positive() })
    .optional(),
  /** Factor of the weights; default 1, in `original` 2.5. */
  scaling: z.number().positive().optional(),
});
type Options = z.output<typeof options>;

/**
 * The routed part of DeepSeek-V3 (arXiv 2412.19437): sigmoid scores s, choice by s + b, weights of s alone, γ · s / Σ s. b is no parameter:
 * after each optimizer step an expert with fewer choices than the mean of the global batch gains u, one with more loses u (Wang et al.,
 * arXiv 2408.15664).
 */
class SharedV3Router extends TopKRouter {
  /** f32 [experts]: b. */
  selectionBias: Tensor;
  readonly #options: Options;
  readonly #scaling: number;

  constructor(given: Options, place: RouterPlace) {
    const own = {
      ...given,
      activationAfterTopK: false,
      balance: given.balance ?? 'standard',
      balanceCoefficient: given.balanceCoefficient ?? 1e-4,
    } as const;
    super(ruleOf('sigmoid', own, place), own, place);
    const { groups } = given;
    if (groups && (place.experts % groups.count !== 0 || groups.kept > groups.count))
      fail(
        'ERR_LIBMOE_CONFIG',
        `router "shared-v3": groups.count ${groups.count} must divide the ${place.experts} experts and groups.kept ${groups.kept} not exceed it`,
      );
    if (groups && (groups.kept * place.experts) / groups.count < place.topK)
      fail(
        'ERR_LIBMOE_CONFIG',
        `router "shared-v3": ${groups.kept} groups of ${place.experts / groups.count} experts hold fewer than topK ${place.topK}: raise groups.kept`,
      );
    this.#options = given;
    this.#scaling = scalingOf(given, place.compat);
    this.selectionBias = buffer(zeros([place.experts], { device: place.device ?? 'cpu' }));
  }

  protected override choose(logits: Tensor, context: RoutingContext): Gate {
    const { groups } = this.#options;
    const selectionBias = noGrad(() => cast(this.selectionBias, logits.dtype));
    const chosen = super.choose(logits, context, { selectionBias, ...(groups && { groups }) });
    return this.#scaling === 1 ? chosen : { ...chosen, weights: scale(chosen.weights, this.#scaling) };
  }

  override afterStep({ counts, step, totalSteps }: StepChoices): void {
    const { biasUpdate, biasUpdateUntil } = this.#options;
    if (biasUpdate === 0 || (totalSteps > 0 && step > biasUpdateUntil * totalSteps)) return;
    const mean = counts.reduce((a, c) => a + c, 0) / counts.length;
    this.selectionBias.write(
      this.selectionBias.toArray().map((b, i) => b + biasUpdate * Math.sign(mean - (counts[i] ?? 0))),
    );
  }
}

function scalingOf({ scaling }: Options, compat: Compat): number {
  return scaling ?? (compat === 'original' ? 2.5 : 1);
}

// `libmoe` is σ-MoE beside a shared expert: LibMoE never moves a bias, and its language models balance sigmoids that do not sum to 1.
registerRouter('shared-v3', {
  summary: 'DeepSeek-V3: sigmoids beside a shared expert, balanced by biases',
  unlikeDense: (given, { compat }) => {
    const factor = compat === 'libmoe' ? 1 : scalingOf(given, compat);
    return factor === 1 ? undefined : `the weights sum to ${factor} (option scaling)`;
  },
  options,
  compat: ['fixed', 'libmoe', 'original'],
  sharedExpert: true,
  create(given, place) {
    if (place.compat !== 'libmoe') return new SharedV3Router(given, place);
    const own = {
      ...given,
      activationAfterTopK: false,
      balanceCoefficient: given.balanceCoefficient ?? 0.01,
    };
    const rule = ruleOf('sigmoid', own, place);
    if (rule.losses.balance === 'standard') rule.probability = 'sigmoid';
    return new TopKRouter(rule, own, place);
  },
});
