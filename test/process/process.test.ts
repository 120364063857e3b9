import { spawnSync } from 'node:child_process';
import path from 'node:path';
import { pathToFileURL } from 'node:url';
import { describe, expect, it } from 'vitest';

const entry = path.resolve(import.meta.dirname, '../../dist/index.js');

/** Runs a program against the built package in a process of its own. */
function run(program: string) {
  const text = `import { ops, scope } from ${JSON.stringify(pathToFileURL(entry).href)};\n${program}`;
  return spawnSync(process.execPath, ['--input-type=module', '-e', text], {
    encoding: 'utf8',
    timeout: 60_000,
  });
}
const busy =
  'const a = ops.randn([300, 300], { seed: 1 });\nconst work = () => scope(() => ops.matmul(a, a).readSync()[0]);\nwork();\n';

describe('the ways a process ends', () => {
  const endings: [string, string, number][] = [
    ['by itself with tensors alive', '', 0],
    ['process.exit with tensors alive', 'process.exit(3);', 3],
    ['an uncaught exception', 'throw new Error("x");', 1],
    ['an unhandled rejection', 'await Promise.reject(new Error("x"));', 1],
    [
      'process.exit from a timer in the middle of work',
      'setTimeout(() => process.exit(4), 20); for (;;) { work(); await new Promise(setImmediate); }',
      4,
    ],
  ];
  it.each(endings)('%s, five times', (_, program, code) => {
    for (let i = 0; i < 5; i += 1) {
      const r = run(busy + program);
      expect([r.status, r.signal]).toEqual([code, null]);
    }
  });
});

describe('worker threads', () => {
  it('have engines of their own, compute the same, and may be terminated', () => {
    const r = spawnSync(process.execPath, [path.join(import.meta.dirname, 'workers.mjs')], {
      encoding: 'utf8',
      timeout: 60_000,
    });
    expect(r.stderr).toBe('');
    const { here, sums } = JSON.parse(r.stdout) as { here: number; sums: number[] };
    expect(sums).toEqual([here, here, here]);
    expect(r.status).toBe(0);
  });
});
