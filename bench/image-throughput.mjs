#!/usr/bin/env node
// Images per second of ImagePool (decode a JPEG, resize to 224 x 224 with Pillow's bicubic, normalise), by number of workers, against one thread of Pillow and NumPy in
// turn with it. After `npm run build:ts`:  node bench/image-throughput.mjs [--python PYTHON] [--rounds 5] [--images 64] [--size 640x480] [--workers 0,1,2,4]
import { mkdtempSync, rmSync } from 'node:fs';
import { availableParallelism, tmpdir } from 'node:os';
import path from 'node:path';
import { parseArgs } from 'node:util';
import sharp from 'sharp';
import { ImagePool } from '../dist/data/images/index.js';
import { pythonPeer } from './python-peer.mjs';

const { values } = parseArgs({
  options: {
    python: { type: 'string' },
    rounds: { type: 'string', default: '5' },
    images: { type: 'string', default: '64' },
    size: { type: 'string', default: '640x480' },
    workers: { type: 'string', default: [...new Set([0, 1, 2, availableParallelism()])].join() },
  },
});
const [width, height] = values.size.split('x').map(Number);
const side = 224;
const folder = mkdtempSync(path.join(tmpdir(), 'libmoe-images-'));

/** Smooth colours with some noise: about as many bytes as a photograph. */
async function photograph(file, seed) {
  const rgb = new Uint8Array(3 * width * height);
  for (let y = 0, i = 0; y < height; y += 1)
    for (let x = 0; x < width; x += 1)
      for (let c = 0; c < 3; c += 1, i += 1)
        rgb[i] =
          128 +
          90 * Math.sin((x * (c + 1) + seed * 40) / 57) * Math.cos((y + 9 * c) / 43) +
          20 * Math.random();
  await sharp(rgb, { raw: { width, height, channels: 3 } })
    .jpeg({ quality: 90 })
    .toFile(file);
}

/** bench/peers/pixels.py on these files. */
function pillow(python, paths) {
  const { ask, end } = pythonPeer(python, 'pixels.py', ['--threads', '1'], 'Pillow');
  return {
    ready: ask({ setup: { what: 'load', paths, side } }),
    time: async () => (await ask({ run: 1 })).seconds,
    end,
  };
}

const median = (list) => list.toSorted((a, b) => a - b)[list.length >> 1];

try {
  const paths = Array.from({ length: Number(values.images) }, (_, i) => path.join(folder, `${i}.jpg`));
  for (const [i, file] of paths.entries()) await photograph(file, i);
  const processor = { image_processor_type: 'SiglipImageProcessor', size: { height: side, width: side } };
  const pools = values.workers
    .split(',')
    .map((n) => new ImagePool({ processor, workers: Number(n), keepBytes: 0 }));
  const peer = values.python ? pillow(values.python, paths) : undefined;
  await peer?.ready;
  const times = [...pools, ...(peer ? [peer] : [])].map(() => []);
  for (let round = -1; round < Number(values.rounds); round += 1) {
    for (const [i, list] of times.entries()) {
      const start = performance.now();
      if (i < pools.length) await pools[i].load(paths);
      const seconds = i < pools.length ? (performance.now() - start) / 1e3 : await peer.time();
      if (round >= 0) list.push(seconds); // the first round starts threads
    }
  }
  const names = [...values.workers.split(',').map((n) => `ImagePool, ${n} workers`), 'Pillow, 1 thread'];
  for (const [i, list] of times.entries())
    console.log(`${names[i].padEnd(22)} ${(paths.length / median(list)).toFixed(1).padStart(8)} images/s`);
  peer?.end();
  for (const pool of pools) {
    if (pool.counts.missing + pool.counts.broken > 0)
      throw new Error(`not loaded: ${JSON.stringify(pool.counts)}`);
    await pool.close();
  }
} finally {
  rmSync(folder, { recursive: true });
}
