// A worker thread that enqueues many operations which may fault on the device, and says whether all their results were right.
import { parentPort, workerData } from 'node:worker_threads';

const { scope, tensor } = await import(new URL('tensor/index.js', workerData.dist));
const { embedding } = await import(new URL('tensor/embedding.js', workerData.dist));
const { rounds, salt } = workerData;
const right = scope(() => {
  const table = tensor(
    Float32Array.from({ length: 7 }, (_, i) => i + salt),
    [7, 1],
    { device: 'cuda:0' },
  );
  let good = true;
  for (let i = 0; i < rounds; i += 1) {
    scope(() => {
      const out = embedding(table, tensor(Int32Array.of(i % 7), [1], { device: 'cuda:0' }));
      if (i % 16 === 0) good &&= out.toArray()[0] === (i % 7) + salt;
    });
  }
  return good;
});
parentPort.postMessage(right);
