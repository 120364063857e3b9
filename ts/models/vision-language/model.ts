import type { TokenBatch } from '../../data/batch.ts';
import { ForwardContext, MoeLayer } from '../../moe/index.ts';
import { fail } from '../../native/index.ts';
import { Module } from '../../nn/module.ts';
import { cast } from '../../tensor/elementwise.ts';
import { type DeviceName, noGrad, scope, type Tensor, tensor, zeros } from '../../tensor/index.ts';
import type { CachedSequences, InsertedRows, LanguageModel } from '../language/index.ts';
import { type BatchImages, rowsOfImages } from './image-rows.ts';
import type { Projector } from './projector.ts';
import type { ImageTower } from './tower.ts';

/** A packed batch some of whose tokens stand for rows of images. */
export type VisionLanguageInput = Omit<TokenBatch, 'targets'> & {
  targets?: Int32Array;
  images?: BatchImages;
};

/** What joins the parts of a {@link VisionLanguageModel}. */
export interface JoinOptions {
  /** The token whose places the rows of images take. */
  imageTokenId: number;
  /** `libmoe`: zero images of texts count in auxiliary losses. Default `fixed`. */
  compat?: 'fixed' | 'libmoe';
}

/** The parts of a {@link VisionLanguageModel}. */
export interface VisionLanguageParts<Tower extends ImageTower = ImageTower> {
  vision: Tower;
  projector: Projector;
  language: LanguageModel;
}

/**
 * A LLaVA-style model (Liu et al. 2023, arXiv 2304.08485): a tower makes features of images, a projector makes input rows of the language model of
 * them, and these take the places of image tokens among the embeddings. Any part may hold mixtures of experts. Their auxiliary losses: those of
 * the tower are averaged over its layers (and passes), those of the projector are its one layer's, those of the language model are summed.
 */
export class VisionLanguageModel<Tower extends ImageTower = ImageTower> extends Module {
  readonly vision: Tower;
  readonly projector: Projector;
  readonly language: LanguageModel;
  readonly imageTokenId: number;
  readonly compat: 'fixed' | 'libmoe';
  /** The folder it was loaded from; undefined for a model made anew. */
  checkpoint?: string;

  /** @throws ERR_LIBMOE_CONFIG for parts that do not fit together */
  constructor({ vision, projector, language }: VisionLanguageParts<Tower>, options: JoinOptions) {
    super();
    const { imageTokenId, compat = 'fixed' } = options;
    if (!Number.isInteger(imageTokenId) || imageTokenId < 0)
      fail('ERR_LIBMOE_CONFIG', `imageTokenId must be a token id, 0 or more, got ${imageTokenId}`);
    if (projector.featureWidth !== vision.featureWidth)
      fail(
        'ERR_LIBMOE_CONFIG',
        `the projector takes features of width ${projector.featureWidth}, the tower gives ${vision.featureWidth}`,
      );
    this.vision = vision;
    this.projector = projector;
    this.language = language;
    this.imageTokenId = imageTokenId;
    this.compat = compat;
  }

  get device(): DeviceName {
    return this.language.device;
  }

  /** Rows of input that an image takes. */
  get tokensPerImage(): number {
    return this.projector.tokensPerImage;
  }

  /** Recompute layers of all parts during backward instead of keeping their intermediate results. */
  get activationCheckpointing(): boolean {
    return this.language.activationCheckpointing;
  }

  set activationCheckpointing(again: boolean) {
    for (const part of [this.vision, this.projector, this.language] as {
      activationCheckpointing?: boolean;
    }[])
      part.activationCheckpointing = again;
  }

  /**
   * What the language model sees of images.
   * @param pixels `[images, 3, side, side]`, normalised, f32
   * @param counted of each image whether routers and losses are to count it; default: all
   * @returns `[images · tokensPerImage, dModel]` in the dtype of the language model
   * @throws ERR_LIBMOE_SHAPE for images of another size
   */
  imageFeatures(pixels: Tensor, context?: ForwardContext, counted?: readonly boolean[]): Tensor {
    const { vision, projector } = this;
    const { imageSize } = vision;
    if (pixels.rank !== 4 || pixels.shape.slice(1).join() !== `3,${imageSize},${imageSize}`)
      fail(
        'ERR_LIBMOE_SHAPE',
        `images must be [images, 3, ${imageSize}, ${imageSize}], got [${pixels.shape.join(', ')}]`,
      );
    return scope(() => {
      const given = context ?? new ForwardContext({ training: this.training });
      // A part that learns nothing runs as in evaluation.
      const inner = (part: Module): ForwardContext =>
        learns(part) ? given : given.with({ training: false });
      try {
        const features = vision.forward(pixels, inner(vision), counted && { counted });
        const own = inner(projector);
        const rows = own.part(() =>
          projector.forward(as(features, dtypeOf(projector) ?? features.dtype), own, counted),
        );
        return as(rows, this.language.dtype);
      } finally {
        if (context === undefined) given.dispose();
      }
    });
  }

  /**
   * The hidden states of the language model after its last norm.
   * @param context collects auxiliary losses and routing records of all parts; made anew when absent
   * @param cached continue these sequences of a cache of the language model; nothing can be differentiated then
   * @returns `[tokens, dModel]`
   * @throws ERR_LIBMOE_DATA for a malformed batch, or images that do not fit its image tokens
   */
  forward(batch: VisionLanguageInput, context?: ForwardContext, cached?: CachedSequences): Tensor {
    const run = (): Tensor =>
      this.#inContext(context, (own) => this.language.forward(this.#spliced(batch, own), own, cached));
    return cached ? noGrad(run) : run();
  }

  /**
   * Mean cross entropy of the tokens that have a target, in nats; auxiliary losses of all parts are in the context.
   * @returns a scalar, f32
   */
  loss(batch: TokenBatch & { images?: BatchImages }, context?: ForwardContext): Tensor {
    const { targets } = batch;
    return this.#inContext(context, (own) =>
      this.language.loss({ ...this.#spliced(batch, own), targets }, own),
    );
  }

  /** Logits of hidden states, `[tokens, vocabulary]`, as {@link LanguageModel.logits}. */
  logits(hidden: Tensor): Tensor {
    return this.language.logits(hidden);
  }

  /** Ids as the embedding can look them up: an image token may lie outside the vocabulary, and what is looked up for it is replaced anyway. */
  knownIds(ids: Int32Array): Int32Array {
    const { imageTokenId } = this;
    if (imageTokenId < this.language.config.vocabularySize) return ids;
    return ids.map((id) => (id === imageTokenId ? 0 : id));
  }

  override dispose(): void {
    for (const part of [this.vision, this.projector, this.language]) part.dispose();
  }

  #inContext(given: ForwardContext | undefined, run: (context: ForwardContext) => Tensor): Tensor {
    const context = given ?? new ForwardContext({ training: this.training });
    try {
      return scope(() => run(context));
    } finally {
      if (given === undefined) context.dispose();
    }
  }

  /** The batch as the language model takes it. */
  #spliced(
    { images, ...batch }: VisionLanguageInput,
    context: ForwardContext,
  ): Omit<VisionLanguageInput, 'images'> & { inserted?: InsertedRows } {
    const { imageTokenId, tokensPerImage } = this;
    const { at, from } = rowsOfImages(batch, images, { imageTokenId, tokensPerImage });
    const rows = images && images.count > 0 ? this.#rowsOf(images, context) : this.#presence(context);
    const ids = this.knownIds(batch.ids);
    // Rows that no token takes are handed over too: backward then walks, and frees, all that was kept for them.
    return { ...batch, ids, ...(rows && { inserted: { rows, at, from } }) };
  }

  #rowsOf({ pixels, count, side, starts }: BatchImages, context: ForwardContext): Tensor {
    if (pixels.length !== count * 3 * side * side)
      fail(
        'ERR_LIBMOE_DATA',
        `${count} images of ${side} × ${side} pixels have ${count * 3 * side * side} numbers, got ${pixels.length}`,
      );
    const counted = Array.from(starts, (start) => start >= 0 || this.compat === 'libmoe');
    const images = tensor(pixels, [count, 3, side, side], { device: this.device });
    return this.imageFeatures(images, context, counted.includes(false) ? counted : undefined);
  }

  /**
   * Of several ranks every one must have the losses and records of every MoE layer: one without an image sends a zero image that counts nowhere
   * through the mixtures of tower and projector.
   */
  #presence(context: ForwardContext): Tensor | undefined {
    if (context.ranks <= 1 || !(hasMoe(this.vision) || hasMoe(this.projector))) return undefined;
    const { imageSize } = this.vision;
    return this.imageFeatures(zeros([1, 3, imageSize, imageSize], { device: this.device }), context, [false]);
  }
}

const learns = (part: Module): boolean => part.parameters().some(({ requiresGrad }) => requiresGrad);
const hasMoe = (part: Module): boolean =>
  [...part.namedModules().values()].some((module) => module instanceof MoeLayer);

/** Of a part's weights; undefined where it has none. */
const dtypeOf = (part: Module): Tensor['dtype'] | undefined => part.parameters()[0]?.dtype;
const as = (t: Tensor, dtype: Tensor['dtype'] | undefined): Tensor =>
  dtype === undefined || t.dtype === dtype ? t : cast(t, dtype);
