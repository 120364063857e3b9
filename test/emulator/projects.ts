import path from 'node:path';
import type { TestProjectConfiguration } from 'vitest/config';
import { emulatedBinary } from './build.ts';

/**
 * The test files that also run on the emulated device. Those of an op family enter when all that they call has kernels in cuda/: until then an operation
 * answers ERR_LIBMOE_UNSUPPORTED there.
 */
const files = ['test/tensor/tensor.test.ts', 'test/tensor/autograd.test.ts'];

/** One project per generation of tensor cores. */
export const emulatedProjects: TestProjectConfiguration[] = ['80', '90'].map((architecture) => ({
  extends: true,
  test: {
    name: architecture === '80' ? 'emulated sm_80' : 'emulated sm_90a',
    include: files,
    globalSetup: [path.join(import.meta.dirname, 'build.ts')],
    env: { LIBMOE_BINARY: emulatedBinary, LIBMOE_TEST_DEVICE: 'cuda:0', LIBMOE_EMULATED_ARCH: architecture },
  },
}));
