import { native } from '../native/index.ts';
import { record } from './autograd.ts';
import { emptyLike, type Tensor } from './tensor.ts';

function run(name: string, x: Tensor, logarithm: boolean): Tensor {
  const y = emptyLike(x);
  native().softmax(x.handle, y.handle, logarithm);
  record({
    name,
    inputs: [x],
    outputs: [y],
    saved: [y],
    backward: ([dy]) => {
      const dx = emptyLike(x);
      native().softmaxBackward(y.handle, dy!.handle, dx.handle, logarithm);
      return [dx];
    },
  });
  return y;
}

/**
 * Softmax over the last dimension. x [..., width], f32, bf16 or f64 (bf16 is computed in f32 and rounded once). A row of −∞ alone gives NaN.
 * Throws ERR_LIBMOE_DTYPE, ERR_LIBMOE_SHAPE (scalar).
 */
export const softmax = (x: Tensor): Tensor => run('softmax', x, false);

/** Logarithm of {@link softmax}, without the rounding of taking it afterwards. */
export const logSoftmax = (x: Tensor): Tensor => run('logSoftmax', x, true);
