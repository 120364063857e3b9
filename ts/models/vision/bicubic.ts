import { matmul } from '../../tensor/gemm.ts';
import { type Tensor, tensor } from '../../tensor/index.ts';
import { expand, reshape } from '../../tensor/shape.ts';

/** The weights [to, from] of cubic convolution (Keys 1981, a = −0.75) along one axis, borders repeated, as PyTorch interpolates. */
function weightsOf(from: number, to: number): Float64Array {
  const a = -0.75;
  const near = (t: number): number => ((a + 2) * t - (a + 3)) * t * t + 1;
  const far = (t: number): number => ((a * t - 5 * a) * t + 8 * a) * t - 4 * a;
  const weights = new Float64Array(to * from);
  for (let row = 0; row < to; row += 1) {
    const at = ((row + 0.5) * from) / to - 0.5;
    const first = Math.floor(at);
    const t = at - first;
    for (const [i, weight] of [far(t + 1), near(t), near(1 - t), far(2 - t)].entries()) {
      const column = Math.min(from - 1, Math.max(0, first - 1 + i));
      weights[row * from + column]! += weight;
    }
  }
  return weights;
}

/** Pictures `[n, channels, height, width]` at another size, by cubic convolution without antialiasing; differentiable. */
export function bicubic(x: Tensor, height: number, width: number): Tensor {
  const [n = 0, channels = 0, rows = 0, columns = 0] = x.shape;
  const like = { dtype: x.dtype, device: x.device };
  const down = tensor(weightsOf(rows, height), [1, height, rows], like);
  const across = tensor(weightsOf(columns, width), [1, width, columns], like);
  const planes = n * channels;
  const wide = matmul(reshape(x, [planes, rows, columns]), expand(across, [planes, width, columns]), {
    transposeB: true,
  });
  return reshape(matmul(expand(down, [planes, height, rows]), wide), [n, channels, height, width]);
}
