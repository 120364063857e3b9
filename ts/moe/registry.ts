import { z } from 'zod';
import { fail } from '../native/index.ts';
import type { RandomSource } from '../nn/initialisers.ts';
import type { LayerOptions } from '../nn/linear.ts';
import { explainIssues, nearestKey } from '../storage/schema-errors.ts';
import { type Compat, compatibilities, type Router } from './router.ts';
import { lossOptions } from './routers/loss-options.ts';

/** What a router is made for. */
export interface RouterPlace {
  /** Width of a token. */
  width: number;
  /** Experts of the layer, and how many of them a token chooses. */
  experts: number;
  topK: number;
  /** Index of the layer, and number of layers of the model. */
  layer: number;
  layers: number;
  compat: Compat;
  dtype?: LayerOptions['dtype'];
  device?: LayerOptions['device'];
  /** Whether the layer has an expert that sees every token; undefined outside a layer. */
  shared?: boolean;
  /** What initial values are drawn from; default seed 42 and the layer's index. A model draws them anew from its own seed. */
  values?: RandomSource;
}

/** What routing a token costs, as expected of balanced loads where it varies. */
export interface TokenCost {
  /** Experts that compute for a token. */
  experts: number;
  /** The same in training, meaned over its steps, where that differs. */
  trainingExperts?: number;
  /** Operations of the router itself in a forward pass; default 2 for each of its parameters. */
  routerFlops?: number;
}

/** What {@link registerRouter} must know of an algorithm. */
export interface RouterDefinition<Options extends z.ZodType = z.ZodType> {
  /** What users may set; unknown keys are refused. */
  options: Options;
  /** Behaviours this router has; default ['fixed']. */
  compat?: readonly Compat[];
  /** One line for lists of routers. */
  summary?: string;
  /**
   * Why a layer of copies of one dense layer does not compute what that layer does: weights that do not sum to 1, choices that are no experts.
   * Undefined, or the method left out, where it does.
   */
  unlikeDense?(
    options: z.output<Options>,
    place: Pick<RouterPlace, 'experts' | 'topK' | 'compat'>,
  ): string | undefined;
  /** The method has an expert that sees every token: a layer without one is refused, and upcycling makes one unless told otherwise. */
  sharedExpert?: boolean;
  /** The method goes by the ids of tokens, which rows of images have not. */
  byTokenId?: boolean;
  /** What it costs to route one token, where that is not topK experts and 2 operations per parameter of the router. */
  tokenCost?(options: z.output<Options>, place: RouterPlace): Partial<TokenCost>;
  /** Makes the router of one layer from its checked options. */
  create(options: z.output<Options>, place: RouterPlace): Router;
}

const routers = new Map<string, RouterDefinition>();

/** Makes a router known to recipes, checkpoints and {@link createRouter} under a name. Throws ERR_LIBMOE_ARGUMENT when the name is taken. */
export function registerRouter<Options extends z.ZodType>(
  name: string,
  definition: RouterDefinition<Options>,
): void {
  if (!/^[a-z][a-z0-9+-]*$/.test(name))
    fail(
      'ERR_LIBMOE_ARGUMENT',
      `a router's name is lower-case words joined by "-" (digits and "+" may follow a letter), got "${name}"`,
    );
  if (routers.has(name))
    fail('ERR_LIBMOE_ARGUMENT', `a router "${name}" is registered already; choose another name`);
  routers.set(name, definition as unknown as RouterDefinition);
}

/** Takes a router out of the registry, for tests and interactive sessions; false when there is none. */
export const unregisterRouter = (name: string): boolean => routers.delete(name);

/** Names of all registered routers, sorted. */
export const routerNames = (): string[] => [...routers.keys()].sort();

/** The definition of a router. Throws ERR_LIBMOE_CONFIG listing the names there are, the nearest first. */
export function routerDefinition(name: string): RouterDefinition {
  const found = routers.get(name);
  if (found) return found;
  const near = nearestKey(name, routerNames());
  return fail(
    'ERR_LIBMOE_CONFIG',
    `there is no router "${name}"${near ? `, did you mean "${near}"?` : ''} (known: ${routerNames().join(', ')})`,
  );
}

/**
 * Makes a router from its name and options. Throws ERR_LIBMOE_CONFIG for an unknown name, unknown or wrong options, and a `compat` that this
 * router does not have.
 */
export function createRouter(name: string, options: unknown, place: RouterPlace): Router {
  const { definition, checked } = checkedRouter(name, options, place);
  return definition.create(checked, place);
}

/** What it costs to send a token through a router and its experts. Throws as {@link createRouter}. */
export function tokenCost(name: string, options: unknown, place: RouterPlace): TokenCost {
  const { definition, checked } = checkedRouter(name, options, place);
  return { experts: place.topK, ...definition.tokenCost?.(checked, place) };
}

function checkedRouter(
  name: string,
  options: unknown,
  place: RouterPlace,
): { definition: RouterDefinition; checked: unknown } {
  const definition = routerDefinition(name);
  const known = definition.compat ?? ['fixed'];
  if (!compatibilities.includes(place.compat) || !known.includes(place.compat))
    fail(
      'ERR_LIBMOE_CONFIG',
      `router "${name}" has no compat "${place.compat}": choose ${known.join(' or ')}`,
    );
  if (definition.sharedExpert && place.shared === false)
    fail(
      'ERR_LIBMOE_CONFIG',
      `router "${name}" works beside an expert that sees every token: set shared: { hidden }`,
    );
  const schema = definition.options instanceof z.ZodObject ? definition.options.strict() : definition.options;
  const losses = schema instanceof z.ZodObject ? foreignLosses(schema.shape, options) : [];
  if (losses.length > 0)
    fail(
      'ERR_LIBMOE_CONFIG',
      `router "${name}" takes no ${losses.join(', ')}: it has no scores to take such a loss of, or makes its own; leave ${losses.length > 1 ? 'them' : 'it'} out`,
    );
  const parsed = schema.safeParse(options ?? {});
  if (!parsed.success)
    return fail(
      'ERR_LIBMOE_CONFIG',
      `router "${name}": ${explainIssues(schema, parsed.error.issues, options ?? {})}`,
    );
  return { definition, checked: parsed.data };
}

/** Options of the usual losses that were given to a router which has none of them. */
const foreignLosses = (known: object, given: unknown): string[] =>
  Object.keys(given ?? {}).filter((key) => key !== 'flavour' && key in lossOptions.shape && !(key in known));
