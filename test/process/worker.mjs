// A worker thread with an engine of its own: one result, then, if told so, work without end.
import { parentPort, workerData } from 'node:worker_threads';
import { ops, scope } from '../../dist/index.js';

const a = ops.randn([64, 64], { seed: 1 });
parentPort.postMessage(scope(() => ops.sum(ops.matmul(a, a)).item()));
while (workerData.forever) scope(() => ops.matmul(a, a));
a.dispose();
