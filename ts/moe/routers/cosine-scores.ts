import { add, maximum, multiply, reciprocal, sqrt, square } from '../../tensor/elementwise.ts';
import { linear } from '../../tensor/gemm.ts';
import { full, noGrad, type Tensor } from '../../tensor/index.ts';
import { rmsNorm } from '../../tensor/norm.ts';
import { sum } from '../../tensor/reduction.ts';

/** What keeps a cosine finite; without any of these a norm is never below 1e-6. */
export interface NormRule {
  /** The least norm. */
  floor?: number;
  /** A constant added to the norm (Nguyen et al., arXiv 2405.14131). */
  plus?: number;
  /** The norms get no gradient: as if the vectors had been rescaled before the pass. */
  constant?: boolean;
}

const tiny = 1e-6;

/** 1 / norm of the rows of x [n, width], [n, 1]. A row below the floor has gradient 0. */
function inverseNorms(x: Tensor, rule: NormRule): Tensor {
  const { floor = tiny, plus = 0, constant = false } = rule;
  if (constant) return noGrad(() => inverseNorms(x, { floor, plus }));
  const norms = sqrt(maximum(sum(square(x), 1, { keepDims: true }), floor * floor));
  return reciprocal(plus === 0 ? norms : add(norms, plus));
}

/** The rows of x [n, width] divided by their norms, in one op. */
function directions(x: Tensor): Tensor {
  const width = x.shape[1]!;
  using even = full([width], width ** -0.5, { dtype: x.dtype, device: x.device });
  return rmsNorm(x, even, (tiny * tiny) / width);
}

/**
 * `factor` times the cosine of every token [T, width] with every row [N, width], [T, N]; the norms of either as its rule says. What there is
 * less of is divided: tokens or products.
 */
export function cosineScores(
  tokens: Tensor,
  rows: Tensor,
  ofTokens: NormRule,
  ofRows: NormRule,
  factor: Tensor | number = 1,
): Tensor {
  const inverse = inverseNorms(rows, ofRows);
  const scaled = multiply(rows, factor === 1 ? inverse : multiply(inverse, factor));
  if (Object.keys(ofTokens).length === 0) return linear(directions(tokens), scaled);
  const [count = 0, width = 0] = rows.shape;
  const norms = inverseNorms(tokens, ofTokens);
  return width < count ? linear(multiply(tokens, norms), scaled) : multiply(linear(tokens, scaled), norms);
}
