import { createRequire } from 'node:module';
import { fileURLToPath } from 'node:url';
import type { AttentionNative } from './attention.ts';
import type { CollectiveNative } from './collective.ts';
import type { ElementwiseNative } from './elementwise.ts';
import type { EmbeddingNative } from './embedding.ts';
import { LibmoeError } from './error.ts';
import type { GatingNative } from './gating.ts';
import type { GemmNative } from './gemm.ts';
import type { GroupedFfnNative } from './grouped_ffn.ts';
import type { ImageNative } from './image.ts';
import type { LossNative } from './loss.ts';
import type { NormNative } from './norm.ts';
import type { OptimizerNative } from './optimizer.ts';
import type { PermutationNative } from './permutation.ts';
import type { RandomNative } from './random.ts';
import type { ReductionNative } from './reduction.ts';
import type { RotaryNative } from './rotary.ts';
import type { ShapeNative } from './shape.ts';
import type { SoftmaxNative } from './softmax.ts';
import type { TensorsNative } from './tensors.ts';

export type { CollectiveLibrary } from './collective.ts';
export { codeOf, type ErrorCode, fail, LibmoeError } from './error.ts';
export type { Handle, NativeCuda, NativeMemory } from './tensors.ts';

/** Everything the native engine offers, one interface per op family. */
export interface Native
  extends TensorsNative,
    AttentionNative,
    CollectiveNative,
    ElementwiseNative,
    EmbeddingNative,
    GatingNative,
    GemmNative,
    GroupedFfnNative,
    ImageNative,
    LossNative,
    NormNative,
    OptimizerNative,
    PermutationNative,
    RandomNative,
    ReductionNative,
    RotaryNative,
    ShapeNative,
    SoftmaxNative {}

const require = createRequire(import.meta.url);
/** The package's folder, seen from ts/native as from dist/native. */
export const packageRoot: string = fileURLToPath(new URL('../..', import.meta.url));

interface Loader {
  (folder: string): Native;
  resolve(folder: string): string;
}

let loaded: Native | undefined;

// Another binary than the package's, for its own developers: a debug build, or the one whose CUDA device is emulated.
const chosenBinary = process.env.LIBMOE_BINARY;

/** The file that {@link native} loads. Throws ERR_LIBMOE_NO_BINARY. */
export function binaryPath(): string {
  return chosenBinary ?? locate((loader) => loader.resolve(packageRoot));
}

function locate<T>(use: (loader: Loader) => T): T {
  try {
    return use(require('node-gyp-build') as Loader);
  } catch (cause) {
    const why = cause instanceof Error ? cause.message.split('\n')[0] : String(cause);
    throw new LibmoeError(
      'ERR_LIBMOE_NO_BINARY',
      `no usable native binary for ${process.platform}-${process.arch} in ${packageRoot} (${why}). ` +
        'Run "npx libmoe build" to make one from source; it needs cmake >= 3.25, g++ >= 12 and "npm i cmake-js@8 node-addon-api@8".',
      { cause },
    );
  }
}

/** The native engine, loaded at first use so that commands which do not need it work without a binary. */
export function native(): Native {
  loaded ??= chosenBinary ? (require(chosenBinary) as Native) : locate((loader) => loader(packageRoot));
  return loaded;
}
