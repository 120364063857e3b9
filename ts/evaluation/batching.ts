import type { TokenRequest } from './model.ts';
import { type Window, windowsOf } from './requests.ts';

/** Requests with one and the same context that is run once, its keys and values forked for each continuation. */
export interface SharedUnit {
  kind: 'shared';
  context: readonly number[];
  /** Positions of the requests. */
  requests: number[];
  continuations: (readonly number[])[];
  /** Tokens that the network sees for it. */
  cost: number;
}

/** One window of one request. */
export interface WindowUnit {
  kind: 'window';
  request: number;
  /** Its place among the windows of the request. */
  part: number;
  window: Window;
  cost: number;
}

export type Unit = SharedUnit | WindowUnit;

/** Below this many saved tokens a second forward pass costs more than the first one saves. */
const worthSharing = 16;
const shortestShared = 4;

/**
 * Cuts requests into units of work: choices of one question share their context's forward pass where that saves tokens,
 * everything else is windows.
 * @param share whether a request may continue from the keys and values of its context
 */
export function unitsOf(
  requests: readonly TokenRequest[],
  maxLength: number,
  tokenBudget: number,
  share: (request: TokenRequest) => boolean = () => true,
): Unit[] {
  const byContext = new Map<string, number[]>();
  for (const [i, request] of requests.entries()) {
    const { context, continuation, images = [] } = request;
    if (context.length + continuation.length - 1 > maxLength || !share(request)) continue;
    const key = [...context, ...images.map(({ sha256 }) => sha256)].join(' ');
    const group = byContext.get(key);
    if (group === undefined) byContext.set(key, [i]);
    else group.push(i);
  }
  const units: Unit[] = [];
  const shared = new Set<number>();
  for (const group of byContext.values()) {
    const context = requests[group[0]!]!.context;
    if ((group.length - 1) * context.length < worthSharing || context.length < shortestShared) continue;
    for (const part of withinBudget(group, requests, tokenBudget - context.length)) {
      const continuations = part.map((i) => requests[i]!.continuation);
      const cost = continuations.reduce((sum, { length }) => sum + length - 1, context.length);
      units.push({ kind: 'shared', context, requests: part, continuations, cost });
    }
    for (const i of group) shared.add(i);
  }
  for (const [request, item] of requests.entries()) {
    if (shared.has(request)) continue;
    for (const [part, window] of windowsOf(item, maxLength).entries())
      units.push({ kind: 'window', request, part, window, cost: window.input.length });
  }
  return units;
}

/** A group in parts whose continuations fit into a batch beside the context. */
function withinBudget(
  group: readonly number[],
  requests: readonly TokenRequest[],
  budget: number,
): number[][] {
  const parts: number[][] = [];
  let tokens = Number.POSITIVE_INFINITY;
  for (const i of group) {
    const { length } = requests[i]!.continuation;
    if (tokens + length > budget) {
      parts.push([]);
      tokens = 0;
    }
    parts.at(-1)!.push(i);
    tokens += length;
  }
  return parts;
}

/**
 * Units in batches of at most `tokenBudget` tokens (a larger unit alone) and `most` units, longest first, so that memory peaks at once or never.
 */
export function batchesOf(
  units: readonly Unit[],
  tokenBudget: number,
  most: number = Number.POSITIVE_INFINITY,
): Unit[][] {
  const batches: Unit[][] = [];
  let batch: Unit[] = [];
  let tokens = 0;
  for (const unit of units.toSorted((a, b) => b.cost - a.cost)) {
    if (batch.length > 0 && (tokens + unit.cost > tokenBudget || batch.length >= most)) {
      batches.push(batch);
      batch = [];
      tokens = 0;
    }
    batch.push(unit);
    tokens += unit.cost;
  }
  if (batch.length > 0) batches.push(batch);
  return batches;
}
