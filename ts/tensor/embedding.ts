import { native } from '../native/index.ts';
import { record } from './autograd.ts';
import { filled } from './broadcast.ts';
import { type Tensor, view } from './tensor.ts';

/**
 * Rows of a table: weight [vocabulary, d], ids i32 [...] → [..., d]. The gradient of the table goes straight into its f32 accumulator, summed in
 * order of position. Throws ERR_LIBMOE_ARGUMENT, naming it, for an id outside the table.
 */
export function embedding(weight: Tensor, ids: Tensor): Tensor {
  const d = weight.shape[1] ?? 0;
  const n = ids.size;
  using flatIds = view(ids, [n]);
  using flat = filled([n, d], weight, (y) => native().embedding(weight.handle, flatIds.handle, y));
  const y = view(flat, [...ids.shape, d]);
  record({
    name: 'embedding',
    inputs: [weight],
    outputs: [y],
    saved: [ids],
    backward: ([dy], sink) => {
      const into = sink.into(0);
      if (!into) return;
      native().embeddingBackward(
        view(dy!, [n, d]).handle,
        view(ids, [n]).handle,
        into.tensor.handle,
        into.accumulate,
      );
    },
  });
  return y;
}
