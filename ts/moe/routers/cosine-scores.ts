import { multiply } from '../../tensor/elementwise.ts';
import { linear } from '../../tensor/gemm.ts';
import { noGrad, type Tensor } from '../../tensor/index.ts';
import { inverseNorms } from '../../tensor/norm.ts';

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
function inverse(x: Tensor, { floor = tiny, plus = 0, constant = false }: NormRule): Tensor {
  return constant ? noGrad(() => inverseNorms(x, { floor, plus })) : inverseNorms(x, { floor, plus });
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
  const ofEach = inverse(rows, ofRows);
  const scaled = multiply(rows, factor === 1 ? ofEach : multiply(ofEach, factor));
  const [count = 0, width = 0] = rows.shape;
  const norms = inverse(tokens, ofTokens);
  return width < count ? linear(multiply(tokens, norms), scaled) : multiply(linear(tokens, scaled), norms);
}
