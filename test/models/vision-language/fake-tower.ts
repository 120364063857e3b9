import { maskOf } from '../../../ts/models/vision-language/index.ts';
import { ForwardContext, MoeLayer } from '../../../ts/moe/index.ts';
import { Linear } from '../../../ts/nn/linear.ts';
import { Module } from '../../../ts/nn/module.ts';
import { add } from '../../../ts/tensor/elementwise.ts';
import { type Tensor, tensor } from '../../../ts/tensor/index.ts';
import { cat, permute, reshape } from '../../../ts/tensor/shape.ts';

/** A tower as the model sees one, small enough to reason about: patches of 4 pixels, a projection, two layers, run once per scale. */
export class FakeTower extends Module {
  readonly imageSize = 8;
  readonly tokensPerImage = 4;
  readonly featureWidth: number;
  activationCheckpointing = false;
  readonly patches: Linear;
  readonly layers: (Linear | MoeLayer)[];
  readonly scales: number;

  constructor({ width = 12, moe = false, scales = 1, router = 'smoe' as string | { name: string } } = {}) {
    super();
    this.scales = scales;
    this.featureWidth = width * scales;
    this.patches = new Linear(48, width, { values: { seed: 3, name: 'patches' } });
    this.layers = [0, 1].map((layer) => {
      const values = { seed: 3, name: `layers.${layer}` };
      if (!moe) return new Linear(width, width, { values });
      const expert = { hidden: 16, activation: 'geluTanh' as const, gated: false, bias: true };
      const name = `vision.${layer}`;
      return new MoeLayer({
        router,
        experts: 4,
        topK: 2,
        expert,
        dModel: width,
        layer,
        layerCount: 2,
        name,
        values,
      });
    });
  }

  forward(
    pixels: Tensor,
    context = new ForwardContext(),
    { counted }: { counted?: readonly boolean[] } = {},
  ): Tensor {
    const images = pixels.shape[0]!;
    const { device } = pixels;
    const squares = permute(reshape(pixels, [images, 3, 2, 4, 2, 4]), [0, 2, 4, 1, 3, 5]);
    const flat = reshape(squares, [images * 4, 48]);
    const own = context.with({
      sequenceOffsets: tensor(
        Int32Array.from({ length: images + 1 }, (_, i) => 4 * i),
        undefined,
        { device },
      ),
      tokenMask: counted && tensor(maskOf(counted, 4), undefined, { dtype: 'bool', device }),
    });
    const each = own.part(() =>
      Array.from({ length: this.scales }, () => {
        let x = this.patches.forward(flat);
        for (const layer of this.layers)
          x = add(x, layer instanceof MoeLayer ? layer.forward(x, own) : layer.forward(x));
        return x;
      }),
    );
    return each.length === 1 ? each[0]! : cat(each, 1);
  }
}
