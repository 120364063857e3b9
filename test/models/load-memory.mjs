// Loads a checkpoint in a process of its own and prints what that took, in bytes: node load-memory.mjs <folder> [dtype]
import { readFileSync } from 'node:fs';
import { loadModel } from '../../dist/index.js';

const [folder, dtype] = process.argv.slice(2);
const kilobytes = (field) =>
  Number(new RegExp(`${field}:\\s*(\\d+)`).exec(readFileSync('/proc/self/status', 'utf8'))[1]);
const before = kilobytes('VmRSS');
const model = await loadModel(folder, dtype ? { dtype } : {});
const bytes = [...model.stateDict()].reduce(
  (sum, [, t]) => sum + t.size * { f32: 4, f64: 8, bf16: 2 }[t.dtype],
  0,
);
console.log(JSON.stringify({ model: bytes, before: before * 1024, peak: kilobytes('VmHWM') * 1024 }));
