#!/usr/bin/env node
// Requests per second of log-likelihoods, PIQA and 1000 of HellaSwag with stories260K, in turn with lm-eval's HFLM on the same weights and the same tokens, after a
// comparison of the sums. After `npm run build:ts`, with the bundles of docs/real-evaluations.md:
//   node bench/evaluation-throughput.mjs --model stories260K.bin --tokenizer tok512.bin --data bundles [--python PYTHON] [--rounds 3] [--batches 16,64] [--limit N] [--out FILE]
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { cpus, tmpdir } from 'node:os';
import path from 'node:path';
import { parseArgs } from 'node:util';
import { loadTokenizer } from '../dist/data/index.js';
import { resolveTask } from '../dist/evaluation/index.js';
import { languageAdapter } from '../dist/evaluation/language-adapter.js';
import { prepareTask } from '../dist/evaluation/prepare.js';
import { RequestImages } from '../dist/evaluation/request-images.js';
import { loadModel, saveModel } from '../dist/models/language/index.js';
import { native } from '../dist/native/index.js';
import { pythonPeer } from './python-peer.mjs';

const { values } = parseArgs({
  options: {
    model: { type: 'string' },
    tokenizer: { type: 'string' },
    data: { type: 'string' },
    python: { type: 'string' },
    rounds: { type: 'string', default: '3' },
    threads: { type: 'string', default: '2' },
    batches: { type: 'string', default: '16,64' },
    tasks: { type: 'string', default: 'piqa,hellaswag_1000' },
    limit: { type: 'string' },
    out: { type: 'string' },
  },
});
const threads = Number(values.threads);
native().setThreads(threads);
const folder = mkdtempSync(path.join(tmpdir(), 'libmoe-evaluation-'));
const median = (list) => list.toSorted((a, b) => a - b)[list.length >> 1];

try {
  const model = await loadModel(values.model);
  const adapter = languageAdapter(model, { tokenizer: loadTokenizer(values.tokenizer) });
  const limit = values.limit === undefined ? {} : { limit: Number(values.limit) };
  const requests = [];
  for (const task of values.tasks.split(','))
    for (const questions of (
      await prepareTask(resolveTask(task), adapter, new RequestImages(values.data), {
        dataFolder: values.data,
        prompts: {},
        ...limit,
      })
    ).encoded)
      requests.push(...questions.map(({ request }) => request));
  // lm-eval ends with an assertion at a continuation longer than the model's positions; both sides are spared those.
  const fits = ({ continuation }) => continuation.length <= model.config.maxPositions;
  const tooLong = requests.length - requests.filter(fits).length;
  requests.splice(0, requests.length, ...requests.filter(fits));
  if (tooLong) console.log(`${tooLong} requests left out: continuations longer than the model`);

  const sums = [];
  const ours = async () => {
    const start = performance.now();
    await adapter.loglikelihood(requests, (i, { sum }) => {
      sums[i] = sum;
    });
    return (performance.now() - start) / 1e3;
  };
  await ours();

  const peers = [];
  if (values.python) {
    const given = path.join(folder, 'requests.json');
    writeFileSync(
      given,
      JSON.stringify(requests.map(({ context, continuation }) => [context, continuation])),
    );
    await saveModel(model, path.join(folder, 'model'));
    for (const batch of values.batches.split(',')) {
      const args = ['--mode', batch, '--threads', String(threads)];
      const peer = pythonPeer(values.python, 'evaluation_requests.py', args, 'lm-eval');
      const setup = {
        model: path.join(folder, 'model'),
        requests: given,
        maxLength: model.config.maxPositions,
      };
      const { method } = await peer.ask({ setup });
      const theirs = (await peer.ask({ results: true })).results.sums;
      const apart = Math.max(...theirs.map((sum, i) => Math.abs(sum - sums[i])));
      if (!(apart < 5e-3)) throw new Error(`${method}: sums differ by up to ${apart}`);
      peers.push({ peer, method, apart, seconds: [] });
    }
  }
  const own = [];
  for (let round = 0; round < Number(values.rounds); round += 1) {
    own.push(await ours());
    for (const { peer, seconds } of peers) seconds.push((await peer.ask({ run: 1 })).seconds);
  }
  const rate = (seconds) => requests.length / median(seconds);
  const results = {
    requests: requests.length,
    tokens: requests.reduce(
      (sum, { context, continuation }) => sum + context.length + continuation.length,
      0,
    ),
    threads,
    processor: cpus()[0].model,
    libmoe: { requestsPerSecond: rate(own), seconds: own },
    peers: peers.map(({ method, apart, seconds }) => ({
      method,
      requestsPerSecond: rate(seconds),
      ratio: median(seconds.map((s, i) => s / own[i])),
      largestDifference: apart,
      seconds,
    })),
  };
  console.log(`${requests.length} requests, ${results.tokens} tokens, ${threads} threads`);
  console.log(`libmoe  ${rate(own).toFixed(0)} requests/s`);
  for (const { method, requestsPerSecond, ratio, largestDifference } of results.peers)
    console.log(
      `${method}  ${requestsPerSecond.toFixed(0)} requests/s, ratio ${ratio.toFixed(2)}, sums differ by at most ${largestDifference.toExponential(1)}`,
    );
  if (values.out) writeFileSync(values.out, `${JSON.stringify(results, null, 2)}\n`);
  for (const { peer } of peers) peer.end();
} finally {
  rmSync(folder, { recursive: true });
}
