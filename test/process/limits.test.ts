import { spawnSync } from 'node:child_process';
import path from 'node:path';
import { pathToFileURL } from 'node:url';
import { describe, expect, it } from 'vitest';

const at = (file: string) =>
  JSON.stringify(pathToFileURL(path.resolve(import.meta.dirname, '../../dist', file)).href);

/** Runs a program against the built package. `limit(megabytes)` leaves it that much more address space than it has. */
function run(program: string, environment: Record<string, string> = {}): string {
  const text = `
    import { execFileSync } from 'node:child_process';
    import { empty, memory, setThreads, tensor, threads } from ${at('tensor/index.js')};
    import { softmax } from ${at('tensor/softmax.js')};
    // The shell measures, without pipes: what Node itself maps to start a process must not count, nor fail.
    const limit = (megabytes) => {
      const script = 'now=$(grep ^VmSize: /proc/$1/status | tr -dc 0-9) && prlimit --pid $1 --as=$(( (now + $2 * 1024) * 1024 ))';
      execFileSync('sh', ['-c', script, 'sh', String(process.pid), String(megabytes)], { stdio: 'ignore' });
    };
    const codeOf = (work) => { try { work().dispose(); return 'fine'; } catch (error) { return error.code ?? String(error); } };
    const small = tensor(Array.from({ length: 4000 }, (_, i) => i % 7), [4, 1000], { dtype: 'bf16' });
    const many = tensor(new Float32Array(4096 * 64), [4096, 64]);
    const rows = () => { const y = softmax(small); const sum = y.toArray().reduce((a, b) => a + b); y.dispose(); return sum.toFixed(2); };
    ${program}`;
  const { stdout, stderr, status, signal } = spawnSync(
    process.execPath,
    ['--input-type=module', '-e', text],
    {
      encoding: 'utf8',
      timeout: 60_000,
      env: { ...process.env, LIBMOE_THREADS: '2', ...environment },
    },
  );
  return `${stdout}${stderr}${signal ?? (status === 0 ? '' : `exit ${status}`)}`.trim();
}

describe('an engine at the limits of its process', () => {
  it('refuses a LIBMOE_THREADS that is no number of threads', () => {
    for (const text of ['abc', '0', '2x', '1025', '-1'])
      expect(run('rows();', { LIBMOE_THREADS: text })).toContain(
        `ERR_LIBMOE_ENVIRONMENT: LIBMOE_THREADS expects a number from 1 to 1024, got "${text}"`,
      );
    expect(run('console.log(threads());', { LIBMOE_THREADS: '3' })).toBe('3');
  });

  it('says so when the system gives no more threads, and goes on with fewer', () => {
    const program = `
      const before = rows();
      limit(400); // the stacks of some fifty threads
      setThreads(1024);
      console.log(codeOf(() => softmax(many)));
      setThreads(2);
      console.log(codeOf(() => softmax(many)), rows() === before);`;
    expect(run(program)).toBe('ERR_LIBMOE_ENVIRONMENT\nfine true');
  });

  it('gives unused blocks back before it says that memory is short', () => {
    const program = `
      limit(1900);
      empty([2 ** 28]).dispose(); // 1 GiB that stays in the pool
      console.log(memory().pooledBytes >= 2 ** 30, codeOf(() => empty([3 * 2 ** 27])));
      console.log(codeOf(() => empty([2 ** 29])), rows());`;
    expect(run(program)).toBe('true fine\nERR_LIBMOE_OUT_OF_MEMORY 4.00');
  });

  it('survives memory that runs out inside an operation, on every thread', () => {
    const program = `
      softmax(many).dispose(); // starts the threads
      const before = rows();
      const x = empty([2, 2 ** 24], { dtype: 'bf16' });
      empty(x.shape, { dtype: 'bf16' }).dispose(); // what the result will lie in
      limit(48);
      console.log(codeOf(() => softmax(x)), codeOf(() => softmax(x))); // wants 96 MiB for each row
      console.log(rows() === before);`;
    expect(run(program)).toBe('ERR_LIBMOE_OUT_OF_MEMORY ERR_LIBMOE_OUT_OF_MEMORY\ntrue');
  });
});
