import { linear, matmul } from '../ts/tensor/gemm.ts';
import { bytesPerElement, type Dtype, noGrad, scope } from '../ts/tensor/index.ts';
import type { BenchCase } from './case.ts';
import { input, sampled, toleranceOf } from './inputs.ts';

interface Shape {
  name: string;
  m: number;
  n: number;
  k: number;
  /** As the operands are stored: 'nt' is linear, 'nn' its input gradient, 'tn' its weight gradient. */
  form: 'nt' | 'nn' | 'tn';
  /** Too large for a processor. */
  gpuOnly?: true;
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
  { name: 'square-8192', m: 8192, n: 8192, k: 8192, form: 'nt', gpuOnly: true },
  { name: 'one-row', m: 1, n: 4096, k: 4096, form: 'nt' },
  { name: 'eight-rows', m: 8, n: 4096, k: 4096, form: 'nt' },
];

function gemmCase({ name, m, n, k, form, gpuOnly }: Shape, dtype: Dtype): BenchCase {
  const left = { shape: form === 'tn' ? [k, m] : [m, k], seed: 1 };
  const right = { shape: form === 'nt' ? [n, k] : [k, n], seed: 2 };
  return {
    name: `gemm/${name}-${m}x${n}x${k}-${form}/${dtype}/forward`,
    flops: 2 * m * n * k,
    bytes: (m * k + n * k + m * n) * bytesPerElement(dtype),
    tolerance: toleranceOf(dtype),
    setup() {
      const a = input(left, dtype);
      const b = input(right, dtype);
      const product = () =>
        form === 'nt' ? linear(a, b) : matmul(a, b, { transposeA: form === 'tn', transposeB: false });
      return {
        run: () => noGrad(() => scope(() => void product())),
        results: () => noGrad(() => scope(() => ({ out: sampled(product()) }))),
        dispose() {
          a.dispose();
          b.dispose();
        },
      };
    },
    peer: { script: 'gemm.py', request: { left, right, form, dtype } },
    ...(gpuOnly && { gpuOnly }),
  };
}

export const cases: BenchCase[] = (['f32', 'bf16'] as const).flatMap((dtype) =>
  shapes.filter((shape) => dtype === 'bf16' || !shape.gpuOnly).map((shape) => gemmCase(shape, dtype)),
);
