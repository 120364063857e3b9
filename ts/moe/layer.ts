import { codeOf, fail } from '../native/index.ts';
import { type ActivationName, FeedForward } from '../nn/feed-forward.ts';
import type { RandomSource } from '../nn/initialisers.ts';
import { firstValues, type LayerOptions, Linear } from '../nn/linear.ts';
import { Module } from '../nn/module.ts';
import { add, multiply, scale, sigmoid } from '../tensor/elementwise.ts';
import type { Tensor } from '../tensor/index.ts';
import type { DropPolicy } from '../tensor/permutation.ts';
import type { Coefficient } from './coefficient.ts';
import { ForwardContext, type RoutingContext } from './context.ts';
import { dispatchLocally } from './dispatch/local.ts';
import { diversityLoss } from './diversity.ts';
import {
  type ExpertInit,
  type ExpertModule,
  type ExpertOptions,
  type ExpertSet,
  Experts,
  ModuleExperts,
  onWeightedInputs,
} from './experts.ts';
import { RoutingRecord } from './record.ts';
import { createRouter } from './registry.ts';
import { type Compat, Router, requireTokens, type StepChoices } from './router.ts';
import { type AnyRouting, type Routing, withSlots } from './routing.ts';
import './routers/index.ts';

export interface MoeLayerOptions extends LayerOptions {
  /** A router, the name of a registered one, or its name with its options. Default 'smoe'. */
  router?: Router | string | { name: string; [option: string]: unknown };
  /** How many experts to make as `expert` says, or the experts themselves: packed, or any modules. */
  experts: number | Experts | readonly ExpertModule[];
  /** Choices per token. */
  topK: number;
  /** `outputs`: the width of what the layer gives; default that of a token. */
  expert?: { hidden: number; outputs?: number; activation?: ActivationName; gated?: boolean; bias?: boolean };
  /** Width of a token; not needed when the router or the experts know it. */
  dModel?: number;
  /** Default: no token is ever dropped. Else an expert takes at most ceil(capacityFactor · topK · tokens / experts) choices. */
  capacityFactor?: number | undefined;
  dropPolicy?: DropPolicy | undefined;
  /**
   * A block that sees every token: `hidden` wide, otherwise like an expert; or any module. With `sigmoidGate` its output is multiplied by the sigmoid
   * of one number per token, a learned product with the token (Qwen2-MoE, arXiv 2407.10671).
   */
  shared?: { hidden: number; sigmoidGate?: boolean } | ExpertModule | undefined;
  /** 'sum' (default): shared + routed; 'half': the mean of the two, which keeps the scale of an upcycled dense layer. */
  sharedMix?: 'sum' | 'half';
  /** What the router's weights multiply: the outputs of the chosen experts (default), or their inputs (Llama 4). */
  weighted?: 'outputs' | 'inputs' | undefined;
  /** Factor of the routed output; default 1. */
  routedScaling?: number;
  /** Factor of the loss that keeps a token's experts from answering alike (see diversityLoss); default 0. */
  diversityCoefficient?: Coefficient | undefined;
  /** Changes every routing before tokens are sent: probes of analysis. */
  routingTransform?: ((routing: Routing) => Routing) | undefined;
  /** Index of the layer in the model, and the model's number of layers (initial values depend on it); default 0 of 1. */
  layer?: number;
  layerCount?: number;
  /** Name in losses and records; default the index. */
  name?: string;
  compat?: Compat;
  /** How new experts start; default 'linear'. */
  init?: ExpertInit;
  /** Compute hidden activations again during backward. */
  recompute?: boolean;
}

/** A feed-forward layer of which every token sees the few experts that the router chooses: route, dispatch, experts, combine. */
export class MoeLayer extends Module {
  readonly router: Router;
  readonly experts: ExpertSet & Module;
  readonly shared?: ExpertModule;
  /** One row: the logit of the shared block's factor. */
  readonly sharedGate?: Linear;
  readonly width: number;
  readonly topK: number;
  readonly layer: number;
  readonly name: string;
  readonly sharedMix: 'sum' | 'half';
  readonly weighted: 'outputs' | 'inputs';
  readonly routedScaling: number;
  capacityFactor: number | undefined;
  dropPolicy: DropPolicy | undefined;
  readonly diversityCoefficient: Coefficient;
  /** Changes every routing before tokens are sent. */
  routingTransform: ((routing: Routing) => Routing) | undefined;

  /** Throws ERR_LIBMOE_CONFIG or ERR_LIBMOE_ARGUMENT, naming the option, for what does not fit together. */
  constructor(options: MoeLayerOptions) {
    super();
    const { experts, topK, layer = 0, sharedMix = 'sum', weighted = 'outputs' } = options;
    const router = options.router ?? 'smoe';
    this.width = widthOf(options);
    this.topK = topK;
    this.layer = layer;
    this.name = options.name ?? String(layer);
    this.sharedMix = sharedMix;
    this.weighted = weighted;
    this.routedScaling = options.routedScaling ?? 1;
    this.capacityFactor = options.capacityFactor;
    this.dropPolicy = options.dropPolicy;
    this.diversityCoefficient = options.diversityCoefficient ?? 0;
    this.routingTransform = options.routingTransform;
    const count =
      typeof experts === 'number' ? experts : experts instanceof Experts ? experts.count : experts.length;
    if (!Number.isInteger(topK) || topK < 1 || topK > count)
      fail(
        'ERR_LIBMOE_ARGUMENT',
        `MoE layer ${this.name}: topK must be a whole number from 1 to ${count} (experts), got ${topK}`,
      );
    if (sharedMix !== 'sum' && sharedMix !== 'half')
      fail(
        'ERR_LIBMOE_ARGUMENT',
        `MoE layer ${this.name}: sharedMix must be sum or half, got ${String(sharedMix)}`,
      );
    if (sharedMix === 'half' && !options.shared)
      fail('ERR_LIBMOE_ARGUMENT', `MoE layer ${this.name}: sharedMix half needs a shared expert`);
    this.router = router instanceof Router ? router : newRouter(router, options, this.width, count);
    this.experts = newExperts(options, this.width);
    if (!options.shared) return;
    this.shared = newShared(options, this.width, options.shared);
    if (!(options.shared instanceof Module) && options.shared.sigmoidGate)
      this.sharedGate = new Linear(this.width, 1, { ...part(options, 'sharedGate'), bias: false });
  }

  /**
   * @param tokens `[tokens, width]`
   * @param context collects losses and records; without one they are dropped
   * @returns `[tokens, width]` (of the experts' output)
   * @throws ERR_LIBMOE_SHAPE, ERR_LIBMOE_NOT_FINITE
   */
  forward(tokens: Tensor, context?: ForwardContext): Tensor {
    if (context) return this.#run(tokens, context);
    using own = new ForwardContext({ training: this.training });
    return this.#run(tokens, own);
  }

  #run(tokens: Tensor, context: ForwardContext): Tensor {
    requireTokens(tokens, this.width, this.name);
    const place = context.routing(this.layer, this.name);
    const routing = this.#route(tokens, place, context);
    const plan = dispatchLocally(routing, {
      experts: this.experts.count,
      topK: this.topK,
      capacityFactor: this.capacityFactor,
      capacity: routing.capacity,
      dropPolicy: this.dropPolicy,
      tokenMask: place.tokenMask,
      seed: this.dropPolicy === 'random' ? place.random('drop') : 0,
    });
    if (!context.replaying) {
      const at = { layer: this.name, call: place.call, trace: context.trace !== false };
      context.addRecord(new RoutingRecord(at, routing, plan.offsets, plan.dropped));
    }
    for (const loss of routing.losses ?? []) context.addRoutingLoss(this.name, loss);
    if (place.training && this.diversityCoefficient !== 0 && routing.experts.shape[1]! > 1) {
      const { value, units } = diversityLoss(this.experts, tokens, routing, plan);
      context.addLoss('diversity', this.name, value, this.diversityCoefficient, units);
    }
    let out =
      this.weighted === 'inputs'
        ? onWeightedInputs(this.experts, tokens, plan, routing.weights)
        : this.experts.forward(tokens, plan, routing.weights);
    plan.dispose(); // the tape holds what it needs
    if (routing.extra) {
      if (routing.extra.shape[1] !== out.shape[1])
        fail(
          'ERR_LIBMOE_CONFIG',
          `MoE layer ${this.name}: copy and constant experts give ${routing.extra.shape[1]} numbers, the experts ${out.shape[1]}: where the widths differ set copyExperts: 0 and constantExperts: 0`,
        );
      out = add(out, routing.extra);
    }
    const half = this.sharedMix === 'half' ? 0.5 : 1;
    const factor = this.routedScaling * half;
    if (factor !== 1) out = scale(out, factor);
    if (!this.shared) return out;
    const open = this.shared.forward(tokens);
    const always = this.sharedGate ? multiply(open, sigmoid(this.sharedGate.forward(tokens))) : open;
    return add(out, half === 1 ? always : scale(always, half));
  }

  /** Hands the choices of a whole step to the router. */
  afterStep(step: StepChoices): void {
    this.router.afterStep?.(step);
  }

  /** The router's answer; of NaN it says in which layer. */
  #chosen(tokens: Tensor, place: RoutingContext): AnyRouting {
    try {
      return this.router.route(tokens, place);
    } catch (error) {
      if (codeOf(error) !== 'ERR_LIBMOE_NOT_FINITE') throw error;
      const why = (error as Error).message.replace(/^ERR_LIBMOE_NOT_FINITE: /, '');
      return fail('ERR_LIBMOE_NOT_FINITE', `MoE layer ${this.name}: ${why}`, error);
    }
  }

  #route(tokens: Tensor, place: RoutingContext, context: ForwardContext): Routing {
    const routing = withSlots(this.#chosen(tokens, place), tokens.shape[0]!);
    context.routed(this.layer, routing.choices ?? routing.experts, routing.logits);
    return this.routingTransform ? this.routingTransform(routing) : routing;
  }
}

function widthOf({ router, experts, dModel, layer = 0 }: MoeLayerOptions): number {
  const known = [
    dModel,
    router instanceof Router ? router.width : undefined,
    experts instanceof Experts ? experts.width : undefined,
  ];
  const widths = new Set(known.filter((w) => w !== undefined));
  const [width] = widths;
  if (width === undefined)
    return fail('ERR_LIBMOE_ARGUMENT', `MoE layer ${layer}: set dModel, the width of a token`);
  if (widths.size > 1)
    fail(
      'ERR_LIBMOE_ARGUMENT',
      `MoE layer ${layer}: dModel, router and experts have different widths: ${[...widths].join(', ')}`,
    );
  return width;
}

function newRouter(
  router: string | { name: string },
  options: MoeLayerOptions,
  width: number,
  experts: number,
): Router {
  const { name, ...rest } = typeof router === 'string' ? { name: router } : router;
  const { topK, layer = 0, layerCount = 1, compat = 'fixed', dtype, device, values } = options;
  const place = {
    width,
    experts,
    topK,
    layer,
    layers: layerCount,
    compat,
    shared: options.shared !== undefined,
  };
  return createRouter(name, rest, {
    ...place,
    ...(dtype && { dtype }),
    ...(device && { device }),
    ...(values && values !== 'later' && { values: routerValues(values, layer) }),
  });
}

const routerValues = ({ seed, name }: RandomSource, layer: number): RandomSource => ({
  seed,
  name: name === '' ? `router.${layer}` : `${name}.router`,
});

function expertOptions({ expert, layer = 0 }: MoeLayerOptions): ExpertOptions {
  if (!expert)
    return fail('ERR_LIBMOE_ARGUMENT', `MoE layer ${layer}: set expert: { hidden, activation, gated, bias }`);
  return { activation: 'silu', gated: false, bias: false, ...expert };
}

function part(options: MoeLayerOptions, field: string): LayerOptions {
  const { dtype, device, values = firstValues } = options;
  const own =
    values === 'later'
      ? values
      : { seed: values.seed, name: values.name === '' ? field : `${values.name}.${field}` };
  return { values: own, ...(dtype && { dtype }), ...(device && { device }) };
}

function newExperts(options: MoeLayerOptions, width: number): ExpertSet & Module {
  const { experts, init = 'linear', layerCount = 1, recompute = false } = options;
  if (experts instanceof Experts) return experts;
  if (typeof experts !== 'number') return new ModuleExperts(experts);
  return new Experts(experts, width, {
    ...expertOptions(options),
    ...part(options, 'experts'),
    init,
    layers: layerCount,
    recompute,
  });
}

function newShared(
  options: MoeLayerOptions,
  width: number,
  shared: NonNullable<MoeLayerOptions['shared']>,
): ExpertModule {
  if (shared instanceof Module) return shared;
  return new FeedForward(width, {
    ...expertOptions(options),
    hidden: shared.hidden,
    ...part(options, 'shared'),
  });
}
