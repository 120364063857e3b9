import { type ForwardContext, MoeLayer } from '../../moe/index.ts';
import { type AttentionStep, SelfAttention } from '../../nn/attention.ts';
import { FeedForward } from '../../nn/feed-forward.ts';
import { LatentAttention } from '../../nn/latent-attention.ts';
import type { LayerOptions } from '../../nn/linear.ts';
import { Module } from '../../nn/module.ts';
import { type Norm, newNorm } from '../../nn/norm.ts';
import { latentScoreFactor } from '../../nn/rotary-scaling.ts';
import { add } from '../../tensor/elementwise.ts';
import type { Tensor } from '../../tensor/index.ts';
import { chunksOf, type LanguageModelConfig, turningLayersOf, windowsOf } from './config.ts';

/** One decoder block: x ← x + attention(norm x), then x ← x + feedForward(norm x), the latter dense or a mixture of experts. */
export class Block extends Module {
  readonly attentionNorm: Norm;
  readonly attention: SelfAttention | LatentAttention;
  readonly feedForwardNorm: Norm;
  readonly feedForward?: FeedForward;
  readonly moe?: MoeLayer;

  /** @param layer index of the block, which routers and records are told */
  constructor(config: LanguageModelConfig, layer: number, isMoe: boolean, options: LayerOptions) {
    super();
    const { dModel, eps, norm } = config;
    this.attentionNorm = newNorm(norm, dModel, { ...options, eps });
    this.attention = newAttention(config, layer, options);
    this.feedForwardNorm = newNorm(norm, dModel, { ...options, eps });
    if (isMoe) this.moe = newMoeLayer(config, layer, options);
    else this.feedForward = new FeedForward(dModel, { ...options, ...config.feedForward });
  }

  /** @param x `[tokens, dModel]` @returns `[tokens, dModel]` */
  forward(x: Tensor, step: AttentionStep, context: ForwardContext): Tensor {
    const attended = add(x, this.attention.forward(this.attentionNorm.forward(x), step));
    const normed = this.feedForwardNorm.forward(attended);
    const transformed = this.moe ? this.moe.forward(normed, context) : this.feedForward!.forward(normed);
    return add(attended, transformed);
  }
}

function newAttention(
  config: LanguageModelConfig,
  layer: number,
  options: LayerOptions,
): SelfAttention | LatentAttention {
  const { dModel, heads, attention, eps } = config;
  const both = {
    ...options,
    heads,
    bias: config.attentionBias,
    outputBias: config.attentionOutputBias,
    window: windowsOf(config)[layer],
  };
  if (attention === undefined) {
    const { keyValueHeads, headDim, qkNorm, attentionSinks: sinks } = config;
    const chunked = chunksOf(config)[layer] !== undefined;
    const turns = turningLayersOf(config).includes(layer);
    return new SelfAttention(dModel, {
      ...both,
      keyValueHeads,
      headDim,
      qkNorm,
      sinks,
      eps,
      chunked,
      turns,
    });
  }
  const scoreFactor = latentScoreFactor(config.rotary.scaling);
  return new LatentAttention(dModel, { ...both, ...attention, scoreFactor });
}

function newMoeLayer(config: LanguageModelConfig, layer: number, options: LayerOptions): MoeLayer {
  const { layers: _, ...moe } = config.moe!;
  return new MoeLayer({ ...moe, dModel: config.dModel, layer, layerCount: config.layers, ...options });
}
