import { fail, native } from '../native/index.ts';
import { record } from './autograd.ts';
import { filled } from './broadcast.ts';
import { type ExpertActivation, expertActivations } from './grouped_ffn.ts';
import { emptyLike, type Tensor } from './tensor.ts';

/**
 * activation(gate) ∘ up, of rows that hold gate and up side by side (Shazeer, arXiv 2002.05202): what lies between the matrices of a gated
 * feed-forward layer. z [..., 2 · width] gives [..., width]; bf16 is computed in f32 and rounded once.
 * @throws ERR_LIBMOE_SHAPE for rows that have no two halves, ERR_LIBMOE_ARGUMENT for an unknown activation
 */
export function gated(z: Tensor, activation: ExpertActivation): Tensor {
  const width = (z.shape.at(-1) ?? 1) / 2;
  const f = expertActivations.indexOf(activation);
  if (!Number.isInteger(width))
    fail('ERR_LIBMOE_SHAPE', `gated expects rows of two halves, got [${z.shape.join(', ')}]`);
  if (f < 0)
    fail(
      'ERR_LIBMOE_ARGUMENT',
      `activation expects one of ${expertActivations.join(', ')}, got ${activation}`,
    );
  const y = filled([...z.shape.slice(0, -1), width], z, (out) => native().gated(f, z.handle, out));
  record({
    name: 'gated',
    inputs: [z],
    outputs: [y],
    saved: [z],
    again: () => native().gated(f, z.handle, y.handle),
    backward: ([dy]) => {
      const dz = emptyLike(z);
      native().gatedBackward(f, z.handle, dy!.handle, dz.handle);
      return [dz];
    },
  });
  return y;
}
