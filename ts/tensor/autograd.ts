import { fail, native } from '../native/index.ts';
import { gradientDtype } from './dtype.ts';
import { isGradEnabled, keep, noGrad, scope } from './lifetime.ts';
import { Pending } from './pending.ts';
import { hold, letGo, requireUnwalked, restore, type Saved } from './saved.ts';
import { elements, empty, full, type Tensor, view } from './tensor.ts';

/** Where a backward function may put the gradient of an input without returning it. */
export interface GradSink {
  /** Whether input `i` wants a gradient; skip the work when not. */
  needs(input: number): boolean;
  /**
   * The accumulator of input `i`: its shape, f32 (f64 for f64). Overwrite it when `accumulate` is false, add when true, and return undefined
   * for that input. Undefined when the input wants no gradient. For weights, whose gradient is then never copied.
   */
  into(input: number): { tensor: Tensor; accumulate: boolean } | undefined;
}

/** One gradient per input, undefined where there is none or where {@link GradSink.into} took it. */
export type Backward = (
  gradients: readonly (Tensor | undefined)[],
  sink: GradSink,
  // biome-ignore lint/suspicious/noConfusingVoidType: a function that writes everything into the sink returns nothing
) => readonly (Tensor | undefined)[] | void;

/** A differentiable operation, as {@link record} takes it. */
export interface OpRecord {
  /** For error messages. */
  name: string;
  inputs: readonly (Tensor | undefined)[];
  outputs: readonly Tensor[];
  /** What backward reads; kept alive whatever scope ends. */
  saved?: readonly Tensor[];
  /**
   * Fills the only output again with the same bits, from `saved` alone. For what is cheap beside the operations that read it: the tape then lets the
   * output go with its scope and computes it again when backward reaches the first of its readers.
   */
  again?: () => void;
  backward: Backward;
}

/** A recorded operation. Ids grow, so every node comes after the nodes of its inputs. */
export interface TapeNode {
  readonly id: number;
  readonly name: string;
  readonly inputs: readonly (Tensor | undefined)[];
  readonly outputShapes: readonly (readonly number[])[];
  saved: readonly Saved[];
  backward: Backward | undefined;
  readonly again: (() => void) | undefined;
  /** Recorded operations that read the output in backward, and whether they hold what `again` gave. For those with `again`. */
  readers: number;
  renewed: boolean;
  /** Leaves that backward adds to besides its inputs: the parameters that a recomputed part uses. */
  readonly leaves: readonly Tensor[];
}

let nextId = 1;
/** While a part runs that will be recomputed: the leaves it reads. */
let leavesRead: Set<Tensor> | undefined;

export const wantsGrad = (t: Tensor | undefined): t is Tensor =>
  t !== undefined && (t.requiresGrad || t.node !== undefined);

/**
 * Declares a differentiable operation, after its native forward has filled `outputs`. Records nothing under noGrad or when no input wants a
 * gradient.
 */
export function record(op: OpRecord): void {
  if (isGradEnabled()) {
    if (op.inputs.some(wantsGrad)) attach(op);
  } else if (leavesRead) {
    for (const t of op.inputs) if (wantsGrad(t) && !t.node) leavesRead.add(t);
  }
}

/** {@link record} without its conditions. `leaves`: what backward adds to besides the inputs. */
export function attach(op: OpRecord, leaves: readonly Tensor[] = []): void {
  if (op.again && (op.outputs.length !== 1 || op.saved?.includes(op.outputs[0]!)))
    fail('ERR_LIBMOE_ARGUMENT', `${op.name}: "again" is for one output that backward does not read`);
  const node: TapeNode = {
    id: nextId++,
    name: op.name,
    inputs: op.inputs,
    outputShapes: op.outputs.map((t) => t.shape),
    saved: (op.saved ?? []).map(hold),
    backward: op.backward,
    again: op.again,
    readers: 0,
    renewed: false,
    leaves,
  };
  op.outputs.forEach((t, i) => {
    t.node = node;
    t.outputIndex = i;
    t.requiresGrad = true;
  });
}

/** Marks a tensor as a trainable leaf that outlives scopes. */
export function parameter(t: Tensor): Tensor {
  if (t.node)
    fail('ERR_LIBMOE_ARGUMENT', 'a parameter must be a leaf, this tensor was computed: detach() it first');
  t.requiresGrad = true;
  return keep(t);
}

/** The same values without history. Shares storage. */
export function detach(t: Tensor): Tensor {
  return view(t, t.shape);
}

/** Nodes that `roots` depend on, latest first, and how often each leaf is read by them. */
function reachable(roots: readonly Tensor[]): { nodes: TapeNode[]; readers: Map<Tensor, number> } {
  const seen = new Set<TapeNode>();
  const readers = new Map<Tensor, number>();
  const stack: TapeNode[] = [];
  const visit = (t: Tensor | undefined) => {
    if (!wantsGrad(t)) return;
    if (!t.node) readers.set(t, (readers.get(t) ?? 0) + 1);
    else if (!seen.has(t.node)) {
      seen.add(t.node);
      stack.push(t.node);
    }
  };
  roots.forEach(visit);
  for (let node = stack.pop(); node; node = stack.pop()) {
    node.inputs.forEach(visit);
    node.leaves.forEach(visit);
  }
  return { nodes: [...seen].sort((a, b) => b.id - a.id), readers };
}

function converted(t: Tensor, dtype: Tensor['dtype']): Tensor {
  if (t.dtype === dtype) return t;
  const out = empty(t.shape, { dtype, device: t.device });
  native().cast(t.handle, out.handle);
  return out;
}

/** The accumulator of a leaf, made when first needed. */
function leafAccumulator(leaf: Tensor): { tensor: Tensor; accumulate: boolean } {
  if (leaf.grad) return { tensor: leaf.grad, accumulate: true };
  leaf.grad = keep(empty(leaf.shape, { dtype: gradientDtype(leaf.dtype), device: leaf.device }));
  return { tensor: leaf.grad, accumulate: false };
}

function addToLeaf(leaf: Tensor, gradient: Tensor): void {
  const { tensor: sum, accumulate } = leafAccumulator(leaf);
  if (accumulate) native().accumulate(gradient.handle, sum.handle, 1);
  else native().cast(gradient.handle, sum.handle);
}

/** Walks the graph behind `roots`, latest node first; `gradients` are what the roots start from (1 for a scalar). */
export function runBackward(roots: readonly Tensor[], gradients: readonly (Tensor | undefined)[]): void {
  const { nodes, readers } = reachable(roots);
  walk(roots, gradients, nodes, (leaf) => {
    const left = (readers.get(leaf) ?? 1) - 1;
    readers.set(leaf, left);
    if (left === 0 && leaf.grad) leaf.onGradReady?.(leaf);
  });
}

/** `ready` hears of each leaf as often as it is read. */
function walk(
  roots: readonly Tensor[],
  gradients: readonly (Tensor | undefined)[],
  nodes: readonly TapeNode[],
  ready: (leaf: Tensor) => void,
): void {
  const pending = new Pending();
  noGrad(() =>
    scope(() => {
      roots.forEach((root, i) => {
        const given = gradients[i];
        if (!given && elements(root.shape) !== 1) {
          fail(
            'ERR_LIBMOE_SHAPE',
            `backward() without a gradient expects one element, got [${root.shape.join(', ')}]`,
          );
        }
        if (given && given.shape.join() !== root.shape.join()) {
          fail(
            'ERR_LIBMOE_SHAPE',
            `the gradient must be [${root.shape.join(', ')}], got [${given.shape.join(', ')}]`,
          );
        }
        if (!wantsGrad(root)) {
          fail(
            'ERR_LIBMOE_STATE',
            'backward() needs a tensor that was computed from one with requiresGrad, outside noGrad',
          );
        }
        const start = given
          ? converted(given, root.dtype)
          : full(root.shape, 1, { dtype: root.dtype, device: root.device });
        if (root.node) pending.add(root.node, root.outputIndex, start, start !== given);
        else {
          addToLeaf(root, start);
          ready(root);
        }
      });
    }),
  );
  try {
    for (const node of nodes) noGrad(() => scope(() => step(node, pending, ready)));
  } finally {
    pending.clear();
  }
}

function step(node: TapeNode, pending: Pending, ready: (leaf: Tensor) => void): void {
  requireUnwalked(node);
  const gradients = pending.take(node);
  const direct: (Tensor | undefined)[] = [];
  const sink: GradSink = {
    needs: (i) => wantsGrad(node.inputs[i]),
    into: (i) => {
      const input = node.inputs[i];
      if (!wantsGrad(input)) return undefined;
      if (!input.node) return leafAccumulator(input);
      const t = empty(input.shape, { dtype: gradientDtype(input.dtype), device: input.device });
      direct[i] = t;
      return { tensor: t, accumulate: false };
    },
  };
  try {
    const wanted = gradients.some((g) => g !== undefined);
    if (wanted) restore(node.saved);
    const returned = wanted ? (node.backward?.(gradients, sink) ?? []) : [];
    const handedOver = new Set<Tensor>();
    const last = node.inputs.findLastIndex(wantsGrad);
    // One that came in may go on to its last reader as it is, unless others got views of it.
    const free = (gradient: Tensor, i: number) =>
      !gradients.includes(gradient) || (i === last && returned.every((g) => !g || g === gradient));
    node.inputs.forEach((input, i) => {
      if (!wantsGrad(input)) return;
      const gradient = returned[i] ?? direct[i];
      if (gradient) {
        if (elements(gradient.shape) !== elements(input.shape)) {
          fail(
            'ERR_LIBMOE_SHAPE',
            `${node.name} returned a gradient [${gradient.shape.join(', ')}] for input ${i} of [${input.shape.join(', ')}]`,
          );
        }
        if (input.node) {
          const same = converted(gradient, input.dtype);
          // A gradient handed on unchanged, or to two inputs, must not be added into by either.
          const exclusive = same !== gradient || (!handedOver.has(gradient) && free(gradient, i));
          if (exclusive) handedOver.add(gradient);
          pending.add(input.node, input.outputIndex, same, exclusive);
        } else addToLeaf(input, gradient);
      }
      if (!input.node) ready(input);
    });
    node.leaves.forEach(ready);
  } finally {
    for (const g of gradients) g?.release();
    node.saved.forEach(letGo);
    node.saved = [];
    node.backward = undefined;
  }
}

/** Backward of a part inside a backward pass: that one knows who else reads the leaves, and says when they are complete. */
export function runBackwardWithin(
  roots: readonly Tensor[],
  gradients: readonly (Tensor | undefined)[],
): void {
  walk(roots, gradients, reachable(roots).nodes, () => {});
}

/** Runs `fn` without recording and says which leaves it reads. */
export function leavesReadBy<T>(fn: () => T): { result: T; leaves: Set<Tensor> } {
  const leaves = new Set<Tensor>();
  const around = leavesRead;
  leavesRead = leaves;
  try {
    return { result: noGrad(fn), leaves };
  } finally {
    leavesRead = around;
  }
}
