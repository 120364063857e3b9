import { zeros } from '../tensor/index.ts';
import { type Initialiser, normal } from './initialisers.ts';

/**
 * Orthonormal rows times `gain`, or orthonormal columns where there are more rows than columns: Gaussian numbers, orthonormalised in f64 (Saxe
 * et al., "Exact solutions to the nonlinear dynamics of learning in deep linear neural networks", arXiv 1312.6120).
 */
export function orthogonal(gain = 1): Initialiser {
  return (target, source) => {
    const rows = target.shape[0] ?? 1;
    const width = target.size / rows;
    using drawn = zeros(target.shape, { device: 'cpu' });
    normal(1)(drawn, source);
    const values = Float64Array.from(drawn.readSync() as Float32Array);
    // A vector is a row, or a column when there are fewer of those.
    const [count, length, next, step] = rows <= width ? [rows, width, width, 1] : [width, rows, 1, width];
    const at = (vector: number, i: number): number => vector * next + i * step;
    for (let v = 0; v < count; v += 1) {
      // Twice, so that rounding leaves no part along the earlier ones.
      for (let pass = 0; pass < 2; pass += 1)
        for (let u = 0; u < v; u += 1) {
          let along = 0;
          for (let i = 0; i < length; i += 1) along += values[at(u, i)]! * values[at(v, i)]!;
          for (let i = 0; i < length; i += 1) values[at(v, i)]! -= along * values[at(u, i)]!;
        }
      let squares = 0;
      for (let i = 0; i < length; i += 1) squares += values[at(v, i)]! ** 2;
      for (let i = 0; i < length; i += 1) values[at(v, i)]! /= Math.sqrt(squares);
    }
    target.write(Array.from(values, (x) => x * gain));
  };
}
