// Three workers at once give the main thread's number; a busy one is terminated.
import { Worker } from 'node:worker_threads';
import { ops, scope } from '../../dist/index.js';

const start = (forever) => new Worker(new URL('./worker.mjs', import.meta.url), { workerData: { forever } });
const answer = (worker) =>
  new Promise((resolve, reject) => {
    worker.once('message', resolve);
    worker.once('error', reject);
  });
const a = ops.randn([64, 64], { seed: 1 });
const here = scope(() => ops.sum(ops.matmul(a, a)).item());
const sums = await Promise.all([1, 2, 3].map(() => answer(start(false))));
const busy = start(true);
await answer(busy);
await busy.terminate();
console.log(JSON.stringify({ here, sums }));
