import { describe, expect, it } from 'vitest';
import { codeOf } from '../../ts/native/index.ts';
import { activate } from '../../ts/nn/feed-forward.ts';
import { add, maximum, minimum, multiply } from '../../ts/tensor/elementwise.ts';
import { gated } from '../../ts/tensor/gated.ts';
import { type ExpertActivation, expertActivations } from '../../ts/tensor/grouped_ffn.ts';
import { noGrad, scope, type Tensor, tensor } from '../../ts/tensor/index.ts';
import { slice } from '../../ts/tensor/shape.ts';
import { gradientCheck } from './gradient-check.ts';
import { distance, sample, withThreads } from './values.ts';

const plain = {
  identity: 'identity',
  relu: 'relu',
  silu: 'silu',
  gelu_erf: 'gelu',
  gelu_tanh: 'geluTanh',
  quick_gelu: 'quickGelu',
} as const;

/** The same of operations that have tests of their own. */
function reference(z: Tensor, name: ExpertActivation): Tensor {
  const width = z.shape.at(-1)! / 2;
  const gate = slice(z, -1, 0, width);
  const up = slice(z, -1, width);
  if (name !== 'clamped_swiglu') return multiply(activate(gate, plain[name]), up);
  return multiply(activate(minimum(gate, 7), 'quickGelu'), add(minimum(maximum(up, -7), 7), 1));
}

const widths = [1, 5, 16, 40, 203];

describe.each(expertActivations)('gated %s', (name) => {
  it.each(widths)('is the product of its halves, width %i', (width) => {
    noGrad(() =>
      scope(() => {
        for (const [dtype, tolerance] of [
          ['f64', 1e-15],
          ['f32', 1e-6],
          ['bf16', 2 ** -6],
        ] as const) {
          const z = multiply(sample([3, 7, 2 * width], 1, dtype), 5);
          const y = gated(z, name);
          expect(y.shape).toEqual([3, 7, width]);
          expect(distance(y.toArray(), reference(z, name).toArray())).toBeLessThan(tolerance);
        }
      }),
    );
  });

  it('has the gradients of central differences', () => {
    scope(() => {
      gradientCheck((z) => gated(z, name), [sample([4, 26], 3, 'f64', true)], { tolerance: 1e-5 });
      gradientCheck((z) => gated(multiply(z, 9), name), [sample([2, 16], 5, 'f64', true)], {
        tolerance: 1e-4,
      });
    });
  });

  it('gives the gradient of its halves in f32 and bf16', () => {
    for (const dtype of ['f32', 'bf16'] as const)
      for (const width of widths)
        scope(() => {
          const of = (run: (z: Tensor) => Tensor) => {
            const z = sample([9, 2 * width], 7, dtype, true);
            run(z).backward(sample([9, width], 8, dtype));
            const found = z.grad!.toArray();
            z.grad!.dispose();
            return found;
          };
          const expected = of((z) => reference(z, name));
          expect(
            distance(
              of((z) => gated(z, name)),
              expected,
            ),
          ).toBeLessThan(dtype === 'f32' ? 1e-5 : 2 ** -6);
        });
  });
});

describe('gated', () => {
  it('does not depend on threads', () => {
    scope(() => {
      const z = sample([300, 200], 1, 'f32');
      const of = () => gated(z, 'silu').toArray();
      expect(withThreads(2, of)).toEqual(withThreads(1, of));
    });
  });

  it('takes no rows, and refuses rows without halves and unknown activations', () => {
    scope(() => {
      expect(gated(tensor(new Float32Array(0), [0, 6]), 'silu').shape).toEqual([0, 3]);
      const code = (run: () => unknown) => {
        try {
          run();
        } catch (error) {
          return codeOf(error);
        }
        return undefined;
      };
      expect(code(() => gated(sample([2, 3]), 'silu'))).toBe('ERR_LIBMOE_SHAPE');
      expect(code(() => gated(sample([2, 4]), 'swish' as 'silu'))).toBe('ERR_LIBMOE_ARGUMENT');
    });
  });
});
