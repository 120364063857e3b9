import { defineConfig } from 'vitest/config';
import { ClosingLine } from './test/closing-line.ts';

// biome-ignore lint/style/noDefaultExport: vitest reads the default export
export default defineConfig({
  test: {
    include: ['test/**/*.test.ts'],
    pool: 'forks', // a native crash then fails one file and the rest still reports
    execArgv: ['--expose-gc'],
    maxWorkers: 2,
    testTimeout: 60_000,
    reporters: ['default', new ClosingLine()],
    setupFiles: ['test/no-live-tensors.ts'],
  },
});
