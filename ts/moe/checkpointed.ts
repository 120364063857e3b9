import { checkpoint, isGradEnabled, keep, type Tensor } from '../tensor/index.ts';
import { currentOwner } from '../tensor/lifetime.ts';
import { Collection, withCoefficient } from './collection.ts';
import type { ForwardContext } from './context.ts';

/** What a recomputed part of the pass collected, in a fixed order: these tensors leave it as further results, so that gradients reach them. */
function collected(part: Collection): Tensor[] {
  const logits = part.previous && !part.previous.borrowed ? [part.previous.logits] : [];
  return [
    ...part.losses.flatMap(({ value, units }) => (units ? [value, units] : [value])),
    ...part.deferred.flatMap(({ parts }) => parts),
    ...logits,
  ];
}

/** Gives a kept tensor back to the scope we are in. */
function handOver(t: Tensor): Tensor {
  const owner = currentOwner();
  if (owner && !t.owner) {
    t.owner = owner;
    owner.members.push(t);
  }
  return t;
}

/**
 * {@link checkpoint} for a function that runs MoE layers: its intermediate results are computed again during backward. The routers' choices are
 * saved (topK integers per token) and replayed, losses and records are registered once, and gradients of the auxiliary losses flow. Hand the
 * context that `fn` receives on to the layers, not the one from outside.
 */
export function checkpointed<T extends Tensor | Tensor[]>(
  context: ForwardContext,
  fn: (context: ForwardContext, ...inputs: Tensor[]) => T,
  inputs: readonly Tensor[],
): T {
  if (!isGradEnabled()) return fn(context, ...inputs);
  const outer = context.collection;
  const calls = new Map(outer.calls);
  const before = outer.previous;
  let first: Collection | undefined;
  let single = false;
  let own = 0;
  const run = (...given: Tensor[]): Tensor[] => {
    const part = new Collection();
    part.calls = new Map(calls);
    if (before) part.previous = { layer: before.layer, logits: given[inputs.length]!, borrowed: true };
    part.saving = !first;
    part.replay = first ? [...first.choices] : outer.replay;
    const result = fn(context.into(part), ...given.slice(0, inputs.length));
    // Those of the first pass go to the context, those of a recomputation with its other results.
    if (first) for (const coefficient of part.coefficients()) handOver(coefficient);
    first ??= part;
    const results: Tensor[] = Array.isArray(result) ? result : [result];
    single = !Array.isArray(result);
    own = results.length;
    return [...results, ...collected(part).map(handOver)];
  };
  const choices = (): Tensor[] => first!.choices;
  const outputs = checkpoint(run, before ? [...inputs, before.logits] : inputs, choices);
  const part = first!;
  const extra = outputs.slice(own);
  const next = (): Tensor => extra.shift()!;
  for (const loss of part.losses) {
    const own = { ...loss, value: keep(next()), ...(loss.units && { units: keep(next()) }) };
    outer.losses.push(withCoefficient(own, loss.coefficientTensor ?? loss.coefficient));
  }
  for (const loss of part.deferred) outer.defer({ ...loss, parts: loss.parts.map(next) });
  if (part.previous && !part.previous.borrowed)
    outer.remember({ layer: part.previous.layer, logits: keep(next()), borrowed: false });
  outer.records.push(...part.records);
  outer.calls = part.calls;
  outer.choices.push(...part.choices);
  return (single ? outputs[0] : outputs.slice(0, own)) as T;
}
