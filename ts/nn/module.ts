import { fail } from '../native/index.ts';
import { cast } from '../tensor/elementwise.ts';
import {
  type DeviceName,
  type Dtype,
  isFloat,
  keep,
  noGrad,
  parameter,
  Tensor,
  tensor,
} from '../tensor/index.ts';

/** What {@link Module.loadStateDict} found not to match; both lists are empty after a strict load. */
export interface LoadReport {
  missing: string[];
  unexpected: string[];
}

const buffers = new WeakMap<Tensor, { persistent: boolean }>();

/**
 * Marks a tensor field of a module as a buffer: state that is not trained (running counts, routing biases). It is kept alive
 * across scopes, is listed by `namedBuffers` instead of `namedParameters`, and keeps its dtype when the module is cast.
 * `persistent: false` leaves it out of the state dict.
 */
export function buffer(value: Tensor, options: { persistent?: boolean } = {}): Tensor {
  buffers.set(value, { persistent: options.persistent ?? true });
  return keep(value);
}

/** One tensor inside a module tree: its dotted path and the place that holds it. */
interface Slot {
  path: string;
  tensor: Tensor;
  replace(by: Tensor): void;
}

/** The first of many names, for messages. */
export function shortList(names: readonly string[]): string {
  const shown = names.slice(0, 8).join(', ');
  return names.length > 8 ? `${shown}, … and ${names.length - 8} more` : shown;
}

/**
 * A part of a model: owns parameters, buffers and other modules, found by reflection over its own fields (a tensor, a module, or
 * an array of either; an array's elements get numeric path parts: `blocks.0.attention.query.weight`). Fields that must not be
 * seen are `#private`. A tensor held twice (tied weights) is listed once, under its first path.
 */
export class Module {
  #training = true;

  /** Whether the module is in training mode; set with {@link train} and {@link eval}. */
  get training(): boolean {
    return this.#training;
  }

  #visit(
    prefix: string,
    seen: Set<object>,
    onSlot: (slot: Slot) => void,
    onModule?: (path: string, module: Module) => void,
  ): void {
    if (seen.has(this)) return;
    seen.add(this);
    onModule?.(prefix, this);
    const visitValue = (path: string, value: unknown, replace: (by: Tensor) => void): void => {
      if (value instanceof Tensor) {
        onSlot({ path, tensor: value, replace });
      } else if (value instanceof Module) {
        value.#visit(path, seen, onSlot, onModule);
      } else if (Array.isArray(value)) {
        for (let i = 0; i < value.length; i++) {
          const item: unknown = value[i];
          if (item instanceof Tensor || item instanceof Module) {
            visitValue(`${path}.${i}`, item, (by) => {
              value[i] = by;
            });
          }
        }
      }
    };
    for (const [field, value] of Object.entries(this)) {
      visitValue(prefix === '' ? field : `${prefix}.${field}`, value, (by) => {
        (this as unknown as Record<string, unknown>)[field] = by;
      });
    }
  }

  #slots(): Slot[] {
    const slots: Slot[] = [];
    this.#visit('', new Set(), (slot) => slots.push(slot));
    return slots;
  }

  #named(wanted: (tensor: Tensor) => boolean): Map<string, Tensor> {
    const found = new Map<string, Tensor>();
    const seen = new Set<Tensor>();
    for (const { path, tensor: value } of this.#slots()) {
      if (seen.has(value) || !wanted(value)) continue;
      seen.add(value);
      found.set(path, value);
    }
    return found;
  }

  /** Every module of the tree by dotted path, this one under `''`. */
  namedModules(): Map<string, Module> {
    const found = new Map<string, Module>();
    this.#visit(
      '',
      new Set(),
      () => {},
      (path, module) => found.set(path, module),
    );
    return found;
  }

  /** Trainable tensors by dotted path, each once, in the order of the fields. A frozen parameter (`requiresGrad = false`) stays listed. */
  namedParameters(): Map<string, Tensor> {
    return this.#named((value) => !buffers.has(value));
  }

  /** Trainable tensors, in the order of {@link namedParameters}. */
  parameters(): Tensor[] {
    return [...this.namedParameters().values()];
  }

  /** Tensors marked with {@link buffer} by dotted path. */
  namedBuffers(): Map<string, Tensor> {
    return this.#named((value) => buffers.has(value));
  }

  /** Number of trainable values; tied tensors count once. */
  parameterCount(): number {
    return this.parameters().reduce((total, value) => total + value.size, 0);
  }

  /** Parameters and persistent buffers by dotted path. The tensors are the module's own, not copies. */
  stateDict(): Map<string, Tensor> {
    return this.#named((value) => buffers.get(value)?.persistent ?? true);
  }

  /**
   * Overwrites parameters and persistent buffers with the values of `state`, cast to the dtype each already has. Everything is checked
   * before anything is written.
   * @throws ERR_LIBMOE_CHECKPOINT naming missing and unexpected names (unless `strict` is false) and mis-shaped tensors (always).
   */
  loadStateDict(state: ReadonlyMap<string, Tensor>, options: { strict?: boolean } = {}): LoadReport {
    const own = this.stateDict();
    const missing = [...own.keys()].filter((name) => !state.has(name));
    const unexpected = [...state.keys()].filter((name) => !own.has(name));
    const problems: string[] = [];
    if (options.strict ?? true) {
      if (missing.length > 0) problems.push(`missing: ${shortList(missing)}`);
      if (unexpected.length > 0) problems.push(`unexpected: ${shortList(unexpected)}`);
    }
    const misshaped: string[] = [];
    for (const [name, target] of own) {
      const source = state.get(name);
      if (source !== undefined && source.shape.join() !== target.shape.join()) {
        misshaped.push(`${name} (expected [${target.shape.join(', ')}], got [${source.shape.join(', ')}])`);
      }
    }
    if (misshaped.length > 0) problems.push(`wrong shape: ${shortList(misshaped)}`);
    if (problems.length > 0) {
      fail(
        'ERR_LIBMOE_CHECKPOINT',
        `the state does not fit this ${this.constructor.name}; ${problems.join('; ')}. Nothing was loaded: check that the configuration is the one the weights were made with`,
      );
    }
    noGrad(() => {
      for (const [name, target] of own) {
        const source = state.get(name);
        if (source === undefined || source === target) continue;
        if (source.dtype === target.dtype) {
          target.write(source.readSync());
        } else {
          using converted = cast(source, target.dtype);
          target.write(converted.readSync());
        }
      }
    });
    return { missing, unexpected };
  }

  /**
   * Moves the module to a device and casts its floating-point parameters (buffers move but keep their dtype). Tensors are replaced, so
   * make optimizers afterwards; gradients are dropped.
   */
  to(target: { dtype?: Dtype; device?: DeviceName }): this {
    const moved = new Map<Tensor, Tensor>();
    for (const slot of this.#slots()) {
      const known = moved.get(slot.tensor);
      if (known !== undefined) {
        slot.replace(known);
        continue;
      }
      const from = slot.tensor;
      const mark = buffers.get(from);
      const dtype = mark === undefined && isFloat(from.dtype) ? (target.dtype ?? from.dtype) : from.dtype;
      const device = target.device ?? from.device;
      if (dtype === from.dtype && device === from.device) continue;
      const requiresGrad = from.requiresGrad;
      const to = noGrad(() => {
        let value = from;
        if (dtype !== from.dtype) value = cast(value, dtype);
        if (device !== value.device) {
          const here = value;
          value = tensor(here.readSync(), here.shape, { dtype, device });
          if (here !== from) here.dispose();
        }
        return value;
      });
      if (mark === undefined) {
        parameter(to);
        to.requiresGrad = requiresGrad;
      } else {
        buffer(to, mark);
      }
      moved.set(from, to);
      slot.replace(to);
    }
    for (const from of moved.keys()) {
      from.grad?.dispose();
      from.dispose();
    }
    return this;
  }

  /** Switches this module and all inside it to training mode (or, with `false`, to evaluation mode). */
  train(mode = true): this {
    for (const module of this.namedModules().values()) module.#training = mode;
    return this;
  }

  /** Switches this module and all inside it to evaluation mode. */
  eval(): this {
    return this.train(false);
  }

  /** Stops (or, with `true`, restarts) training of every parameter of this module. */
  setRequiresGrad(requiresGrad: boolean): this {
    for (const value of this.parameters()) value.requiresGrad = requiresGrad;
    return this;
  }

  /** Frees every gradient. */
  zeroGrad(): void {
    for (const value of this.parameters()) {
      value.grad?.dispose();
      value.grad = undefined;
    }
  }

  /** Frees every tensor of the tree, gradients included. The module must not be used afterwards. */
  dispose(): void {
    for (const { tensor: value } of this.#slots()) {
      value.grad?.dispose();
      value.grad = undefined;
      value.dispose();
    }
  }

  /** As {@link dispose}, for `using`. */
  [Symbol.dispose](): void {
    this.dispose();
  }
}
