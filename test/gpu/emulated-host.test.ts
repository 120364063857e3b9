// What the host does around a device: which cards it uses, what it holds when something fails, several threads, forgotten tensors. On emulated devices, which can be of any
// kind and fail on demand (test/emulator/runtime.cpp), each case in a process of its own.
import { spawnSync } from 'node:child_process';
import path from 'node:path';
import { pathToFileURL } from 'node:url';
import { describe, expect, it } from 'vitest';

const emulated = process.env.LIBMOE_EMULATED_ARCH !== undefined;
if (!emulated) console.log('skipped: the host around emulated devices, this run is not on one');

const dist = pathToFileURL(`${path.resolve(import.meta.dirname, '../../dist')}/`).href;
const worker = pathToFileURL(path.join(import.meta.dirname, 'device-worker.mjs')).href;

/** Prints what `program` says as JSON, and the emulator's report of what was held at the end. */
function run(program: string, environment: Record<string, string> = {}) {
  const text = `
    const at = (file) => new URL(file, ${JSON.stringify(dist)});
    const { devices, empty, memory, resetPeakMemory, scope, synchronise, tensor, trimMemory } = await import(at('tensor/index.js'));
    const { native } = await import(at('native/index.js'));
    const on = (device) => tensor([1, 2, 3], [3], { device }).toArray().join();
    const attempt = (work) => { try { return work(); } catch (error) { return String(error); } };
    const say = (what) => console.log(JSON.stringify(what));
    ${program}`;
  const { stdout, stderr, status } = spawnSync(process.execPath, ['--input-type=module', '-e', text], {
    encoding: 'utf8',
    timeout: 100_000,
    env: { ...process.env, LIBMOE_EMULATED_REPORT: '1', ...environment },
  });
  const report = /^emulator: contexts on (.+); (.+)$/m.exec(stderr);
  expect({ status, stderr: stderr.replace(/^emulator: .*$/m, '').trim() }).toEqual({ status: 0, stderr: '' });
  return { said: JSON.parse(stdout) as unknown, contexts: report?.[1], held: report?.[2] };
}

describe.skipIf(!emulated)('cards of several kinds', () => {
  it('are used but those below 8.0, and no context is made on one that nobody uses', () => {
    const { said, contexts } = run(
      `const { inspect } = await import(at('cli/inspect.js'));
       const { leftOut, devices: found, reason } = inspect().cuda;
       const asked = [memory('cuda:0').pooledBytes, resetPeakMemory('cuda:0'), synchronise('cuda:0')].length;
       const used = on('cuda:1');
       trimMemory();
       say({ devices: devices(), kernels: found.map((d) => d.kernels), leftOut, reason, asked, used, none: attempt(() => on('cuda:2')) });`,
      { LIBMOE_EMULATED_ARCH: '70,80,90' },
    );
    expect(said).toEqual({
      devices: ['cpu', 'cuda:0', 'cuda:1'],
      kernels: ['sm_80', 'sm_90a'],
      leftOut: [
        {
          name: 'emulated sm_70 (CUDA device 0)',
          reason: 'it has compute capability 7.0; 8.0 (A100) or newer is needed',
        },
      ],
      reason: null,
      asked: 3,
      used: '1,2,3',
      none: expect.stringMatching(
        /there is no cuda:2; this process sees 2 .*; left out is emulated sm_70 \(CUDA device 0\): it has compute capability 7\.0/,
      ),
    });
    expect(contexts).toBe('2');
  });

  it('of which none can be used say why of each', () => {
    const { said, contexts } = run(`say([devices(), attempt(() => on('cuda:0')), memory('cuda:0').bytes]);`, {
      LIBMOE_EMULATED_ARCH: '61,75',
    });
    expect(said).toEqual([
      ['cpu'],
      expect.stringMatching(
        /emulated sm_61 \(CUDA device 0\): .* 6\.1; .*emulated sm_75 \(CUDA device 1\): .* 7\.5; 8\.0/,
      ),
      0,
    ]);
    expect(contexts).toBe('none');
  });
});

describe.skipIf(!emulated)('a call that fails', () => {
  const clean = () => run(`say(on('cuda:0'));`).held;

  it('while a device is started leaves nothing behind, and the next use starts it', () => {
    for (const call of ['cudaHostAlloc:2:2', 'cudaEventCreateWithFlags:7:2']) {
      const { said, held } = run(`say([attempt(() => on('cuda:0')), on('cuda:0')]);`, {
        LIBMOE_EMULATED_FAIL: call,
      });
      expect(said, call).toEqual([expect.stringContaining('ERR_LIBMOE_OUT_OF_MEMORY'), '1,2,3']);
      expect(held, call).toBe(clean());
    }
  });

  it('while an event is recorded leaves no event behind', () => {
    // The first is recorded by the upload of on().
    const { said, held } = run(`say([on('cuda:0'), attempt(() => native().mark(1, 0)), on('cuda:0')]);`, {
      LIBMOE_EMULATED_FAIL: 'cudaEventRecord:2:1',
    });
    expect(said).toEqual([
      '1,2,3',
      expect.stringContaining('ERR_LIBMOE_CUDA: mark(): recording an event failed'),
      '1,2,3',
    ]);
    expect(said).not.toEqual(expect.arrayContaining([expect.stringContaining('CUDA_LAUNCH_BLOCKING')]));
    expect(held).toBe(clean());
  });

  it('with an error of the device tells how to find the operation', () => {
    const { said } = run(`say(attempt(() => on('cuda:0')));`, {
      LIBMOE_EMULATED_FAIL: 'cudaStreamSynchronize:1:700',
    });
    expect(said).toMatch(
      /waiting for the device failed: .*cudaErrorIllegalAddress.*CUDA_LAUNCH_BLOCKING=1 names the operation/,
    );
  });
});

describe.skipIf(!emulated)('memory of a device', () => {
  it('says what the pool keeps', () => {
    const { said } = run(
      `empty([2 ** 20], { device: 'cuda:0' }).dispose();
       const kept = memory('cuda:0').pooledBytes;
       trimMemory();
       say([kept >= 2 ** 22, memory('cuda:0').pooledBytes]);`,
    );
    expect(said).toEqual([true, 0]);
  });

  it('that nobody refers to any more is found by the collector before it runs out', () => {
    // 3 GB in all, on a device that has half a GB; the program does nothing for it but let the event loop turn.
    const { said } = run(
      `for (let i = 0; i < 96; i += 1) {
         empty([2 ** 23], { device: 'cuda:0' });
         await new Promise(setImmediate);
       }
       say('done');`,
      { LIBMOE_EMULATED_MEMORY: String(2 ** 29) },
    );
    expect(said).toBe('done');
  });

  it('that comes and goes costs no collections', () => {
    const { said } = run(
      `const { PerformanceObserver, constants } = await import('node:perf_hooks');
       let collections = 0;
       new PerformanceObserver((list) => {
         for (const { detail } of list.getEntries()) collections += detail.kind === constants.NODE_PERFORMANCE_GC_MAJOR;
       }).observe({ entryTypes: ['gc'] });
       const step = () => scope(() => { for (let i = 0; i < 8; i += 1) empty([2 ** 22], { device: 'cuda:0' }); });
       for (let i = 0; i < 3; i += 1) step();
       await new Promise((done) => setTimeout(done, 50));
       const before = collections;
       for (let i = 0; i < 12; i += 1) { step(); await new Promise(setImmediate); }
       await new Promise((done) => setTimeout(done, 50));
       say(collections - before);`,
    );
    expect(said).toBeLessThanOrEqual(1);
  });
});

describe.skipIf(!emulated)('several threads on one device', () => {
  it('get their own results, and faults keep their words', () => {
    const { said } = run(
      `const { Worker } = await import('node:worker_threads');
       const { gatherRows } = await import(at('tensor/shape.js'));
       const start = (salt) => new Promise((resolve, reject) => {
         const w = new Worker(new URL(${JSON.stringify(worker)}), { execArgv: [], workerData: { dist: ${JSON.stringify(dist)}, rounds: 3000, salt } });
         w.once('message', resolve);
         w.once('error', reject);
       });
       on('cuda:0');
       const right = await Promise.all([10, 20, 30, 40].map(start));
       const device = 'cuda:0';
       const fault = attempt(() => scope(() => gatherRows(tensor([1, 2], [2, 1], { device }), tensor(Int32Array.of(0, 5), [2], { device })).toArray()));
       say([right, fault, on('cuda:0')]);`,
    );
    expect(said).toEqual([
      [true, true, true, true],
      expect.stringMatching(/row index must be from 0 to 1; the value at position 1 is not/),
      '1,2,3',
    ]);
  });
});
