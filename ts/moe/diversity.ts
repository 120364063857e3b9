import {
  cast,
  divide,
  greater,
  greaterEqual,
  maximum,
  multiply,
  relu,
  square,
  subtract,
  where,
} from '../tensor/elementwise.ts';
import { matmul } from '../tensor/gemm.ts';
import { full, noGrad, ones, type Tensor, tensor } from '../tensor/index.ts';
import { rmsNorm } from '../tensor/norm.ts';
import { type DispatchPlan, dispatchPlan } from '../tensor/permutation.ts';
import { sum } from '../tensor/reduction.ts';
import { gatherRows, reshape } from '../tensor/shape.ts';
import type { ExpertSet } from './experts.ts';
import type { Routing } from './routing.ts';

/**
 * How alike the experts of a token answer: the mean over tokens and ordered pairs j ≠ k of their choices of relu(cos(Eⱼ(x), Eₖ(x))), in f32 (f64 for
 * f64). LibMoE's measure of expert diversity (arXiv 2411.00918) as a loss, over K (K − 1) pairs where its code divides by K². 0: at right angles
 * or opposed; 1: alike, as the experts of a newly upcycled layer are. Dropped choices, −1, and two choices of one expert make no pair.
 *
 * Every chosen expert runs once more, with its output kept apart.
 * @param tokens `[tokens, width]`
 * @param plan which choices of the routing were kept
 * @returns two scalars: the loss, and of how many pairs it is the mean
 */
export function diversityLoss(
  experts: ExpertSet,
  tokens: Tensor,
  routing: Pick<Routing, 'experts'>,
  plan: DispatchPlan,
): { value: Tensor; units: Tensor } {
  const [count = 0, k = 1] = routing.experts.shape;
  const { device } = tokens;
  const wide = tokens.dtype === 'f64' ? 'f64' : 'f32';
  const slots = count * k;
  const { own, rows, pairs } = noGrad(() => {
    const kept = greaterEqual(cast(reshape(plan.inverse, [slots]), 'f64'), 0);
    const ids = where(kept, cast(reshape(routing.experts, [slots]), 'f64'), -1);
    const others = greater(square(subtract(reshape(ids, [count, k, 1]), reshape(ids, [count, 1, k]))), 0);
    const there = cast(kept, wide);
    const both = multiply(reshape(there, [count, k, 1]), reshape(there, [count, 1, k]));
    return {
      own: dispatchPlan(reshape(cast(ids, 'i32'), [slots, 1]), { experts: experts.count }),
      rows: tensor(
        Int32Array.from({ length: slots }, (_, slot) => Math.floor(slot / k)),
        undefined,
        { device },
      ),
      pairs: multiply(both, cast(others, wide)),
    };
  });
  const outputs = experts.forward(gatherRows(tokens, rows), own, ones([slots, 1], { dtype: wide, device }));
  own.dispose(); // the tape holds what it needs
  const width = outputs.shape[1]!;
  const even = full([width], width ** -0.5, { dtype: wide, device });
  const answers = outputs.dtype === wide ? outputs : cast(outputs, wide);
  const directions = reshape(rmsNorm(answers, even, 1e-12 / width), [count, k, width]);
  const alike = relu(matmul(directions, directions, { transposeB: true }));
  const units = noGrad(() => sum(pairs));
  const value = divide(
    sum(multiply(alike, pairs)),
    noGrad(() => maximum(units, 1)),
  );
  return { value, units };
}
