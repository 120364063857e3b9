import { type ActivationName, FeedForward } from '../../nn/feed-forward.ts';
import { type LayerOptions, Linear, newParameter } from '../../nn/linear.ts';
import { Module } from '../../nn/module.ts';
import { LayerNorm } from '../../nn/norm.ts';
import { add, cast, multiply, scale } from '../../tensor/elementwise.ts';
import type { Tensor } from '../../tensor/index.ts';
import { sum } from '../../tensor/reduction.ts';
import { permute, reshape } from '../../tensor/shape.ts';
import { softmax } from '../../tensor/softmax.ts';

/** Sizes of an {@link AttentionPool}. */
export interface AttentionPoolOptions extends LayerOptions {
  heads: number;
  eps: number;
  hidden: number;
  activation: ActivationName;
}

/** SigLIP's head: one learnt query attends over all tokens of an image, a feed-forward layer with residual follows (Lee et al., arXiv 1810.00825). */
export class AttentionPool extends Module {
  readonly heads: number;
  readonly width: number;
  /** `[width]`. */
  probe: Tensor;
  readonly query: Linear;
  readonly key: Linear;
  readonly value: Linear;
  readonly output: Linear;
  readonly norm: LayerNorm;
  readonly feedForward: FeedForward;

  constructor(width: number, options: AttentionPoolOptions) {
    super();
    const { heads, eps, hidden, activation } = options;
    this.heads = heads;
    this.width = width;
    this.probe = newParameter([width], options);
    this.query = new Linear(width, width, options);
    this.key = new Linear(width, width, options);
    this.value = new Linear(width, width, options);
    this.output = new Linear(width, width, options);
    this.norm = new LayerNorm(width, { ...options, eps });
    this.feedForward = new FeedForward(width, { ...options, hidden, activation, gated: false, bias: true });
  }

  /** @param x `[images, tokens, width]` @returns `[images, width]` */
  forward(x: Tensor): Tensor {
    const { heads, width } = this;
    const [images = 0, tokens = 0] = x.shape;
    const channels = width / heads;
    const precise = x.dtype === 'f64' ? 'f64' : 'f32';
    const byHead = (t: Tensor, rows: number): Tensor =>
      cast(reshape(t, [rows, tokens, heads, channels]), precise);
    const query = reshape(this.query.forward(reshape(this.probe, [1, width])), [1, 1, heads, channels]);
    const asked = scale(cast(query, precise), channels ** -0.5);
    const scores = sum(multiply(byHead(this.key.forward(x), images), asked), 3);
    const shares = permute(softmax(permute(scores, [0, 2, 1])), [0, 2, 1]);
    const values = byHead(this.value.forward(x), images);
    const mixed = sum(multiply(values, reshape(shares, [images, tokens, heads, 1])), 1);
    const seen = this.output.forward(cast(reshape(mixed, [images, width]), x.dtype));
    return add(seen, this.feedForward.forward(this.norm.forward(seen)));
  }
}
