import { add, cast } from '../../tensor/elementwise.ts';
import { type Dtype, noGrad, type Tensor, tensor } from '../../tensor/index.ts';
import { gatherRows } from '../../tensor/shape.ts';

/** What is known of each router output, looked up for every choice: [tokens, topK]. A choice of −1 gets `none`. */
export function ofChoices(choices: Tensor, values: readonly number[], none: number, dtype: Dtype): Tensor {
  return noGrad(() => {
    const table = tensor([none, ...values], [values.length + 1], { dtype, device: choices.device });
    return gatherRows(table, shifted(choices));
  });
}

/** choices + 1, so that −1 is row 0; f64 holds every i32. */
const shifted = (choices: Tensor): Tensor => noGrad(() => cast(add(cast(choices, 'f64'), 1), 'i32'));
