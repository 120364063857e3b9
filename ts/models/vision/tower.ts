import { checkpointed, ForwardContext } from '../../moe/index.ts';
import { fail } from '../../native/index.ts';
import { Embedding } from '../../nn/embedding.ts';
import { type LayerOptions, Linear, newParameter } from '../../nn/linear.ts';
import { Module } from '../../nn/module.ts';
import { LayerNorm } from '../../nn/norm.ts';
import { add, cast } from '../../tensor/elementwise.ts';
import { interpolate, unfold } from '../../tensor/image.ts';
import { type DeviceName, type Dtype, record, scope, type Tensor, tensor, view } from '../../tensor/index.ts';
import { mean } from '../../tensor/reduction.ts';
import { cat, expand, permute, reshape, slice } from '../../tensor/shape.ts';
import type { NewModelOptions } from '../language/model.ts';
import { AttentionPool } from './attention-pool.ts';
import { VisionBlock } from './block.ts';
import {
  depthOf,
  featureLayerOf,
  gridOf,
  resolveVisionTowerConfig,
  tokensPerImageOf,
  type VisionTowerConfig,
  type VisionTowerOptions,
  visionMoeLayersOf,
} from './config.ts';
import { drawTowerValues } from './initial-values.ts';
import { mergedTiles, tilesOf } from './tiles.ts';

/** What a tower is told of a batch of images. */
export interface ImagesOptions {
  /** Of each image whether it counts: others (dummies) are routed nowhere, and no loss or record sees them. Default: all count. */
  counted?: readonly boolean[] | undefined;
}

/**
 * A vision transformer, CLIP's (Radford et al., arXiv 2103.00020) or SigLIP's (Zhai et al., arXiv 2303.15343) from one configuration, with a
 * mixture of experts in any subset of its layers, and images seen at several scales (S², Shi et al., arXiv 2403.13043).
 */
export class VisionTower extends Module {
  readonly config: VisionTowerConfig;
  /** Side of the images that it takes. */
  readonly imageSize: number;
  /** Rows of features per image, and their width. */
  readonly tokensPerImage: number;
  readonly featureWidth: number;
  readonly patchEmbedding: Linear;
  /** `[dModel]`, of kind clip. */
  classEmbedding?: Tensor;
  readonly positionEmbedding: Embedding;
  readonly preNorm?: LayerNorm;
  readonly blocks: VisionBlock[];
  /** With `pool` only. */
  readonly postNorm?: LayerNorm;
  readonly head?: AttentionPool;
  /** Recompute each block during backward instead of keeping its intermediate results. */
  activationCheckpointing = false;
  /** The folder it was loaded from; undefined for a tower made anew. */
  checkpoint?: string;

  /** @throws ERR_LIBMOE_CONFIG */
  constructor(config: VisionTowerOptions, options: NewModelOptions = {}) {
    super();
    this.config = resolveVisionTowerConfig(config);
    const { kind, dModel, patchSize, imageSize, eps, heads, hidden, activation, pool } = this.config;
    const layerOptions: LayerOptions = { dtype: options.dtype, device: options.device, values: 'later' };
    this.imageSize = this.config.resolution;
    this.tokensPerImage = tokensPerImageOf(this.config);
    this.featureWidth = dModel * this.config.scales.length;
    const clip = kind === 'clip';
    const positions = gridOf(this.config, imageSize) ** 2 + (clip ? 1 : 0);
    this.patchEmbedding = new Linear(3 * patchSize * patchSize, dModel, { ...layerOptions, bias: !clip });
    if (clip) this.classEmbedding = newParameter([dModel], layerOptions);
    this.positionEmbedding = new Embedding(positions, dModel, layerOptions);
    if (clip) this.preNorm = new LayerNorm(dModel, { ...layerOptions, eps });
    const moeLayers = visionMoeLayersOf(this.config);
    this.blocks = Array.from(
      { length: depthOf(this.config) },
      (_, layer) => new VisionBlock(this.config, layer, moeLayers.includes(layer), layerOptions),
    );
    if (pool !== undefined) this.postNorm = new LayerNorm(dModel, { ...layerOptions, eps });
    if (pool === 'attention')
      this.head = new AttentionPool(dModel, { ...layerOptions, heads, eps, hidden, activation });
    if (options.seed !== 'later') drawTowerValues(this, options.seed ?? 0);
  }

  get device(): DeviceName {
    return this.patchEmbedding.weight.device;
  }

  get dtype(): Dtype {
    return this.patchEmbedding.weight.dtype;
  }

  /**
   * The features of images: the selected hidden state (before any last norm, as Hugging Face's `hidden_states`), scales side by side.
   * @param pixels `[images, 3, imageSize, imageSize]`, normalised; f32 or the dtype of the tower
   * @param context collects auxiliary losses (means over the MoE layers and over the scales, each scale balanced by itself, its tiles being sequences of
   *   their own) and routing records; made anew when absent
   * @returns `[images · tokensPerImage, featureWidth]`
   * @throws ERR_LIBMOE_SHAPE for images of another size
   */
  forward(pixels: Tensor, context?: ForwardContext, options: ImagesOptions = {}): Tensor {
    return this.#within(context, (inner) => {
      const scaled = this.config.scales.map((scale) => {
        inner.collection.seal();
        return this.#features(pixels, scale, inner, options);
      });
      return scaled.length === 1 ? scaled[0]! : cat(scaled, 1);
    });
  }

  /**
   * One vector per image, as `pool` of the configuration says, of the last hidden state after the last norm: what contrastive pretraining compares.
   * @param pixels and the rest as {@link forward}
   * @returns `[images, dModel]`
   * @throws ERR_LIBMOE_CONFIG without `pool`
   */
  pooled(pixels: Tensor, context?: ForwardContext, options: ImagesOptions = {}): Tensor {
    const { pool, dModel } = this.config;
    const { postNorm } = this;
    if (postNorm === undefined)
      return fail('ERR_LIBMOE_CONFIG', 'vision tower: pooled() needs pool: "attention", "class" or "mean"');
    return this.#within(context, (inner) => {
      const hidden = this.#hidden(pixels, inner, options);
      const images = pixels.shape[0]!;
      const perImage = reshape(hidden, [images, hidden.shape[0]! / images, dModel]);
      if (pool === 'class') return postNorm.forward(reshape(slice(perImage, 1, 0, 1), [images, dModel]));
      const normed = postNorm.forward(this.classEmbedding ? slice(perImage, 1, 1) : perImage);
      return this.head ? this.head.forward(normed) : mean(normed, 1);
    });
  }

  #within(given: ForwardContext | undefined, run: (context: ForwardContext) => Tensor): Tensor {
    const context = given ?? new ForwardContext({ training: this.training });
    try {
      return scope(() => context.part(() => run(context)));
    } finally {
      if (given === undefined) context.dispose();
    }
  }

  /** `[images · tokensPerImage, dModel]`. */
  #features(pixels: Tensor, scale: number, context: ForwardContext, { counted }: ImagesOptions): Tensor {
    this.#check(pixels, counted);
    const { selectFeature, dModel } = this.config;
    const side = this.imageSize * scale;
    // In full precision, as LibMoE enlarges them.
    const tiles = scale === 1 ? pixels : tilesOf(enlarged(pixels, side), scale);
    const each = scale * scale;
    const hidden = this.#hidden(tiles, context, { counted: counted?.flatMap((c) => Array(each).fill(c)) });
    const count = tiles.shape[0]!;
    const tokens = hidden.shape[0]! / count;
    const dropsClass = this.classEmbedding !== undefined && selectFeature === 'patch';
    const rows = dropsClass
      ? reshape(slice(reshape(hidden, [count, tokens, dModel]), 1, 1), [count * (tokens - 1), dModel])
      : hidden;
    return scale === 1 ? rows : mergedTiles(rows, scale, gridOf(this.config, this.imageSize));
  }

  #check({ shape }: Tensor, counted: readonly boolean[] | undefined): void {
    const side = this.imageSize;
    if (shape.length !== 4 || shape[1] !== 3 || shape[2] !== side || shape[3] !== side)
      fail(
        'ERR_LIBMOE_SHAPE',
        `vision tower expects pixels [images, 3, ${side}, ${side}], got [${shape.join(', ')}]: resize the images, or set resolution`,
      );
    if (counted && counted.length !== shape[0])
      fail(
        'ERR_LIBMOE_ARGUMENT',
        `counted must say of ${shape[0]} images whether they count, got ${counted.length}`,
      );
  }

  /** The selected hidden state of images, `[images · tokens, dModel]`, the class token with them. */
  #hidden(pixels: Tensor, given: ForwardContext, { counted }: ImagesOptions): Tensor {
    const { device } = this;
    const images = pixels.shape[0]!;
    let x = scope(() => this.#embed(pixels));
    const tokens = images === 0 ? 0 : x.shape[0]! / images;
    const offsets = Int32Array.from({ length: images + 1 }, (_, image) => image * tokens);
    const sequenceOffsets = tensor(offsets, undefined, { device });
    const mask = counted?.includes(false)
      ? tensor(
          Uint8Array.from({ length: images * tokens }, (_, t) => Number(counted[Math.floor(t / tokens)])),
          undefined,
          {
            dtype: 'bool',
            device,
          },
        )
      : undefined;
    const context = given.with({ sequenceOffsets, tokenMask: mask, tokenIds: undefined });
    context.onLayer?.('vision embedding', x);
    const selected = featureLayerOf(this.config);
    let features = selected === 0 ? x : undefined;
    for (const [layer, block] of this.blocks.entries()) {
      const before = x;
      x = this.activationCheckpointing
        ? again(block, before, context)
        : scope(() => block.forward(before, context.sequenceOffsets!, context));
      context.onLayer?.(`vision layer ${layer}`, x);
      if (layer + 1 === selected) features = x;
      if (before !== features) before.dispose(); // the tape holds it if it needs it
    }
    return x === features ? x : walkedWith(features!, x);
  }

  /** Patches, class token and positions, `[images · tokens, dModel]`. */
  #embed(pixels: Tensor): Tensor {
    const { patchSize, dModel } = this.config;
    const images = pixels.shape[0]!;
    const patches = this.patchEmbedding.forward(unfold(cast(pixels, this.dtype), patchSize));
    const perImage = reshape(patches, [images, gridOf(this.config, this.imageSize) ** 2, dModel]);
    const { classEmbedding } = this;
    const all = classEmbedding
      ? cat([expand(reshape(classEmbedding, [1, 1, dModel]), [images, 1, dModel]), perImage], 1)
      : perImage;
    const placed = add(all, this.#positions());
    const rows = reshape(placed, [images * placed.shape[1]!, dModel]);
    return this.preNorm ? this.preNorm.forward(rows) : rows;
  }

  /** `[tokens, dModel]`; interpolated where images are of another size than the positions were learned for. */
  #positions(): Tensor {
    const { weight } = this.positionEmbedding;
    const { imageSize, resolution, dModel } = this.config;
    const from = gridOf(this.config, imageSize);
    const to = gridOf(this.config, resolution);
    if (from === to) return weight;
    const first = this.classEmbedding ? 1 : 0;
    const grid = reshape(slice(weight, 0, first), [1, from, from, dModel]);
    const resized = enlarged(permute(grid, [0, 3, 1, 2]), to);
    const rows = reshape(permute(resized, [0, 2, 3, 1]), [to * to, dModel]);
    return first === 0 ? rows : cat([slice(weight, 0, 0, 1), rows], 0);
  }
}

/** `[n, channels, side, side]`, as Hugging Face and LibMoE resize positions and images. */
const enlarged = (x: Tensor, side: number): Tensor =>
  interpolate(x, { height: side, width: side, mode: 'bicubic' });

/** `features`, whose backward pass also frees what `unused` kept for one of its own. */
function walkedWith(features: Tensor, unused: Tensor): Tensor {
  const out = view(features, features.shape);
  record({
    name: 'walkedWith',
    inputs: [features, unused],
    outputs: [out],
    backward: ([gradient]) => [gradient],
  });
  return out;
}

function again(block: VisionBlock, x: Tensor, context: ForwardContext): Tensor {
  // What the recomputation needs goes in as inputs, which the tape keeps until then.
  const { tokenMask } = context;
  return checkpointed(
    context,
    (inner, input, sequenceOffsets, mask) =>
      block.forward(input!, sequenceOffsets!, inner.with({ sequenceOffsets, tokenMask: mask })),
    [x, context.sequenceOffsets!, ...(tokenMask ? [tokenMask] : [])],
  );
}

/** A new tower with initial values. @throws ERR_LIBMOE_CONFIG */
export const newVisionTower = (config: VisionTowerOptions, options: NewModelOptions = {}): VisionTower =>
  new VisionTower(config, options);
