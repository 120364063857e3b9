import { bytesPerElement, type Dtype, keep, noGrad, scope, type Tensor } from '../ts/tensor/index.ts';
import type { BenchCase, Work } from './case.ts';
import { type InputSpec, input, sampled, toleranceOf } from './inputs.ts';

/** One operation, timed forward or forward and backward, against the function of the same name in peers/ops.py. */
export interface OpSpec<Names extends string> {
  /** `<family>/<operation>-<size>`; dtype and pass are appended. */
  name: string;
  dtype: Dtype;
  /** Default forward; `train` runs backward to every input with `grad`. */
  pass?: 'forward' | 'train';
  inputs: Record<Names, InputSpec>;
  /** Handed to the peer. */
  options?: Record<string, unknown>;
  /** The function of peers/ops.py; absent: nothing that PyTorch does in one call. */
  peer?: string;
  flops?: number;
  bytes: number;
  /** The first output is the one that backward starts from. */
  compute(inputs: Record<Names, Tensor>): readonly Tensor[];
  /** Default: what the dtype's rounding explains. */
  tolerance?: number;
  /** False where the two sides cannot compute the same (random numbers). */
  comparable?: boolean;
}

const startSeed = 1000;

export function opCase<Names extends string>(spec: OpSpec<Names>): BenchCase {
  const { dtype, pass = 'forward', flops = 0, bytes, options = {}, comparable = true } = spec;
  const train = pass === 'train';
  const names = Object.keys(spec.inputs) as Names[];
  const setup = (): Work => {
    const tensors = Object.fromEntries(
      names.map((name) => [name, input(spec.inputs[name], dtype, train)]),
    ) as Record<Names, Tensor>;
    const leaves = names.flatMap((name) =>
      tensors[name].requiresGrad ? [[name, tensors[name]] as const] : [],
    );
    let start: Tensor | undefined;
    const call = (): readonly Tensor[] => {
      const out = spec.compute(tensors);
      const first = out[0];
      if (!train || !first) return out;
      if (first.rank > 0) start ??= keep(input({ shape: first.shape, seed: startSeed }, first.dtype));
      first.backward(start);
      return out;
    };
    const clear = () => {
      for (const [, leaf] of leaves) {
        leaf.grad?.dispose();
        leaf.grad = undefined;
      }
    };
    const pass = <T>(use: (out: readonly Tensor[]) => T): T => {
      try {
        return scope(() => use(train ? call() : noGrad(call)));
      } finally {
        clear();
      }
    };
    return {
      run: () => pass(() => {}),
      ...(comparable && {
        results: () =>
          pass((out) =>
            Object.fromEntries([
              ...out.map((t, i) => [`output ${i}`, sampled(t)] as const),
              ...leaves.map(([name, leaf]) => [`d ${name}`, sampled(leaf.grad!)] as const),
            ]),
          ),
      }),
      dispose() {
        for (const name of names) tensors[name].dispose();
        start?.dispose();
      },
    };
  };
  const request = { op: spec.peer, inputs: spec.inputs, options, dtype, pass, startSeed, comparable };
  return {
    name: `${spec.name}/${dtype}/${pass}`,
    flops,
    bytes,
    tolerance: spec.tolerance ?? toleranceOf(dtype),
    setup,
    ...(spec.peer && { peer: { script: 'ops.py', request } }),
  };
}

/** Bytes of `elements` numbers. */
export const bytesOf = (elements: number, dtype: Dtype): number => elements * bytesPerElement(dtype);
