import { attach, leavesReadBy, runBackwardWithin, wantsGrad } from './autograd.ts';
import { enableGrad, isGradEnabled, scope } from './lifetime.ts';
import { type Tensor, view } from './tensor.ts';

/**
 * Runs `fn` without keeping its intermediate results and runs it again during backward: memory for time (Chen et al., "Training deep nets with
 * sublinear memory cost", arXiv 1604.06174). `fn` must compute the same values both times; random numbers from Philox counters do.
 * @param found tensors that the first run made and the second needs: asked for between the two, kept by the tape until the second
 */
export function checkpoint<T extends Tensor | Tensor[]>(
  fn: (...inputs: Tensor[]) => T,
  inputs: readonly Tensor[],
  found: () => readonly Tensor[] = () => [],
): T {
  if (!isGradEnabled()) return fn(...inputs);
  const { result, leaves } = leavesReadBy(() => scope(() => fn(...inputs)));
  for (const t of inputs) leaves.delete(t); // counted as inputs
  if (leaves.size === 0 && !inputs.some(wantsGrad)) return result; // all of it is frozen
  const outputs = (Array.isArray(result) ? result : [result]).map((t) =>
    inputs.includes(t) ? view(t, t.shape) : t,
  );
  const part = {
    name: 'checkpoint',
    inputs,
    outputs,
    saved: [...inputs, ...found()],
    backward: (gradients: readonly (Tensor | undefined)[]) => {
      const copies = inputs.map((t) => {
        const copy = view(t, t.shape);
        copy.requiresGrad = wantsGrad(t);
        return copy;
      });
      const again = enableGrad(() => scope(() => fn(...copies)));
      const list = Array.isArray(again) ? again : [again];
      const wanted = list
        .map((t, i) => [t, gradients[i]] as const)
        .filter(([t, g]) => g !== undefined && wantsGrad(t));
      runBackwardWithin(
        wanted.map(([t]) => t),
        wanted.map(([, g]) => g),
      );
      return copies.map(({ grad }) => {
        if (!grad) return undefined;
        // A leaf's gradient outlives scopes; this one belongs to the step that called us.
        const local = view(grad, grad.shape);
        grad.dispose();
        return local;
      });
    },
  };
  attach(part, [...leaves]);
  return (Array.isArray(result) ? outputs : outputs[0]) as T;
}
