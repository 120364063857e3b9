import { fail } from '../native/index.ts';
import { record } from '../tensor/autograd.ts';
import { cast, divide, maximum, scale } from '../tensor/elementwise.ts';
import { keep, noGrad, scope, Tensor } from '../tensor/index.ts';
import type { Coefficient } from './coefficient.ts';
import type { RoutingRecord } from './record.ts';

/** A loss that a router adds to the training objective as `coefficient · value`. */
export type RoutingLoss = {
  /** 'balance', 'routerZ', or a name of the router's own. */
  name: string;
  /** A tensor of one element, without gradient, is one that the router moves on the device. */
  coefficient: Coefficient | Tensor;
} & (
  | {
      /** A scalar. */
      value: Tensor;
      /** A scalar without gradient: of how many tokens, sequences, … the value is the mean. */
      units?: Tensor | undefined;
    }
  | Statistics
);

/** A loss that is taken of sums. */
export interface Statistics {
  /** What is added up before the loss is taken of it. */
  parts: readonly Tensor[];
  /** The loss, a scalar, from the sums of `parts`. */
  finish: (sums: readonly Tensor[]) => Tensor;
  /** Adds up one part of two calls of the layer in a forward pass. Without it every call has its own loss. */
  add?: ((a: Tensor, b: Tensor) => Tensor) | undefined;
  /** Add up over all ranks too: the loss is one of the global batch. Every rank must have parts of the same shapes. */
  global?: boolean | undefined;
  /** The loss is this layer's part of a mean over layers already. */
  overLayers?: boolean | undefined;
  /** For a loss that is not global, from the sums of `parts`: of how many tokens, sequences, … it is the mean; a scalar. */
  units?: ((sums: readonly Tensor[]) => Tensor) | undefined;
}

/** A loss as the training loop sees it. */
export interface AuxiliaryLoss {
  name: string;
  /** Name of the layer. */
  layer: string;
  /** Where there is a `coefficientTensor`, asking for this waits for the device. */
  coefficient: number;
  /** One element: a coefficient that the router moves on the device. */
  coefficientTensor?: Tensor;
  /** A scalar, f32 (f64 for f64). */
  value: Tensor;
  /** Of how many things the value is the mean on this rank, where the router said so. */
  units?: Tensor;
  /** After {@link SumOverRanks}: this rank's part of all units, and 'whole' for a loss that every rank has of the global batch. */
  share?: Tensor | 'whole';
}

/** Adds up tensors over all ranks, element by element; the caller owns what it gets. The order is the same on every rank. */
export type SumOverRanks = (tensors: readonly Tensor[]) => Promise<readonly Tensor[]>;

interface DeferredLoss extends Statistics {
  name: string;
  layer: string;
  coefficient: number | Tensor;
  share?: Tensor | 'whole';
}

/** What a forward pass collects; shared by all contexts derived from one. */
export class Collection {
  readonly losses: AuxiliaryLoss[] = [];
  readonly deferred: DeferredLoss[] = [];
  readonly records: RoutingRecord[] = [];
  /** How often each layer has run. */
  calls: Map<string, number> = new Map();
  /** Logits of the last MoE layer; `borrowed` from the pass around a recomputed part. */
  previous: { layer: number; logits: Tensor; borrowed: boolean } | undefined;
  /** Choices made in a pass that will be recomputed, and those to replay in the recomputation. */
  readonly choices: Tensor[] = [];
  replay: Tensor[] | undefined;
  /** Whether choices are saved for a recomputation. */
  saving = false;

  dispose(): void {
    for (const { value, units } of this.losses) {
      value.dispose();
      units?.dispose();
    }
    for (const { parts } of this.deferred) for (const t of parts) t.dispose();
    for (const { share } of [...this.losses, ...this.deferred]) if (share !== 'whole') share?.dispose();
    for (const coefficient of this.coefficients()) coefficient.dispose();
    for (const record of this.records) record.dispose();
    for (const t of this.choices) t.dispose();
    this.remember(undefined);
  }

  /** Coefficients that are on the device. */
  coefficients(): Tensor[] {
    const all = [
      ...this.losses.map((loss) => loss.coefficientTensor),
      ...this.deferred.map((d) => d.coefficient),
    ];
    return all.filter((coefficient) => coefficient instanceof Tensor);
  }

  /** Takes in the statistics of a loss, adding them to those of earlier calls of its layer if the loss says how. */
  defer(loss: DeferredLoss): void {
    const { add } = loss;
    const before =
      add && this.deferred.find((d) => d.name === loss.name && d.layer === loss.layer && d.add !== undefined);
    if (!add || !before) {
      const { coefficient } = loss;
      this.deferred.push({
        ...loss,
        coefficient: coefficient instanceof Tensor ? keep(coefficient) : coefficient,
        parts: loss.parts.map((t) => keep(t)),
      });
      return;
    }
    if (before.parts.some((t, i) => t.shape.join() !== loss.parts[i]?.shape.join())) {
      fail(
        'ERR_LIBMOE_SHAPE',
        `the loss ${loss.name} of layer ${loss.layer} adds up its calls: they must have the same number of sequences`,
      );
    }
    before.parts = before.parts.map((t, i) => {
      const sum = keep(add(t, loss.parts[i]!));
      t.dispose();
      return sum;
    });
  }

  /** See {@link ForwardContext.sumOverRanks}. */
  async sumOverRanks(sum: SumOverRanks): Promise<void> {
    const global = this.deferred.filter((loss) => loss.global);
    const means: { loss: AuxiliaryLoss | DeferredLoss; units: Tensor }[] = [];
    for (const loss of this.losses) if (loss.units) means.push({ loss, units: loss.units });
    const made: Tensor[] = [];
    for (const loss of this.deferred) {
      if (loss.global || !loss.units) continue;
      const units = noGrad(() => scope(() => keep(loss.units!(loss.parts))));
      made.push(units);
      means.push({ loss, units });
    }
    const here = [...global.flatMap(({ parts }) => parts), ...means.map(({ units }) => units)];
    if (here.length === 0) return;
    const sums = [...(await sum(here))];
    for (const loss of global) {
      const own = loss.parts;
      loss.parts = own.map((part) => asSumOf(part, sums.shift()!));
      loss.share = 'whole';
      for (const t of own) t.dispose();
    }
    for (const { loss, units } of means) {
      const all = sums.shift()!;
      loss.share = noGrad(() => scope(() => keep(divide(units, maximum(all, 1)))));
      all.dispose();
    }
    for (const t of made) t.dispose();
  }

  /** Every loss, those of statistics taken now. */
  finished(): AuxiliaryLoss[] {
    const finished = this.deferred.map(({ name, layer, coefficient, parts, finish, share }) => {
      return withCoefficient({ name, layer, value: finish(parts), ...(share && { share }) }, coefficient);
    });
    return [...this.losses, ...finished];
  }

  /** Calls from now on add nothing to the statistics of earlier ones. */
  seal(): void {
    for (const loss of this.deferred) loss.add = undefined;
  }

  /** Makes the losses from these places on the means that {@link ForwardContext.part} says. */
  average(losses: number, deferred: number): void {
    const own = [...this.losses.slice(losses), ...this.deferred.slice(deferred)];
    const layers = new Map<string, Set<string>>();
    const calls = new Map<string, number>();
    for (const { name, layer } of own) {
      layers.set(name, (layers.get(name) ?? new Set()).add(layer));
      calls.set(`${name} ${layer}`, (calls.get(`${name} ${layer}`) ?? 0) + 1);
    }
    for (const loss of own) {
      const times = calls.get(`${loss.name} ${loss.layer}`)!;
      const parts = layers.get(loss.name)!.size;
      if ('finish' in loss) {
        if (!loss.overLayers) loss.coefficient = dividedBy(loss.coefficient, parts);
      } else if (loss.coefficientTensor) loss.coefficientTensor = dividedBy(loss.coefficientTensor, parts);
      else loss.coefficient /= parts;
      if (times === 1) continue;
      if ('finish' in loss) {
        const { finish } = loss;
        loss.finish = (sums) => scale(finish(sums), 1 / times);
      } else {
        const { value } = loss;
        loss.value = keep(scale(value, 1 / times));
        value.dispose();
      }
    }
  }

  remember(previous: Collection['previous']): void {
    if (this.previous && !this.previous.borrowed) this.previous.logits.dispose();
    this.previous = previous;
  }
}

/** A coefficient over a number, in f64; a tensor takes the place of the one given. */
function dividedBy<C extends number | Tensor>(coefficient: C, parts: number): C {
  if (!(coefficient instanceof Tensor)) return ((coefficient as number) / parts) as C;
  const part = noGrad(() => scope(() => keep(divide(cast(coefficient, 'f64'), parts))));
  coefficient.dispose();
  return part as Tensor as C;
}

/** The loss with a coefficient from the host or the device. */
export function withCoefficient(
  loss: Omit<AuxiliaryLoss, 'coefficient' | 'coefficientTensor'>,
  coefficient: number | Tensor,
): AuxiliaryLoss {
  if (typeof coefficient === 'number') return { ...loss, coefficient };
  const own = { ...loss, coefficientTensor: coefficient };
  // Not enumerable: a scope that looks for tensors in what it returns is not to wait for the device.
  return Object.defineProperty(own, 'coefficient', {
    get: () => own.coefficientTensor.item(),
  }) as AuxiliaryLoss;
}

/**
 * The sum of a part over all ranks as a function of this rank's part, whose gradient it hands on unchanged. Every rank takes the same loss of the
 * sum; so the gradients that the ranks add up are together that of one loss.
 */
function asSumOf(part: Tensor, sum: Tensor): Tensor {
  record({ name: 'sumOverRanks', inputs: [part], outputs: [sum], backward: ([gradient]) => [gradient] });
  return keep(sum);
}
