import path from 'node:path';
import type { TestProjectConfiguration } from 'vitest/config';
import families from '../device-files.json' with { type: 'json' };
import { emulatedBinary } from './build.ts';

/**
 * The test files that also run on a CUDA device, by op family: test/device-files.json. A file enters when all that it calls has kernels in cuda/; until then
 * an operation answers ERR_LIBMOE_UNSUPPORTED there. The same list is what scripts/verify-on-gpu runs.
 */
const files: string[] = Object.values(families).flat();

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
