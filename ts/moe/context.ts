import { fail } from '../native/index.ts';
import { streamOf } from '../nn/initialisers.ts';
import { keep, Tensor } from '../tensor/index.ts';
import { type Coefficient, coefficientAt } from './coefficient.ts';
import {
  type AuxiliaryLoss,
  Collection,
  type RoutingLoss,
  type SumOverRanks,
  withCoefficient,
} from './collection.ts';
import type { RoutingRecord } from './record.ts';

/** What a router is told besides its tokens. */
export interface RoutingContext {
  /** Index and name of the layer. */
  readonly layer: number;
  readonly layerName: string;
  readonly training: boolean;
  readonly step: number;
  readonly totalSteps: number;
  /** bool [tokens]: false tokens are routed nowhere and counted nowhere. */
  readonly tokenMask: Tensor | undefined;
  /** i32 [sequences + 1]. */
  readonly sequenceOffsets: Tensor | undefined;
  /** i32 [tokens], in a language model: what a router by token (hash) asks for. */
  readonly tokenIds: Tensor | undefined;
  /** Logits of the MoE layer before this one in the same forward pass. */
  readonly previousLogits: Tensor | undefined;
  /** A seed for a random operation, different for every name, layer, call and step, and the same when the pass is recomputed. */
  random(name: string): number;
  /** Dense probabilities are wanted for a full trace. */
  readonly trace: boolean;
  /** i32 [tokens, topK]: the router's own choices in the pass that is being recomputed; take them instead of choosing. */
  readonly replayed: Tensor | undefined;
}

/** What a forward pass is. */
export interface ForwardOptions {
  /** Default false. */
  training?: boolean;
  /** Optimizer step, from 0. */
  step?: number;
  totalSteps?: number;
  /** Seed of everything random in the pass; default 0. */
  seed?: number;
  tokenMask?: Tensor | undefined;
  sequenceOffsets?: Tensor | undefined;
  tokenIds?: Tensor | undefined;
  /** Keep traces of every token in the routing records: its choices and their weights, and unless `choices` also all probabilities. */
  trace?: boolean | 'choices';
  /** How many ranks run this pass: of several each must have the same losses and records. Default 1. */
  ranks?: number | undefined;
  /** Sees the output of every layer of a model by the layer's name, in order: to find where a NaN begins. */
  onLayer?: ((name: string, output: Tensor) => void) | undefined;
}

/**
 * Goes down a model with one forward pass: says what the pass is, and collects auxiliary losses and routing records, so that modules hold
 * nothing of a pass (a tower that runs twice records twice). Everything collected lives until {@link dispose}.
 */
export class ForwardContext {
  readonly training: boolean;
  readonly step: number;
  readonly totalSteps: number;
  readonly seed: number;
  readonly tokenMask: Tensor | undefined;
  readonly sequenceOffsets: Tensor | undefined;
  readonly tokenIds: Tensor | undefined;
  readonly trace: boolean | 'choices';
  readonly ranks: number;
  /** Sees the output of every layer of the model. */
  readonly onLayer: ((name: string, output: Tensor) => void) | undefined;
  readonly #options: ForwardOptions;
  readonly #collection: Collection;

  constructor(options: ForwardOptions = {}, collection: Collection = new Collection()) {
    this.#options = options;
    this.#collection = collection;
    this.training = options.training ?? false;
    this.step = options.step ?? 0;
    this.totalSteps = options.totalSteps ?? 0;
    this.seed = options.seed ?? 0;
    this.tokenMask = options.tokenMask;
    this.sequenceOffsets = options.sequenceOffsets;
    this.tokenIds = options.tokenIds;
    this.trace = options.trace ?? false;
    this.ranks = options.ranks ?? 1;
    this.onLayer = options.onLayer;
  }

  /** The same pass for other tokens (another tower, a packed batch): collects into the same place. */
  with(
    changes: Pick<ForwardOptions, 'training' | 'tokenMask' | 'sequenceOffsets' | 'tokenIds'>,
  ): ForwardContext {
    return new ForwardContext({ ...this.#options, ...changes }, this.#collection);
  }

  /**
   * Runs a part of the model whose losses are means: over its layers (the coefficients are divided by their number), and in each over its calls.
   * Its first router is handed no logits from before it, and the next layer outside none of its.
   */
  part<T>(run: () => T): T {
    const all = this.#collection;
    const losses = all.losses.length;
    const deferred = all.deferred.length;
    all.remember(undefined);
    const result = run();
    all.remember(undefined);
    all.average(losses, deferred);
    return result;
  }

  /** The same pass collecting into another place: see checkpointed(). */
  into(collection: Collection): ForwardContext {
    return new ForwardContext(this.#options, collection);
  }

  get collection(): Collection {
    return this.#collection;
  }

  /** Whether this is a recomputation during backward, whose losses and records are already registered. */
  get replaying(): boolean {
    return this.#collection.replay !== undefined;
  }

  /** What the router of a layer is told; counts the call. */
  routing(layer: number, layerName: string = String(layer)): RoutingContext & { readonly call: number } {
    const { calls, previous, replay } = this.#collection;
    const call = calls.get(layerName) ?? 0;
    calls.set(layerName, call + 1);
    const { training, step, totalSteps, tokenMask, sequenceOffsets, tokenIds, seed } = this;
    return {
      layer,
      layerName,
      call,
      training,
      step,
      totalSteps,
      tokenMask,
      sequenceOffsets,
      tokenIds,
      trace: this.trace === true,
      previousLogits: previous && previous.layer < layer ? previous.logits : undefined,
      random: (name) => streamOf(`${seed}/${step}/${layerName}/${call}/${name}`),
      replayed: replay?.shift(),
    };
  }

  /** Tells the next layer's router, and a recomputation, what this layer's router did. */
  routed(layer: number, choices: Tensor, logits: Tensor | undefined): void {
    const all = this.#collection;
    if (all.saving) all.choices.push(keep(choices));
    if (logits) all.remember({ layer, logits: keep(logits), borrowed: false });
  }

  /**
   * Adds `coefficient · value` to the training objective. `value` is a scalar; it is kept until {@link dispose}. So is `units`, a scalar without
   * gradient: of how many things (tokens, sequences, …) the value is the mean. Over several ranks means are weighted by it, and without it
   * by the ranks' numbers of counted tokens. So is a `coefficient` that is a tensor, of one element without gradient.
   */
  addLoss(
    name: string,
    layer: string,
    value: Tensor,
    coefficient: Coefficient | Tensor,
    units?: Tensor,
  ): void {
    for (const [what, t] of [
      [`the loss ${name}`, value],
      [`the units of the loss ${name}`, units],
      [`the coefficient of the loss ${name}`, coefficient instanceof Tensor ? coefficient : undefined],
    ] as const)
      if (t && t.size !== 1)
        fail('ERR_LIBMOE_SHAPE', `${what} of layer ${layer} must be one number, got [${t.shape.join(', ')}]`);
    const loss = { name, layer, value: keep(value), ...(units && { units: keep(units) }) };
    const factor = coefficient instanceof Tensor ? keep(coefficient) : this.coefficient(coefficient);
    this.#collection.losses.push(withCoefficient(loss, factor));
  }

  /** {@link addLoss} for what a router returns; statistics of several calls of a layer are added up where the loss says how. */
  addRoutingLoss(layer: string, loss: RoutingLoss): void {
    if ('value' in loss) {
      this.addLoss(loss.name, layer, loss.value, loss.coefficient, loss.units);
      return;
    }
    const { coefficient: given } = loss;
    const coefficient = given instanceof Tensor ? given : this.coefficient(given);
    this.#collection.defer({ ...loss, layer, coefficient });
  }

  /** The value of a coefficient at this step. Throws ERR_LIBMOE_ARGUMENT when it is not finite. */
  coefficient(c: Coefficient): number {
    return coefficientAt(c, this.step);
  }

  /**
   * Makes the losses those of the global batch: what they are made of is added up over all ranks, in one go. Call it when the pass is complete,
   * on every rank, before {@link losses}.
   */
  async sumOverRanks(sum: SumOverRanks): Promise<void> {
    await this.#collection.sumOverRanks(sum);
  }

  /** Every auxiliary loss of the pass. Call it once, when the pass is complete. */
  losses(): AuxiliaryLoss[] {
    return this.#collection.finished();
  }

  /** Takes a record into the pass; it lives until {@link dispose}. */
  addRecord(record: RoutingRecord): void {
    this.#collection.records.push(record);
  }

  get records(): readonly RoutingRecord[] {
    return this.#collection.records;
  }

  /** Frees the losses, statistics and records. What backward still needs stays with the tape. */
  dispose(): void {
    this.#collection.dispose();
  }

  /** As {@link dispose}, for `using`. */
  [Symbol.dispose](): void {
    this.dispose();
  }
}
