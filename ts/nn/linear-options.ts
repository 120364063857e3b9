import { fail } from '../native/index.ts';
import { type DeviceName, type Dtype, empty, parameter, type Tensor, zeros } from '../tensor/index.ts';
import type { InitialValues } from './initialisers.ts';

/** What every layer's constructor accepts. */
export interface LayerOptions {
  /** Dtype of the parameters; default f32. */
  dtype?: Dtype;
  device?: DeviceName;
  /** Default `{ seed: 0, name: '' }`: two layers of one shape start equal unless they get different names. */
  values?: InitialValues;
}

export const firstValues: InitialValues = { seed: 0, name: '' };

let shapesAlone = false;

/** Runs `make`, whose modules get parameters without values: the system gives no memory to what nothing is written to. For counting what a model has. */
export function withoutValues<T>(make: () => T): T {
  const before = shapesAlone;
  shapesAlone = true;
  try {
    return make();
  } finally {
    shapesAlone = before;
  }
}

/** A parameter of zeros. */
export function newParameter(shape: readonly number[], options: LayerOptions): Tensor {
  const made = shapesAlone ? empty : zeros;
  return parameter(
    made(shape, { dtype: options.dtype ?? 'f32', ...(options.device && { device: options.device }) }),
  );
}

/** The options of a layer that is a part of another: its initial values have the part's name too. */
export function partOptions<Options extends LayerOptions>(options: Options, name: string): Options {
  const { values = firstValues } = options;
  if (values === 'later') return options;
  return { ...options, values: { ...values, name: values.name === '' ? name : `${values.name}.${name}` } };
}

export function requirePositive(layer: string, sizes: Record<string, number>): void {
  for (const [name, value] of Object.entries(sizes)) {
    if (!Number.isSafeInteger(value) || value < 1) {
      fail('ERR_LIBMOE_ARGUMENT', `${layer}: ${name} must be a positive integer, got ${value}`);
    }
  }
}
