import { defineConfig } from 'vitest/config';
import { ClosingLine } from './test/closing-line.ts';

// biome-ignore lint/style/noDefaultExport: vitest reads the default export
export default defineConfig({
  test: {
    include: ['test/**/*.test.ts'],
    pool: 'forks', // a native crash then fails one file and the rest still reports
    // A collection at the wrong moment would free what a leak check is to find: a large young generation makes them rare.
    execArgv: ['--expose-gc', '--min-semi-space-size=128', '--max-semi-space-size=128'],
    maxWorkers: 2,
    testTimeout: 60_000,
    reporters: ['default', new ClosingLine()],
    setupFiles: ['test/setup.ts'],
  },
});
