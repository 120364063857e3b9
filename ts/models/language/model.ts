import type { TokenBatch } from '../../data/batch.ts';
import { checkBatch } from '../../data/batch-check.ts';
import { checkpointed, ForwardContext } from '../../moe/index.ts';
import { fail } from '../../native/index.ts';
import type { AttentionStep } from '../../nn/attention.ts';
import { Embedding } from '../../nn/embedding.ts';
import { type LayerOptions, Linear } from '../../nn/linear.ts';
import { Module } from '../../nn/module.ts';
import { type Norm, newNorm } from '../../nn/norm.ts';
import { Rotary } from '../../nn/rotary.ts';
import type { JsonObject } from '../../storage/json.ts';
import { add, cast } from '../../tensor/elementwise.ts';
import { linear } from '../../tensor/gemm.ts';
import {
  type DeviceName,
  type Dtype,
  isGradEnabled,
  noGrad,
  scope,
  type Tensor,
  tensor,
} from '../../tensor/index.ts';
import { linearCrossEntropy, linearLogits } from '../../tensor/loss.ts';
import { Block } from './block.ts';
import {
  type LanguageModelConfig,
  type LanguageModelOptions,
  moeLayersOf,
  resolveLanguageModelConfig,
} from './config.ts';
import { drawInitialValues } from './initial-values.ts';
import type { CachedSequences, CacheStep } from './kv-cache.ts';
import {
  countedPositions,
  type InsertedRows,
  lengthsOf,
  type ModelBatch,
  piecesOf,
  withInserted,
} from './packed-batch.ts';

/** How a new model starts, and where it lives. */
export interface NewModelOptions {
  /** Seeds every parameter's own random stream; default 0. `'later'`: zeros, for weights that are loaded next. */
  seed?: number | 'later';
  dtype?: Dtype;
  device?: DeviceName;
}

/**
 * A decoder-only language model: LibMoE's form (LayerNorm, partial rotary, ReLU, output bias), the Llama form (RMSNorm, SwiGLU, grouped KV heads)
 * and those of its relatives from one configuration, with a mixture of experts in any subset of layers. Batches are packed: sequences laid end to end, no padding.
 */
export class LanguageModel extends Module {
  readonly config: LanguageModelConfig;
  readonly embedding: Embedding;
  /** A vector per position, `[maxPositions, dModel]`, when positions are learned. */
  readonly positionEmbedding?: Embedding;
  readonly blocks: Block[];
  readonly finalNorm: Norm;
  /** Absent when the embedding is tied. */
  readonly output?: Linear;
  /** Recompute each block during backward instead of keeping its intermediate results. */
  activationCheckpointing = false;
  /** The folder it was loaded from, where evaluation finds its tokenizer; undefined for a model made anew. */
  checkpoint?: string;
  /** The family of the checkpoint it was loaded from, as which it is saved again where that still describes it. */
  family?: string;
  /** Its `bos_token_id`, `eos_token_id` and `pad_token_id`, which are handed on when it is saved. */
  specialTokens?: JsonObject;
  readonly #rotary: Rotary | undefined;

  /** @throws ERR_LIBMOE_CONFIG */
  constructor(config: LanguageModelOptions, options: NewModelOptions = {}) {
    super();
    this.config = resolveLanguageModelConfig(config);
    const { vocabularySize, dModel, layers, norm, eps, outputBias } = this.config;
    const layerOptions: LayerOptions = { dtype: options.dtype, device: options.device, values: 'later' };
    const moeLayers = moeLayersOf(this.config);
    this.embedding = new Embedding(vocabularySize, dModel, layerOptions);
    if (this.config.positions === 'learned') {
      this.positionEmbedding = new Embedding(this.config.maxPositions, dModel, layerOptions);
    }
    this.blocks = Array.from(
      { length: layers },
      (_, layer) => new Block(this.config, layer, moeLayers.includes(layer), layerOptions),
    );
    this.finalNorm = newNorm(norm, dModel, { ...layerOptions, eps });
    if (!this.config.tieEmbeddings) {
      this.output = new Linear(dModel, vocabularySize, { ...layerOptions, bias: outputBias });
    }
    if (this.config.positions === 'rotary') this.#rotary = new Rotary(this.config.rotary);
    if (options.seed !== 'later') drawInitialValues(this, options.seed ?? 0);
  }

  get device(): DeviceName {
    return this.embedding.weight.device;
  }

  get dtype(): Dtype {
    return this.embedding.weight.dtype;
  }

  /**
   * The hidden states after the last norm. `inserted` rows of the batch stand in the place of embeddings (before learned positions are added).
   * @param context collects auxiliary losses and routing records; made anew when absent
   * @param cached continue these sequences of a cache (`cache.at([…])`), one per sequence of the batch; nothing can be differentiated then
   * @returns `[tokens, dModel]`
   * @throws ERR_LIBMOE_DATA for a malformed batch, ERR_LIBMOE_ARGUMENT for positions from `maxPositions` on
   */
  forward(batch: ModelBatch, context?: ForwardContext, cached?: CachedSequences): Tensor {
    checkBatch({ ...batch, targets: batch.targets ?? batch.ids }, this.config.vocabularySize);
    return cached === undefined
      ? scope(() => this.#run(batch, undefined, context))
      : noGrad(() => scope(() => this.#runCached(batch, cached, context)));
  }

  /**
   * Mean cross entropy of the tokens that have a target, in nats. The vocabulary projection is fused into it, so `[tokens, vocabulary]`
   * never exists whole. Auxiliary losses are in the context.
   * @returns a scalar, f32
   */
  loss(batch: TokenBatch & Pick<ModelBatch, 'inserted'>, context?: ForwardContext): Tensor {
    return scope(() => {
      const hidden = this.forward(batch, context);
      const targets = tensor(batch.targets, undefined, { device: this.device });
      return linearCrossEntropy(hidden, this.outputWeight, this.output?.bias, targets);
    });
  }

  /**
   * Logits in full precision: a bf16 model's are not rounded to bf16, unless they are to be differentiated.
   * @param hidden `[tokens, dModel]`
   * @returns `[tokens, vocabulary]` f32 (f64 for an f64 model)
   */
  logits(hidden: Tensor): Tensor {
    if (!isGradEnabled() || !hidden.requiresGrad)
      return linearLogits(hidden, this.outputWeight, this.output?.bias);
    return scope(() => {
      const out = linear(hidden, this.outputWeight, this.output?.bias);
      return out.dtype === 'bf16' ? cast(out, 'f32') : out;
    });
  }

  /** The projection to the vocabulary, `[vocabulary, dModel]`: the embedding when tied. */
  get outputWeight(): Tensor {
    return this.output?.weight ?? this.embedding.weight;
  }

  #runCached(batch: ModelBatch, cached: CachedSequences, context?: ForwardContext): Tensor {
    const { cache, sequences } = cached;
    const counts = lengthsOf(batch.sequenceOffsets);
    if (sequences.length !== counts.length) {
      fail(
        'ERR_LIBMOE_ARGUMENT',
        `the batch has ${counts.length} sequences, the cache was given ${sequences.length}`,
      );
    }
    const step = cache.begin(sequences, counts);
    try {
      const hidden = this.#run(batch, step, context);
      step.commit();
      return hidden;
    } catch (error) {
      step.abandon();
      throw error;
    }
  }

  #run(batch: ModelBatch, cacheStep: CacheStep | undefined, given?: ForwardContext): Tensor {
    const { device } = this;
    const positions = batch.positions ?? countedPositions(batch.sequenceOffsets, cacheStep?.starts);
    const last = positions.reduce((a, b) => Math.max(a, b), 0);
    if (last >= this.config.maxPositions || positions.some((p) => p < 0)) {
      fail(
        'ERR_LIBMOE_ARGUMENT',
        `positions must lie in 0…${this.config.maxPositions - 1} (maxPositions), got up to ${last}: cut the sequence`,
      );
    }
    this.#checkTurning(batch.sequenceOffsets, positions, cacheStep);
    this.#rotary?.reserve(last + 1, this.embedding.weight);
    const ids = tensor(batch.ids, undefined, { device });
    const rows = this.#rotary?.rows(positions, batch.sequenceOffsets) ?? positions;
    const positionsTensor = tensor(rows, undefined, { device });
    const sequenceOffsets = tensor(batch.sequenceOffsets, undefined, { device });
    const context = (given ?? new ForwardContext({ training: this.training })).with({
      sequenceOffsets,
      tokenIds: ids,
    });
    const { chunk, temperature } = this.config;
    const pieceOffsets =
      chunk && !cacheStep ? piecesOf(batch.sequenceOffsets, chunk.size).offsets : undefined;
    const queryFactors =
      temperature &&
      Float64Array.from(positions, (position) => {
        const grown = Math.log1p(Math.floor((position + 1) / temperature.every));
        return 1 + temperature.strength * grown;
      });
    try {
      let x = this.#embed(ids, positionsTensor, batch.inserted);
      context.onLayer?.('embedding', x);
      for (const [layer, block] of this.blocks.entries()) {
        const step: AttentionStep = {
          positions: positionsTensor,
          sequenceOffsets,
          rotary: this.#rotary,
          pieceOffsets,
          queryFactors,
          cache: cacheStep?.layer(layer),
        };
        const before = x;
        x = this.activationCheckpointing
          ? this.#again(block, before, step, context)
          : scope(() => block.forward(before, step, context));
        context.onLayer?.(`layer ${layer}`, x);
        before.dispose(); // the tape holds it if it needs it
      }
      return this.finalNorm.forward(x);
    } finally {
      if (given === undefined) context.dispose();
    }
  }

  #embed(ids: Tensor, positions: Tensor, inserted: InsertedRows | undefined): Tensor {
    return scope(() => {
      const looked = this.embedding.forward(ids);
      const embedded = inserted ? withInserted(looked, inserted) : looked;
      const learned = this.positionEmbedding?.forward(positions);
      return learned === undefined ? embedded : add(embedded, learned);
    });
  }

  /** Keys in the cache that were turned as a short sequence's cannot be those of a long one. */
  #checkTurning(offsets: Int32Array, positions: Int32Array, cacheStep: CacheStep | undefined): void {
    cacheStep?.starts.forEach((start, sequence) => {
      const end = positions[offsets[sequence + 1]! - 1]! + 1;
      if (this.outgrowsCache(start, end)) {
        fail(
          'ERR_LIBMOE_UNSUPPORTED',
          `a cached sequence of ${start} tokens cannot grow to ${end}: beyond ${this.#rotary?.turningPoint} tokens (longrope) all keys turn otherwise; run the whole sequence anew`,
        );
      }
    });
  }

  /** Whether the cached past of a sequence must be run anew when it grows from `from` to `to` tokens. */
  outgrowsCache(from: number, to: number): boolean {
    const limit = this.#rotary?.turningPoint;
    return limit !== undefined && from > 0 && from <= limit && to > limit;
  }

  #again(block: Block, x: Tensor, step: AttentionStep, context: ForwardContext): Tensor {
    // What the recomputation needs goes in as inputs, which the tape keeps until then.
    return checkpointed(
      context,
      (inner, input, positions, sequenceOffsets, tokenIds) =>
        block.forward(
          input!,
          { ...step, positions: positions!, sequenceOffsets: sequenceOffsets! },
          inner.with({ sequenceOffsets, tokenIds }),
        ),
      [x, step.positions!, step.sequenceOffsets, context.tokenIds!],
    );
  }

  override dispose(): void {
    super.dispose();
    this.#rotary?.dispose();
  }
}
