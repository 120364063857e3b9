import { checkpointed, type ForwardContext, MoeLayer } from '../../moe/index.ts';
import { fail } from '../../native/index.ts';
import { activate, FeedForward } from '../../nn/feed-forward.ts';
import { firstValues, type LayerOptions, Linear, partOptions } from '../../nn/linear.ts';
import { Module } from '../../nn/module.ts';
import { scope, type Tensor, tensor } from '../../tensor/index.ts';
import { permute, reshape } from '../../tensor/shape.ts';
import {
  linearLayersOf,
  type ProjectorConfig,
  type ProjectorOptions,
  resolveProjectorConfig,
} from './projector-config.ts';

/** Sizes between which a projector stands. */
export interface ProjectorPlace {
  /** Of the tower: width of a row, and rows of an image. */
  featureWidth: number;
  tokensPerImage: number;
  /** Of the language model. */
  dModel: number;
}

/** Makes input rows of a language model of a tower's features: `[images · rows, featureWidth]` to `[images · tokensPerImage, dModel]`. */
export class Projector extends Module {
  readonly config: ProjectorConfig;
  /** Rows that an image gives after {@link pixelShuffle}. */
  readonly tokensPerImage: number;
  readonly featureWidth: number;
  /** Linear layers, an activation between each two; none in a mixture of experts. */
  readonly layers: Linear[] = [];
  readonly moe?: MoeLayer;
  /** Recompute everything during backward instead of keeping intermediate results. */
  activationCheckpointing = false;
  readonly #rows: number;

  /** @throws ERR_LIBMOE_CONFIG for options or sizes that do not fit together */
  constructor(place: ProjectorPlace, options: ProjectorOptions = {}, layer: LayerOptions = {}) {
    super();
    const { featureWidth, tokensPerImage, dModel } = place;
    const config = resolveProjectorConfig(options);
    const { activation, bias, pixelShuffle, moe } = config;
    const side = Math.sqrt(tokensPerImage);
    if (pixelShuffle > 1 && side % pixelShuffle !== 0)
      fail(
        'ERR_LIBMOE_CONFIG',
        `projector: pixelShuffle ${pixelShuffle} needs a square of rows whose side it divides, the tower gives ${tokensPerImage} rows per image${Number.isInteger(side) ? '' : ' (a class token that is not dropped?)'}`,
      );
    this.config = config;
    this.featureWidth = featureWidth;
    this.#rows = tokensPerImage;
    this.tokensPerImage = tokensPerImage / pixelShuffle ** 2;
    const width = featureWidth * pixelShuffle ** 2;
    if (config.type === 'identity' && width !== dModel)
      fail(
        'ERR_LIBMOE_CONFIG',
        `projector: identity needs features as wide as the language model, got ${width} and ${dModel}`,
      );
    this.layers = Array.from(
      { length: linearLayersOf(config) },
      (_, i) => new Linear(i === 0 ? width : dModel, dModel, { ...partOptions(layer, `layers.${i}`), bias }),
    );
    if (!moe) return;
    const expert = { hidden: dModel, outputs: dModel, activation, gated: false, bias };
    const { shared, ...rest } = moe;
    const own = partOptions(layer, 'moe');
    this.moe = new MoeLayer({
      ...rest,
      ...own,
      ...((own.values ?? firstValues) !== 'later' && { values: own.values ?? { seed: 0, name: 'moe' } }),
      dModel: width,
      expert,
      ...(shared && { shared: new FeedForward(width, { ...expert, ...partOptions(own, 'shared') }) }),
      name: 'projector',
    });
  }

  /**
   * @param features `[images · rows, featureWidth]`
   * @param counted of each image whether the router and its losses are to count it; default: all
   * @returns `[images · tokensPerImage, dModel]`
   * @throws ERR_LIBMOE_SHAPE
   */
  forward(features: Tensor, context?: ForwardContext, counted?: readonly boolean[]): Tensor {
    const images = features.shape[0]! / this.#rows;
    if (features.rank !== 2 || features.shape[1] !== this.featureWidth || !Number.isInteger(images))
      fail(
        'ERR_LIBMOE_SHAPE',
        `projector expects [images · ${this.#rows}, ${this.featureWidth}], got [${features.shape.join(', ')}]`,
      );
    if (!context || !this.activationCheckpointing)
      return scope(() => this.#run(features, images, context, counted));
    return checkpointed(context, (inner, x) => this.#run(x!, images, inner, counted), [features]);
  }

  #run(features: Tensor, images: number, context?: ForwardContext, counted?: readonly boolean[]): Tensor {
    const { pixelShuffle: factor, activation } = this.config;
    let x = factor === 1 ? features : pixelShuffle(features, images, factor);
    if (this.moe) {
      const { device } = x;
      const each = this.tokensPerImage;
      const offsets = Int32Array.from({ length: images + 1 }, (_, i) => i * each);
      const place = {
        sequenceOffsets: tensor(offsets, undefined, { device }),
        tokenIds: undefined,
        tokenMask: counted && tensor(maskOf(counted, each), undefined, { dtype: 'bool', device }),
      };
      return this.moe.forward(x, context?.with(place));
    }
    for (const [i, layer] of this.layers.entries()) x = layer.forward(i === 0 ? x : activate(x, activation));
    return x;
  }
}

/** One entry per row of the images, 1 where the image counts. */
export const maskOf = (counted: readonly boolean[], rows: number): Uint8Array =>
  Uint8Array.from({ length: counted.length * rows }, (_, i) => (counted[Math.floor(i / rows)] ? 1 : 0));

/**
 * Joins factor × factor neighbouring rows of square images into one, row by row of each little square: `[images · side², width]` to
 * `[images · (side / factor)², factor² · width]`.
 */
export function pixelShuffle(features: Tensor, images: number, factor: number): Tensor {
  const [rows = 0, width = 0] = features.shape;
  const side = Math.round(Math.sqrt(rows / images) / factor);
  const squares = reshape(features, [images * side, factor, side, factor, width]);
  return reshape(permute(squares, [0, 2, 1, 3, 4]), [images * side * side, factor * factor * width]);
}
