import { defineConfig, type TestProjectConfiguration } from 'vitest/config';
import { ClosingLine } from './test/closing-line.ts';
import { emulatedProjects } from './test/emulator/projects.ts';

// With LIBMOE_TEST_DEVICE the caller has chosen the device for the files that he names: a real GPU, or the emulated one by hand.
const device = process.env.LIBMOE_TEST_DEVICE;
const everything: TestProjectConfiguration = {
  extends: true,
  test: { name: device ?? 'cpu', include: ['test/**/*.test.ts'] },
};

// biome-ignore lint/style/noDefaultExport: vitest reads the default export
export default defineConfig({
  test: {
    pool: 'forks', // a native crash then fails one file and the rest still reports
    // A collection at the wrong moment would free what a leak check is to find: a large young generation makes them rare.
    execArgv: ['--expose-gc', '--min-semi-space-size=128', '--max-semi-space-size=128'],
    maxWorkers: 2,
    testTimeout: 60_000,
    hookTimeout: 60_000, // a folder of thousands of images is not removed in ten seconds everywhere
    reporters: ['default', new ClosingLine()],
    setupFiles: ['test/setup.ts'],
    projects: device ? [everything] : [everything, ...emulatedProjects],
  },
});
