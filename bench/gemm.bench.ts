import { linear, matmul } from '../ts/tensor/gemm.ts';
import { bytesPerElement, type Dtype, full, noGrad, scope } from '../ts/tensor/index.ts';
import type { BenchCase } from './case.ts';

interface Shape {
  name: string;
  m: number;
  n: number;
  k: number;
  /** As the operands are stored: 'nt' is linear, 'nn' its input gradient, 'tn' its weight gradient. */
  form: 'nt' | 'nn' | 'tn';
}

const shapes: Shape[] = [
  { name: 'square-1024', m: 1024, n: 1024, k: 1024, form: 'nt' },
  { name: 'square-2048', m: 2048, n: 2048, k: 2048, form: 'nt' },
  { name: 'A-up', m: 1024, n: 2048, k: 512, form: 'nt' },
  { name: 'A-down', m: 1024, n: 512, k: 1024, form: 'nt' },
  { name: 'B-up', m: 256, n: 1024, k: 1024, form: 'nt' },
  { name: 'C512-up', m: 496, n: 128, k: 512, form: 'nt' },
  { name: 'input-gradient', m: 1024, n: 512, k: 2048, form: 'nn' },
  { name: 'weight-gradient', m: 2048, n: 512, k: 1024, form: 'tn' },
  { name: 'one-row', m: 1, n: 4096, k: 4096, form: 'nt' },
  { name: 'eight-rows', m: 8, n: 4096, k: 4096, form: 'nt' },
];

function gemmCase({ name, m, n, k, form }: Shape, dtype: Dtype): BenchCase {
  return {
    name: `gemm/${name}-${m}x${n}x${k}-${form}/${dtype}/forward`,
    flops: 2 * m * n * k,
    bytes: (m * k + n * k + m * n) * bytesPerElement(dtype),
    setup() {
      // Values do not change the speed of a product as long as none is subnormal.
      const a = full(form === 'tn' ? [k, m] : [m, k], 0.5, { dtype });
      const b = full(form === 'nt' ? [n, k] : [k, n], 0.25, { dtype });
      const product = () =>
        form === 'nt' ? linear(a, b) : matmul(a, b, { transposeA: form === 'tn', transposeB: false });
      return {
        run: () => noGrad(() => scope(() => void product())),
        dispose() {
          a.dispose();
          b.dispose();
        },
      };
    },
    peer: { script: 'gemm.py', request: { m, n, k, form, dtype } },
  };
}

export const cases: BenchCase[] = (['f32', 'bf16'] as const).flatMap((dtype) =>
  shapes.map((shape) => gemmCase(shape, dtype)),
);
