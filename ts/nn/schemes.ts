import type { Tensor } from '../tensor/index.ts';
import { type Initialiser, kaimingUniform, normal, uniformWithin } from './initialisers.ts';
import { orthogonal } from './orthogonal.ts';

/**
 * Ways to draw a matrix [rows, width], all with the same standard deviation of its elements:
 * - `normal`: N(0, std²);
 * - `orthogonal`: orthogonal rows of one norm, or columns where there are more rows than columns (Saxe et al., arXiv 1312.6120);
 * - `kaiming-uniform`: U(±√3 · std), by default U(±1/√width) as PyTorch's Linear (He et al., arXiv 1502.01852, with a = √5);
 * - `equal-norm`: normal rows, each rescaled to the norm std · √width (Csordás et al., arXiv 2310.10837).
 */
export const initSchemes = ['normal', 'orthogonal', 'kaiming-uniform', 'equal-norm'] as const;
/** One of {@link initSchemes}. */
export type InitScheme = (typeof initSchemes)[number];

/** The initialiser of a scheme. @param std default 1/√(3 · width), that of PyTorch's Linear */
export function byScheme(scheme: InitScheme, std?: number): Initialiser {
  return (target, source) => {
    const rows = target.shape[0] ?? 1;
    const width = target.size / Math.max(1, rows);
    const deviation = std ?? (3 * width) ** -0.5;
    const draw = {
      normal: () => normal(deviation),
      orthogonal: () => orthogonal(deviation * Math.sqrt(Math.max(rows, width))),
      'kaiming-uniform': () => (std === undefined ? kaimingUniform() : uniformWithin(Math.sqrt(3) * std)),
      'equal-norm': () => withEqualRows(normal(1), deviation * Math.sqrt(width)),
    }[scheme];
    draw()(target, source);
  };
}

/** {@link equaliseRows} of what `initialiser` draws. */
export function withEqualRows(initialiser: Initialiser, norm?: number): Initialiser {
  return (weight, source) => {
    initialiser(weight, source);
    equaliseRows(weight, norm);
  };
}

/** Every row rescaled to one norm, default such that the standard deviation of the whole stays (Csordás et al., arXiv 2310.10837). */
export function equaliseRows(weight: Tensor, norm?: number): void {
  const [rows = 0, width = 0] = weight.shape;
  const values = weight.toArray();
  const norms = Array.from({ length: rows }, (_, r) =>
    Math.hypot(...values.slice(r * width, (r + 1) * width)),
  );
  const target = norm ?? Math.sqrt(norms.reduce((a, n) => a + n * n, 0) / rows);
  weight.write(values.map((x, i) => (x * target) / (norms[Math.floor(i / width)] || 1)));
}
