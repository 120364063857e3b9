import { native } from '../native/index.ts';
import type { TapeNode } from './autograd.ts';
import { empty, type Tensor } from './tensor.ts';

/** Gradients on their way to a node, by output; the engine holds one reference to each. */
export class Pending {
  readonly #slots = new Map<TapeNode, (Tensor | undefined)[]>();

  /** Adds `gradient`, of which the engine takes a reference of its own. `exclusive`: nobody else will read it. */
  add(node: TapeNode, output: number, gradient: Tensor, exclusive: boolean): void {
    const slots = this.#slots.get(node) ?? [];
    this.#slots.set(node, slots);
    const before = slots[output];
    if (!before) {
      slots[output] = exclusive ? gradient.retain() : copyOf(gradient).retain();
    } else native().accumulate(gradient.handle, before.handle, 1);
  }

  take(node: TapeNode): (Tensor | undefined)[] {
    const slots = this.#slots.get(node) ?? [];
    this.#slots.delete(node);
    return node.outputShapes.map((_, i) => slots[i]);
  }

  clear(): void {
    for (const slots of this.#slots.values()) for (const t of slots) t?.release();
    this.#slots.clear();
  }
}

function copyOf(t: Tensor): Tensor {
  const copy = empty(t.shape, { dtype: t.dtype, device: t.device });
  native().copy(copy.handle, t.handle);
  return copy;
}
