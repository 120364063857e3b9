import { fail } from '../native/index.ts';
import type { Initialiser } from '../nn/initialisers.ts';
import { Module } from '../nn/module.ts';
import type { Tensor } from '../tensor/index.ts';
import type { RoutingContext } from './context.ts';
import type { AnyRouting } from './routing.ts';

/**
 * Behaviour to follow where LibMoE's code and the idea behind a method differ: `fixed` what the method clearly intends, `libmoe` what LibMoE
 * computes, `original` the method's own paper.
 */
export type Compat = 'fixed' | 'libmoe' | 'original';
/** All values of {@link Compat}. */
export const compatibilities: readonly Compat[] = ['fixed', 'libmoe', 'original'];

/** What an optimizer step sent where: all micro-batches and ranks together. */
export interface StepChoices {
  /** Optimizer steps done, this one included, and how many the run has in all (0: not known). */
  step: number;
  totalSteps: number;
  /** Choices per output of this router. */
  counts: readonly number[];
  /** Tokens that this router saw. */
  tokens: number;
  /** The same of every MoE layer of the model by its name, this one's included; with its router where the model is at hand. */
  layers: ReadonlyMap<string, { counts: readonly number[]; tokens: number; router?: Router }>;
}

/**
 * Decides which experts see a token. A router keeps nothing of a pass: losses and statistics are in the {@link AnyRouting} it returns. State
 * that outlives steps is a buffer.
 */
export abstract class Router extends Module {
  /** Width of a token, where the router depends on it. */
  readonly width?: number;

  /** Chooses experts and weights for `tokens` `[tokens, width]`; the weights are differentiable. */
  abstract route(tokens: Tensor, context: RoutingContext): AnyRouting;

  /**
   * How a parameter of this router, by its name in it, starts in a model that draws matrices by `rule`; undefined leaves what the constructor
   * gave it. Without this method `weight` follows the rule and the others stay.
   */
  start?(rule: Initialiser, parameter: string): Initialiser | undefined;

  /** How a buffer of this router starts in a model that draws from its own seed; without it, and for undefined, as the constructor left it. */
  startBuffer?(buffer: string): Initialiser | undefined;

  /** After an optimizer step. The order of layers is not defined: use nothing of another router. */
  afterStep?(step: StepChoices): void;
}

/** Throws ERR_LIBMOE_SHAPE unless `tokens` is [at least one, width]. */
export function requireTokens(tokens: Tensor, width: number, layer: string): void {
  const came = `[${tokens.shape.join(', ')}]`;
  if (tokens.rank !== 2 || tokens.shape[1] !== width)
    fail('ERR_LIBMOE_SHAPE', `MoE layer ${layer} expects [tokens, ${width}], got ${came} (set dModel)`);
  if (tokens.shape[0] === 0)
    fail(
      'ERR_LIBMOE_SHAPE',
      `MoE layer ${layer} expects at least one token, got ${came}: skip empty batches`,
    );
}
