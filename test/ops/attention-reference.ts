import type { Tensor } from '../../ts/tensor/index.ts';

export interface ReferenceOptions {
  offsets: readonly number[];
  causal: boolean;
  scale: number;
  window?: number | undefined;
  /** One logit per query head. */
  sinks?: readonly number[] | undefined;
}

/** Attention by its definition, one score at a time in f64. Shapes as the op. */
export function referenceAttention(q: Tensor, k: Tensor, v: Tensor, options: ReferenceOptions): Float64Array {
  const [qs, ks, vs] = [q.toArray(), k.toArray(), v.toArray()];
  const [tokens, queryHeads, width] = q.shape as [number, number, number];
  const [, heads, valueWidth] = v.shape as [number, number, number];
  const { offsets, causal, scale, window = Number.POSITIVE_INFINITY, sinks } = options;
  const out = new Float64Array(tokens * queryHeads * valueWidth);
  for (let s = 0; s + 1 < offsets.length; s += 1) {
    const [begin, end] = [offsets[s]!, offsets[s + 1]!];
    for (let t = begin; t < end; t += 1) {
      for (let h = 0; h < queryHeads; h += 1) {
        const source = Math.floor(h / (queryHeads / heads));
        const seen: { row: number; score: number }[] = [];
        for (let j = begin; j < end; j += 1) {
          if ((causal && j > t) || j <= t - window) continue;
          const row = j * heads + source;
          let score = 0;
          for (let d = 0; d < width; d += 1)
            score += qs[(t * queryHeads + h) * width + d]! * ks[row * width + d]!;
          seen.push({ row, score: score * scale });
        }
        const scores = [...seen.map((x) => x.score), ...(sinks ? [sinks[h]!] : [])];
        const top = Math.max(...scores);
        const total = scores.reduce((sum, score) => sum + Math.exp(score - top), 0);
        for (const { row, score } of seen) {
          const weight = Math.exp(score - top) / total;
          for (let d = 0; d < valueWidth; d += 1)
            out[(t * queryHeads + h) * valueWidth + d]! += weight * vs[row * valueWidth + d]!;
        }
      }
    }
  }
  return out;
}
