import { fail } from '../native/index.ts';
import { streamOf } from '../nn/initialisers.ts';
import { keep, type Tensor } from '../tensor/index.ts';
import { type Coefficient, coefficientAt } from './coefficient.ts';
import type { RoutingRecord } from './record.ts';

/** A loss that a router adds to the training objective as `coefficient · value`. */
export type RoutingLoss = {
  /** 'balance', 'routerZ', or a name of the router's own. */
  name: string;
  coefficient: Coefficient;
} & (
  | { /** A scalar. */ value: Tensor }
  | {
      /** Statistics that are added up over all calls of the layer in this forward pass before the loss is taken of them. */
      parts: readonly Tensor[];
      /** The loss, a scalar, from the sums of `parts`. */
      finish: (sums: readonly Tensor[]) => Tensor;
      /** Adds up one part of two calls. */
      add: (a: Tensor, b: Tensor) => Tensor;
    }
);

/** A loss as the training loop sees it. */
export interface AuxiliaryLoss {
  name: string;
  /** Name of the layer. */
  layer: string;
  coefficient: number;
  /** A scalar, f32 (f64 for f64). */
  value: Tensor;
}

/** Sums a statistic over all ranks (the global batch), differentiably. */
export type Reduce = (statistic: Tensor) => Tensor;

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
  readonly reduce: Reduce | undefined;
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
  reduce?: Reduce | undefined;
  /** Keep full traces (choices, weights, probabilities of every token) in the routing records. */
  trace?: boolean;
  /** Sees the output of every layer of a model by the layer's name, in order: to find where a NaN begins. */
  onLayer?: ((name: string, output: Tensor) => void) | undefined;
}

interface DeferredLoss {
  name: string;
  layer: string;
  coefficient: number;
  parts: readonly Tensor[];
  finish: (sums: readonly Tensor[]) => Tensor;
  add: (a: Tensor, b: Tensor) => Tensor;
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
    for (const { value } of this.losses) value.dispose();
    for (const { parts } of this.deferred) for (const t of parts) t.dispose();
    for (const record of this.records) record.dispose();
    for (const t of this.choices) t.dispose();
    this.remember(undefined);
  }

  /** Takes in the statistics of a loss, adding them to those of earlier calls of its layer. */
  defer(loss: DeferredLoss): void {
    const before = this.deferred.find((d) => d.name === loss.name && d.layer === loss.layer);
    if (!before) {
      this.deferred.push({ ...loss, parts: loss.parts.map((t) => keep(t)) });
      return;
    }
    if (before.parts.some((t, i) => t.shape.join() !== loss.parts[i]?.shape.join())) {
      fail(
        'ERR_LIBMOE_SHAPE',
        `the loss ${loss.name} of layer ${loss.layer} adds up its calls: they must have the same number of sequences`,
      );
    }
    before.parts = before.parts.map((t, i) => {
      const sum = keep(loss.add(t, loss.parts[i]!));
      t.dispose();
      return sum;
    });
  }

  remember(previous: Collection['previous']): void {
    if (this.previous && !this.previous.borrowed) this.previous.logits.dispose();
    this.previous = previous;
  }
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
  readonly reduce: Reduce | undefined;
  readonly trace: boolean;
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
    this.reduce = options.reduce;
    this.trace = options.trace ?? false;
    this.onLayer = options.onLayer;
  }

  /** The same pass for other tokens (another tower, a packed batch): collects into the same place. */
  with(changes: Pick<ForwardOptions, 'tokenMask' | 'sequenceOffsets' | 'tokenIds'>): ForwardContext {
    return new ForwardContext({ ...this.#options, ...changes }, this.#collection);
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
    const { training, step, totalSteps, tokenMask, sequenceOffsets, tokenIds, reduce, trace, seed } = this;
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
      reduce,
      trace,
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

  /** Adds `coefficient · value` to the training objective. `value` is a scalar; it is kept until {@link dispose}. */
  addLoss(name: string, layer: string, value: Tensor, coefficient: Coefficient): void {
    if (value.size !== 1)
      fail(
        'ERR_LIBMOE_SHAPE',
        `the loss ${name} of layer ${layer} must be one number, got [${value.shape.join(', ')}]`,
      );
    this.#collection.losses.push({
      name,
      layer,
      value: keep(value),
      coefficient: this.coefficient(coefficient),
    });
  }

  /** {@link addLoss} for what a router returns; statistics of several calls of a layer are added up. */
  addRoutingLoss(layer: string, loss: RoutingLoss): void {
    if ('value' in loss) {
      this.addLoss(loss.name, layer, loss.value, loss.coefficient);
      return;
    }
    const { name, parts, finish, add } = loss;
    const coefficient = this.coefficient(loss.coefficient);
    this.#collection.defer({ name, layer, coefficient, parts, finish, add });
  }

  /** The value of a coefficient at this step. Throws ERR_LIBMOE_ARGUMENT when it is not finite. */
  coefficient(c: Coefficient): number {
    return coefficientAt(c, this.step);
  }

  /** Every auxiliary loss of the pass. Call it once, when the pass is complete. */
  losses(): AuxiliaryLoss[] {
    const { losses, deferred } = this.#collection;
    const finished = deferred.map(({ name, layer, coefficient, parts, finish }) => {
      return { name, layer, coefficient, value: finish(parts) };
    });
    return [...losses, ...finished];
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
