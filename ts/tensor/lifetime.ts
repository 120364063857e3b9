import { AsyncLocalStorage } from 'node:async_hooks';
import type { DeviceName } from './dtype.ts';

/** Something that a scope frees at its end. */
export interface Owned {
  owner: Owner | undefined;
  /** Gives up the creator's reference. */
  dispose(): void;
}

/** The tensors of one scope. */
export class Owner {
  readonly members: Owned[] = [];
  constructor(readonly parent: Owner | undefined) {}
}

/** Where tensors are made: one for the process, one for each `onDevice` that is under way. */
export interface Place {
  device: DeviceName;
}

/** What holds for code and everything that it awaits, however it interleaves with other code. */
interface Frame {
  readonly owner: Owner | undefined;
  readonly gradient: boolean;
  readonly place: Place;
}

const root: Frame = { owner: undefined, gradient: true, place: { device: 'cpu' } };
const frames = new AsyncLocalStorage<Frame>();
const frame = (): Frame => frames.getStore() ?? root;

export const currentOwner = (): Owner | undefined => frame().owner;

export const currentPlace = (): Place => frame().place;

/** Runs `fn`, and what it awaits, with another place. */
export const inPlace = <T>(place: Place, fn: () => T): T => frames.run({ ...frame(), place }, fn);

/** Whether operations are recorded for `backward`. */
export const isGradEnabled = (): boolean => frame().gradient;

/**
 * Runs `fn` and frees every tensor made inside, except those in its result (a tensor, or arrays, maps and plain objects of them), those given to
 * {@link keep}, and what a recorded operation still needs for `backward`. Nests; `fn` may be async.
 */
export function scope<T>(fn: () => T): T {
  const outer = frame();
  const owner = new Owner(outer.owner);
  return settle(
    () => frames.run({ ...outer, owner }, fn),
    (result) => close(owner, result),
  );
}

/** Runs `fn` without recording operations: nothing inside can be differentiated, and nothing is kept for it. */
export function noGrad<T>(fn: () => T): T {
  return frames.run({ ...frame(), gradient: false }, fn);
}

/** Runs `fn` with recording on, whatever surrounds it. */
export function enableGrad<T>(fn: () => T): T {
  return frames.run({ ...frame(), gradient: true }, fn);
}

/** Takes a tensor out of every scope: it lives until `dispose()` or until it is garbage. */
export function keep<T extends Owned>(tensor: T): T {
  tensor.owner = undefined;
  return tensor;
}

function settle<T>(run: () => T, finish: (result: unknown) => void): T {
  let result: T;
  try {
    result = run();
  } catch (error) {
    finish(undefined);
    throw error;
  }
  if (result instanceof Promise) {
    return result.then(
      (value) => {
        finish(value);
        return value;
      },
      (error: unknown) => {
        finish(undefined);
        throw error;
      },
    ) as T;
  }
  finish(result);
  return result;
}

function close(owner: Owner, result: unknown): void {
  adopt(result, owner, 0);
  for (const member of owner.members) {
    if (member.owner === owner) member.dispose();
  }
}

/** Moves the tensors of a scope's result to the scope around it. */
function adopt(value: unknown, from: Owner, depth: number): void {
  if (value === null || typeof value !== 'object' || depth > 4) return;
  if ('owner' in value && 'dispose' in value) {
    const member = value as Owned;
    if (member.owner !== from) return;
    member.owner = from.parent;
    from.parent?.members.push(member);
  } else if (Array.isArray(value)) {
    for (const item of value) adopt(item, from, depth + 1);
  } else if (value instanceof Map) {
    for (const item of value.values()) adopt(item, from, depth + 1);
  } else if (Object.getPrototypeOf(value) === Object.prototype || Object.getPrototypeOf(value) === null) {
    for (const item of Object.values(value)) adopt(item, from, depth + 1);
  }
}
