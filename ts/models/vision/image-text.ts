import type { VisionLanguageBatch } from '../../data/vision-batch.ts';
import type { ForwardContext } from '../../moe/index.ts';
import { fail } from '../../native/index.ts';
import { Embedding } from '../../nn/embedding.ts';
import { type LayerOptions, Linear } from '../../nn/linear.ts';
import { Module } from '../../nn/module.ts';
import { cast } from '../../tensor/elementwise.ts';
import { matmul } from '../../tensor/gemm.ts';
import { full, parameter, scope, type Tensor, tensor } from '../../tensor/index.ts';
import type { NewModelOptions } from '../language/model.ts';
import { sigmoidContrastiveLoss } from './contrastive.ts';
import type { VisionTower } from './tower.ts';

/** Sizes of what an {@link ImageTextModel} has beside its tower. */
export interface ImageTextOptions {
  vocabularySize: number;
  /** Of the embeddings that are compared; default the tower's dModel. */
  width?: number | undefined;
  /** Factor on cosines to begin with; default 10, as in SigLIP. */
  initialScale?: number | undefined;
  /**
   * What is added to them to begin with. Default −10, made for batches of tens of thousands; −ln(batch − 1) gives each pair the probability of
   * chance, which a short training with small batches needs.
   */
  initialBias?: number | undefined;
}

/**
 * A tower that learns from captions, as SigLIP does (Zhai et al. 2023, arXiv 2303.15343): images and texts that belong together get like embeddings. The
 * text encoder is as small as can be, the mean of token embeddings and a linear layer: it is there for the tower's sake.
 */
export class ImageTextModel extends Module {
  readonly vision: VisionTower;
  readonly imageProjection: Linear;
  readonly embedding: Embedding;
  readonly textProjection: Linear;
  /** ln of the factor on cosines, `[1]`. */
  readonly logitScale: Tensor;
  /** `[1]`. */
  readonly logitBias: Tensor;

  /** Takes the tower over. @throws ERR_LIBMOE_CONFIG for a tower without `pool` */
  constructor(vision: VisionTower, options: ImageTextOptions, made: NewModelOptions = {}) {
    super();
    const { dModel, pool } = vision.config;
    if (pool === undefined)
      fail(
        'ERR_LIBMOE_CONFIG',
        'a tower that is compared with texts needs pool: "attention", "class" or "mean"',
      );
    const { vocabularySize, width = dModel, initialScale = 10, initialBias = -10 } = options;
    if (!(initialScale > 0)) fail('ERR_LIBMOE_CONFIG', `initialScale must be above 0, got ${initialScale}`);
    const { seed = 0, dtype, device } = made;
    const part = (name: string): LayerOptions => ({
      values: seed === 'later' ? seed : { seed, name },
      ...(dtype && { dtype }),
      ...(device && { device }),
    });
    this.vision = vision;
    this.imageProjection = new Linear(dModel, width, part('imageProjection'));
    this.embedding = new Embedding(vocabularySize, width, part('embedding'));
    this.textProjection = new Linear(width, width, part('textProjection'));
    const { device: place } = this.embedding.weight;
    this.logitScale = parameter(full([1], Math.log(initialScale), { device: place }));
    this.logitBias = parameter(full([1], initialBias, { device: place }));
  }

  /** Recompute the tower's layers during backward. */
  get activationCheckpointing(): boolean {
    return this.vision.activationCheckpointing;
  }

  set activationCheckpointing(again: boolean) {
    this.vision.activationCheckpointing = again;
  }

  /** @param pixels `[images, 3, side, side]` @returns `[images, width]` */
  imageEmbeddings(pixels: Tensor, context?: ForwardContext): Tensor {
    return scope(() => this.imageProjection.forward(this.vision.pooled(pixels, context)));
  }

  /** @param texts token ids of each text, at least one @returns `[texts, width]` */
  textEmbeddings(texts: readonly ArrayLike<number>[]): Tensor {
    return scope(() => {
      const { weight } = this.embedding;
      const { device, dtype } = weight;
      const ids = Int32Array.from(texts.flatMap((text) => Array.from(text)));
      const shares = new Float32Array(texts.length * ids.length);
      let at = 0;
      for (const [row, { length }] of texts.entries()) {
        if (length === 0) fail('ERR_LIBMOE_DATA', `text ${row} is empty: every text needs a token`);
        shares.fill(1 / length, row * ids.length + at, row * ids.length + at + length);
        at += length;
      }
      const means = cast(tensor(shares, [texts.length, ids.length], { device }), dtype);
      const embedded = this.embedding.forward(tensor(ids, undefined, { device }));
      return this.textProjection.forward(matmul(means, embedded));
    });
  }

  /**
   * SigLIP's loss over all pairs of the batch. A text that stands there twice belongs to both images.
   * @param batch sequences of one image, which has one row, and its caption
   * @returns a scalar
   * @throws ERR_LIBMOE_DATA for a sequence without exactly one image
   */
  loss(batch: VisionLanguageBatch, context?: ForwardContext): Tensor {
    const { ids, images, sequenceOffsets: offsets } = batch;
    const count = offsets.length - 1;
    if (
      images?.count !== count ||
      images.starts.some((start, i) => start < offsets[i]! || start >= offsets[i + 1]!)
    )
      return fail(
        'ERR_LIBMOE_DATA',
        `a batch of ${count} captions needs an image for each, got ${images?.count ?? 0}`,
      );
    const texts = Array.from({ length: count }, (_, i) =>
      ids.slice(offsets[i]!, offsets[i + 1]!).filter((_, at) => offsets[i]! + at !== images.starts[i]),
    );
    const names = texts.map((text) => text.join(' '));
    const matches = names.flatMap((name) => names.map((other) => name === other));
    return scope(() => {
      const { device } = this.embedding.weight;
      const pixels = tensor(images.pixels, [count, 3, images.side, images.side], { device });
      return sigmoidContrastiveLoss(
        this.imageEmbeddings(pixels, context),
        this.textEmbeddings(texts),
        this.logitScale,
        this.logitBias,
        matches,
      );
    });
  }
}
