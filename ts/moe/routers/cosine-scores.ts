import { add, divide, maximum, sqrt, square } from '../../tensor/elementwise.ts';
import { linear } from '../../tensor/gemm.ts';
import { noGrad, type Tensor } from '../../tensor/index.ts';
import { sum } from '../../tensor/reduction.ts';
import { reshape } from '../../tensor/shape.ts';

/** What keeps a cosine finite: norms are at least `floor`, or have a constant added (Nguyen et al., arXiv 2405.14131). */
export interface NormRule {
  /** Default 1e-12, which only zero vectors meet. */
  floor?: number;
  /** Default 0. */
  plus?: number;
  /** The norms get no gradient: as if the vectors had been rescaled before the pass. */
  constant?: boolean;
}

/** Norms of the rows of x [n, width], [n, 1]. A row below the floor has gradient 0. */
export function rowNorms(x: Tensor, rule: NormRule = {}): Tensor {
  const { floor = 1e-12, plus = 0, constant = false } = rule;
  if (constant) return noGrad(() => rowNorms(x, { floor, plus }));
  const norms = sqrt(maximum(sum(square(x), 1, { keepDims: true }), floor * floor));
  return plus === 0 ? norms : add(norms, plus);
}

/** Cosine of every token [T, width] with every row [N, width], [T, N]; the norms of either as its rule says. */
export function cosineScores(tokens: Tensor, rows: Tensor, ofTokens: NormRule, ofRows: NormRule): Tensor {
  const norms = reshape(rowNorms(rows, ofRows), [1, rows.shape[0]!]);
  return divide(divide(linear(tokens, rows), rowNorms(tokens, ofTokens)), norms);
}
