import { z } from 'zod';
import { fail } from '../native/index.ts';
import { explainIssues } from '../storage/schema-errors.ts';
import { cast } from '../tensor/elementwise.ts';
import { isFloat, keep, noGrad, scope, type Tensor, zeros } from '../tensor/index.ts';
import { adamwStep, sgdStep } from '../tensor/optimizer.ts';
import { type ParameterSettings, parameterGroupOptions, settingsOf } from './parameter-groups.ts';

/** What changes parameters by their gradients. Its state is plain tensors by name, so that checkpoints need to know nothing of it. */
export interface Optimizer {
  readonly name: string;
  /** The trained parameters by dotted name. */
  readonly parameters: ReadonlyMap<string, Tensor>;
  /** Per parameter: its tensors of state by slot, each of the parameter's shape. */
  readonly slots: ReadonlyMap<string, Readonly<Record<string, Tensor>>>;
  /** Per parameter: updates it has had, for bias correction. */
  readonly steps: Map<string, number>;
  /**
   * Updates every parameter that has a gradient. Gradients are multiplied by `factor` (f64 [1], clipping) on the way; where that is not
   * finite no tensor changes, and the caller takes the count of updates back.
   */
  step(learningRate: number, factor?: Tensor): void;
  /** Frees all gradients. */
  zeroGrad(): void;
  /** Frees the state. */
  dispose(): void;
}

const decay = z.number().nonnegative();
const beta = z.number().min(0).lt(1);

/** Options of AdamW (Loshchilov and Hutter, arXiv 1711.05101). */
export const adamwOptions = z.strictObject({
  name: z.literal('adamw'),
  beta1: beta.default(0.9),
  beta2: beta.default(0.999),
  eps: z.number().positive().default(1e-8),
  /** Decoupled: the parameter shrinks by learning rate × weightDecay, apart from the gradient. */
  weightDecay: decay.default(0.01),
  ...parameterGroupOptions,
});

/** Options of stochastic gradient descent with momentum. */
export const sgdOptions = z.strictObject({
  name: z.literal('sgd'),
  momentum: beta.default(0),
  nesterov: z.boolean().default(false),
  /** Added to the gradient, as usual for SGD. */
  weightDecay: decay.default(0),
  ...parameterGroupOptions,
});

/** Options of an optimizer as recipes write them. */
export const optimizerOptions = z.discriminatedUnion('name', [adamwOptions, sgdOptions]);
/** Options of an optimizer; defaults may be left out. */
export type OptimizerOptions = z.input<typeof optimizerOptions>;

/**
 * Makes an optimizer for those of `parameters` that want gradients. bf16 parameters get an f32 master copy that is updated in their
 * place and rounded once. Throws ERR_LIBMOE_CONFIG (bad option, pattern that fits nothing), ERR_LIBMOE_ARGUMENT (nothing to train).
 */
export function optimizer(parameters: ReadonlyMap<string, Tensor>, options: OptimizerOptions): Optimizer {
  const parsed = optimizerOptions.safeParse(options);
  if (!parsed.success)
    fail('ERR_LIBMOE_CONFIG', `optimizer: ${explainIssues(optimizerOptions, parsed.error.issues, options)}`);
  const trained = new Map([...parameters].filter(([, tensor]) => tensor.requiresGrad));
  if (trained.size === 0)
    fail('ERR_LIBMOE_ARGUMENT', 'no parameter wants a gradient: there is nothing to train');
  for (const [name, tensor] of trained) {
    if (!isFloat(tensor.dtype) || tensor.dtype === 'f16') {
      fail('ERR_LIBMOE_DTYPE', `parameter ${name} has dtype ${tensor.dtype}: train in f32, bf16 or f64`);
    }
  }
  return parsed.data.name === 'adamw' ? new AdamW(trained, parsed.data) : new Sgd(trained, parsed.data);
}

/** Parallel lists for one native call. */
interface GroupTensors {
  parameters: Tensor[];
  gradients: Tensor[];
  masters: (Tensor | undefined)[];
  slots: Readonly<Record<string, Tensor>>[];
}

interface Change {
  learningRate: number;
  weightDecay: number[];
  factor: Tensor | undefined;
  /** 1 for a parameter's first update. */
  step: number;
}

/** State and book-keeping that every optimizer shares. */
abstract class StatefulOptimizer implements Optimizer {
  abstract readonly name: string;
  readonly parameters: ReadonlyMap<string, Tensor>;
  readonly slots: ReadonlyMap<string, Readonly<Record<string, Tensor>>>;
  readonly steps: Map<string, number>;
  readonly #settings: ReadonlyMap<string, ParameterSettings>;

  constructor(
    parameters: ReadonlyMap<string, Tensor>,
    slotNames: readonly string[],
    settings: ReadonlyMap<string, ParameterSettings>,
  ) {
    this.parameters = parameters;
    this.#settings = settings;
    this.steps = new Map([...parameters.keys()].map((name) => [name, 0]));
    this.slots = new Map([...parameters].map(([name, tensor]) => [name, makeSlots(tensor, slotNames)]));
  }

  step(learningRate: number, factor?: Tensor): void {
    if (!(Number.isFinite(learningRate) && learningRate >= 0)) {
      fail('ERR_LIBMOE_ARGUMENT', `the learning rate must be a non-negative number, got ${learningRate}`);
    }
    for (const group of this.#due(learningRate)) {
      const tensors: GroupTensors = {
        parameters: group.names.map((name) => this.parameters.get(name)!),
        gradients: group.names.map((name) => this.parameters.get(name)!.grad!),
        masters: group.names.map((name) => this.slots.get(name)!.master),
        slots: group.names.map((name) => this.slots.get(name)!),
      };
      const weightDecay = group.names.map((name) => this.#settings.get(name)!.weightDecay);
      this.update(tensors, {
        learningRate: group.learningRate,
        weightDecay,
        factor,
        step: group.step,
      });
      for (const name of group.names) this.steps.set(name, group.step);
    }
  }

  /** Parameters that have a gradient, in groups of one learning rate and one count of updates: one native call each. */
  #due(learningRate: number): { learningRate: number; step: number; names: string[] }[] {
    const groups = new Map<string, { learningRate: number; step: number; names: string[] }>();
    for (const [name, parameter] of this.parameters) {
      const { learningRateScale } = this.#settings.get(name)!;
      if (!parameter.grad || learningRateScale === 0) continue;
      const step = this.steps.get(name)! + 1;
      const key = `${step} ${learningRateScale} ${parameter.dtype}`;
      const group = groups.get(key) ?? { learningRate: learningRate * learningRateScale, step, names: [] };
      group.names.push(name);
      groups.set(key, group);
    }
    return [...groups.values()];
  }

  protected abstract update(tensors: GroupTensors, change: Change): void;

  zeroGrad(): void {
    for (const parameter of this.parameters.values()) {
      parameter.grad?.dispose();
      parameter.grad = undefined;
    }
  }

  dispose(): void {
    for (const slots of this.slots.values()) for (const tensor of Object.values(slots)) tensor.dispose();
  }
}

function makeSlots(parameter: Tensor, names: readonly string[]): Readonly<Record<string, Tensor>> {
  const { shape, device } = parameter;
  const dtype = parameter.dtype === 'f64' ? 'f64' : 'f32';
  const slots: Record<string, Tensor> = {};
  for (const name of names) slots[name] = keep(zeros(shape, { dtype, device }));
  if (parameter.dtype !== dtype) slots.master = keep(noGrad(() => scope(() => cast(parameter, dtype))));
  return slots;
}

class AdamW extends StatefulOptimizer {
  readonly name = 'adamw';
  readonly #options: z.output<typeof adamwOptions>;

  constructor(parameters: ReadonlyMap<string, Tensor>, options: z.output<typeof adamwOptions>) {
    super(parameters, ['firstMoment', 'secondMoment'], settingsOf(parameters, options.weightDecay, options));
    this.#options = options;
  }

  protected override update({ slots, ...tensors }: GroupTensors, change: Change): void {
    const { beta1, beta2, eps } = this.#options;
    const firstMoments = slots.map((slot) => slot.firstMoment!);
    const secondMoments = slots.map((slot) => slot.secondMoment!);
    adamwStep({ ...tensors, firstMoments, secondMoments }, { ...change, beta1, beta2, epsilon: eps });
  }
}

class Sgd extends StatefulOptimizer {
  readonly name = 'sgd';
  readonly #options: z.output<typeof sgdOptions>;

  constructor(parameters: ReadonlyMap<string, Tensor>, options: z.output<typeof sgdOptions>) {
    const slots = options.momentum > 0 ? ['momentum'] : [];
    super(parameters, slots, settingsOf(parameters, options.weightDecay, options));
    this.#options = options;
  }

  protected override update({ slots, ...tensors }: GroupTensors, change: Change): void {
    const { momentum, nesterov } = this.#options;
    const momenta = momentum > 0 ? slots.map((slot) => slot.momentum!) : undefined;
    sgdStep({ ...tensors, ...(momenta && { momenta }) }, { ...change, momentum, nesterov });
  }
}
