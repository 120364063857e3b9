import { type ForwardContext, MoeLayer } from '../../moe/index.ts';
import { SelfAttention } from '../../nn/attention.ts';
import { FeedForward } from '../../nn/feed-forward.ts';
import type { LayerOptions } from '../../nn/linear.ts';
import { Module } from '../../nn/module.ts';
import { LayerNorm } from '../../nn/norm.ts';
import { add } from '../../tensor/elementwise.ts';
import type { Tensor } from '../../tensor/index.ts';
import type { VisionTowerConfig } from './config.ts';

/** One encoder block: x ← x + attention(norm x), every token seeing all of its image, then x ← x + feedForward(norm x), dense or a mixture of experts. */
export class VisionBlock extends Module {
  readonly attentionNorm: LayerNorm;
  readonly attention: SelfAttention;
  readonly feedForwardNorm: LayerNorm;
  readonly feedForward?: FeedForward;
  readonly moe?: MoeLayer;

  /** @param layer index of the block, which routers and records are told */
  constructor(config: VisionTowerConfig, layer: number, isMoe: boolean, options: LayerOptions) {
    super();
    const { dModel, heads, eps, hidden, activation, layers } = config;
    this.attentionNorm = new LayerNorm(dModel, { ...options, eps });
    this.attention = new SelfAttention(dModel, {
      ...options,
      heads,
      keyValueHeads: heads,
      headDim: dModel / heads,
      bias: true,
      outputBias: true,
      causal: false,
      turns: false,
    });
    this.feedForwardNorm = new LayerNorm(dModel, { ...options, eps });
    if (isMoe) {
      const { layers: _, ...moe } = config.moe!;
      const name = `vision.${layer}`;
      this.moe = new MoeLayer({ ...moe, dModel, layer, name, layerCount: layers, ...options });
    } else {
      this.feedForward = new FeedForward(dModel, {
        ...options,
        hidden,
        activation,
        gated: false,
        bias: true,
      });
    }
  }

  /**
   * @param x `[tokens, dModel]`
   * @param sequenceOffsets i32 `[images + 1]`: where each image begins, and the number of tokens
   * @returns `[tokens, dModel]`
   */
  forward(x: Tensor, sequenceOffsets: Tensor, context: ForwardContext): Tensor {
    const attended = add(x, this.attention.forward(this.attentionNorm.forward(x), { sequenceOffsets }));
    const normed = this.feedForwardNorm.forward(attended);
    const transformed = this.moe ? this.moe.forward(normed, context) : this.feedForward!.forward(normed);
    return add(attended, transformed);
  }
}
