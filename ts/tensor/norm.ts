import { fail, native } from '../native/index.ts';
import { record } from './autograd.ts';
import { gradientDtype } from './dtype.ts';
import { scope } from './lifetime.ts';
import { empty, emptyLike, type Tensor, view } from './tensor.ts';

function normalise(
  name: string,
  x: Tensor,
  weight: Tensor,
  bias: Tensor | undefined,
  epsilon: number,
  centred: boolean,
): Tensor {
  const width = x.shape[x.rank - 1];
  if (width === undefined || width === 0 || weight.rank !== 1 || weight.shape[0] !== width) {
    fail(
      'ERR_LIBMOE_SHAPE',
      `${name} expects x [..., width] and weight [width], got [${x.shape.join(', ')}] and [${weight.shape.join(', ')}]`,
    );
  }
  const y = emptyLike(x);
  const statistics = { dtype: gradientDtype(x.dtype), device: x.device };
  const rows = [x.size / width];
  const mean = centred ? empty(rows, statistics) : undefined;
  const inverse = empty(rows, statistics);
  const fill = () =>
    native().norm(x.handle, weight.handle, bias?.handle, y.handle, mean?.handle, inverse.handle, epsilon);
  fill();
  record({
    name,
    inputs: [x, weight, bias],
    outputs: [y],
    saved: [x, weight, bias, mean, inverse].filter((t) => t !== undefined),
    again: fill,
    backward: ([dy], sink) => {
      const dx = sink.needs(0) ? emptyLike(x) : undefined;
      const dweight = sink.into(1);
      const dbias = bias && sink.into(2);
      native().normBackward(
        x.handle,
        weight.handle,
        dy!.handle,
        mean?.handle,
        inverse.handle,
        dx?.handle,
        dweight?.tensor.handle,
        dweight?.accumulate ?? false,
        dbias?.tensor.handle,
        dbias?.accumulate ?? false,
      );
      return [dx];
    },
  });
  mean?.dispose();
  inverse.dispose();
  return y;
}

/**
 * Layer normalisation over the last dimension (Ba et al., arXiv 1607.06450): (x − mean) / √(variance + epsilon) · weight + bias.
 * x [..., width], weight and bias [width], one floating dtype; bf16 is normalised in f32 and rounded once. Throws ERR_LIBMOE_SHAPE,
 * ERR_LIBMOE_DTYPE, ERR_LIBMOE_ARGUMENT (negative epsilon).
 */
export function layerNorm(x: Tensor, weight: Tensor, bias?: Tensor, epsilon = 1e-5): Tensor {
  return normalise('layerNorm', x, weight, bias, epsilon, true);
}

/**
 * Root mean square normalisation over the last dimension (Zhang and Sennrich, arXiv 1910.07467): x / √(mean(x²) + epsilon) · weight.
 * x [..., width], weight [width]. Throws as {@link layerNorm}.
 */
export function rmsNorm(x: Tensor, weight: Tensor, epsilon = 1e-6): Tensor {
  return normalise('rmsNorm', x, weight, undefined, epsilon, false);
}

/**
 * 1 / (max(‖x‖, floor) + plus) of every row over the last dimension, [..., 1]; a row below the floor gets no gradient. `x` [..., width], floating;
 * the result is f32 (f64 for f64). Throws ERR_LIBMOE_ARGUMENT unless floor is positive and plus is not negative.
 */
export function inverseNorms(x: Tensor, { floor, plus = 0 }: { floor: number; plus?: number }): Tensor {
  const shape = [...x.shape.slice(0, -1), 1];
  const y = empty(shape, { dtype: gradientDtype(x.dtype), device: x.device });
  const flat = (t: Tensor): Tensor => view(t, [t.size]);
  try {
    scope(() => native().inverseNorms(x.handle, floor, plus, flat(y).handle));
  } catch (error) {
    y.dispose();
    throw error;
  }
  record({
    name: 'inverseNorms',
    inputs: [x],
    outputs: [y],
    saved: [x, y],
    backward: ([dy]) => {
      const dx = emptyLike(x);
      native().inverseNormsBackward(x.handle, floor, flat(y).handle, flat(dy!).handle, dx.handle);
      return [dx];
    },
  });
  return y;
}
