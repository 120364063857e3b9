import { z } from 'zod';
import { fail } from '../../native/index.ts';
import { buffer } from '../../nn/module.ts';
import { add, assign, cast, scale } from '../../tensor/elementwise.ts';
import { type Gate, gate } from '../../tensor/gating.ts';
import { noGrad, scope, type Tensor, tensor, zeros } from '../../tensor/index.ts';
import { coefficientSchema } from '../coefficient.ts';
import type { RoutingContext } from '../context.ts';
import type { GateStatistics } from '../losses.ts';
import { type RouterPlace, registerRouter } from '../registry.ts';
import type { Compat, StepChoices } from '../router.ts';
import { checkGroups, deepseekOptions } from './expert-groups.ts';
import { TopKRouter } from './top-k.ts';
import { ownWeightOptions, ruleOf, type TopKOptions, type TopKRule, withLibmoeStart } from './top-k-rule.ts';

const options = ownWeightOptions.extend({
  /** Factor of the balance loss; default 1e-4 (sequence-wise), in `libmoe` 0.01. */
  balanceCoefficient: coefficientSchema.optional(),
  /** u: by how much an expert's bias moves after each step; 0 turns the correction off. Default 0.001. */
  biasUpdate: z.number().min(0).optional(),
  /** The part of the training run after which biases stay; 1 (default): never. DeepSeek-V3 stopped at 0.966. */
  biasUpdateUntil: z.number().min(0).max(1).optional(),
  /** A group is worth the sum of its two best biased scores. */
  ...deepseekOptions,
  /** Divide the chosen scores by their sum. */
  normalise: z.boolean().default(true),
  /** Factor of the weights; default 1, in `original` 2.5. */
  scaling: z.number().positive().optional(),
});
type Options = z.output<typeof options>;

function ownRule(options: Options & TopKOptions, place: RouterPlace): TopKRule {
  const rule = ruleOf('sigmoid', options, place);
  if (!options.normalise) rule.weights = 'scores';
  rule.losses = { ...rule.losses, over: options.balanceOver };
  return rule;
}

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
    super(ownRule(own, place), own, place);
    checkGroups('shared-v3', given.groups, place);
    this.#options = given;
    this.#scaling = scalingOf(given, place.compat);
    this.selectionBias = buffer(zeros([place.experts], { ...(place.device && { device: place.device }) }));
  }

  protected override choose(logits: Tensor, context: RoutingContext): Gate {
    const { groups } = this.#options;
    const selectionBias = noGrad(() => cast(this.selectionBias, logits.dtype));
    const chosen = super.choose(logits, context, { selectionBias, ...(groups && { groups }) });
    return this.#scaling === 1 ? chosen : { ...chosen, weights: scale(chosen.weights, this.#scaling) };
  }

  /** The balance loss counts the topK of s itself, without b and groups (equation 18 of arXiv 2412.19437). */
  protected override counted(chosen: Gate, logits: Tensor, context: RoutingContext): GateStatistics {
    const { balance, balanceCoefficient } = this.lossTerms;
    const counts = balance === 'standard' || balance === 'switch';
    if (!context.training || balanceCoefficient === 0 || !counts) return chosen;
    const { tokenMask, sequenceOffsets } = context;
    const options = { topK: this.topK, score: 'sigmoid', tokenMask, sequenceOffsets } as const;
    return { ...chosen, counts: noGrad(() => gate(logits, options)).counts };
  }

  override afterStep({ counts, step, totalSteps }: StepChoices): void {
    const { biasUpdate = 0.001, biasUpdateUntil = 1 } = this.#options;
    if (biasUpdate === 0 || (totalSteps > 0 && step > biasUpdateUntil * totalSteps)) return;
    const mean = counts.reduce((a, c) => a + c, 0) / counts.length;
    const { size, device } = this.selectionBias;
    const moves = Array.from({ length: size }, (_, i) => biasUpdate * Math.sign(mean - (counts[i] ?? 0)));
    // Added in f64 on the device, so that nothing waits for it and no digit of u is lost.
    noGrad(() =>
      scope(() => {
        const now = cast(this.selectionBias, 'f64');
        assign(this.selectionBias, add(now, tensor(moves, [size], { dtype: 'f64', device })));
      }),
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
    if (!given.normalise) return 'the chosen scores are not divided by their sum (option normalise)';
    const factor = compat === 'libmoe' ? 1 : scalingOf(given, compat);
    return factor === 1 ? undefined : `the weights sum to ${factor} (option scaling)`;
  },
  options,
  compat: ['fixed', 'libmoe', 'original'],
  sharedExpert: true,
  create(given, place) {
    if (place.compat !== 'libmoe') return new SharedV3Router(given, place);
    const without = (['groups', 'scaling', 'biasUpdate', 'biasUpdateUntil'] as const).filter(
      (option) => given[option] !== undefined,
    );
    if (without.length > 0)
      fail(
        'ERR_LIBMOE_CONFIG',
        `router "shared-v3" has no ${without.join(', ')} as LibMoE computes it: leave out ${without.length > 1 ? 'these' : 'it'}, or compat`,
      );
    const own = {
      ...given,
      activationAfterTopK: false,
      balanceCoefficient: given.balanceCoefficient ?? 0.01,
    };
    const rule = ownRule(own, place);
    withLibmoeStart(rule, own, place.compat);
    if (rule.losses.balance === 'standard') rule.probability = 'sigmoid';
    return new TopKRouter(rule, own, place);
  },
});
