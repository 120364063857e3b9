// One rank of the tests in this folder: `node rank.mjs SCENARIO`, engine, device and time-out from TEST_ENGINE, TEST_DEVICE and TEST_TIMEOUT. Writes one line of JSON to TEST_OUT/PID
// (two processes may say that they are the same rank): {rank, result} or {rank, error, errorCode, seconds} with the seconds from the beginning of the failing call.
import { createHash } from 'node:crypto';
import { writeFileSync } from 'node:fs';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

const dist = new URL('../../dist/', import.meta.url);
// Not all of the library: a rank starts in a third of the time.
const { memory, scope, tensor, empty, view } = await import(new URL('tensor/index.js', dist));
const { initProcessGroup, launchEnvironment } = await import(new URL('distributed/index.js', dist));
const { formGroup } = await import(new URL('distributed/form.js', dist));

const [scenario] = process.argv.slice(2);
const timeout = Number(process.env.TEST_TIMEOUT ?? 20);
const device = process.env.TEST_DEVICE ?? 'cpu';
const guilty = Number(process.env.TEST_GUILTY ?? -1);

/** The same in ranks.ts. */
const value = (rank, i) => (((i * 2654435761 + rank * 97003 * 40503) % 4294967296) / 4294967296) * 2 - 1;
function input(dtype, rank, size) {
  const whole = !['f32', 'f64', 'bf16'].includes(dtype);
  const scale = dtype === 'u8' ? 100 : dtype === 'bool' ? 1.9 : 1e9;
  const numbers = Array.from({ length: size }, (_, i) =>
    whole ? Math.floor(Math.abs(value(rank, i)) * scale) : value(rank, i),
  );
  return tensor(numbers, [size], { dtype, device });
}
const digest = (t) => createHash('sha256').update(new Uint8Array(t.readSync().buffer)).digest('hex');

const reducible = ['f32', 'f64', 'bf16', 'i32', 'i64'];
const every = [...reducible, 'u8', 'bool'];
const sizes = [0, 1, 1000, 20001];

async function operations(group) {
  const { rank, worldSize } = group;
  const seen = {};
  const note = (name, t) => {
    seen[name] = digest(t);
  };
  const reductions = async (dtype) => {
    for (const size of sizes) {
      for (const op of ['sum', 'max']) {
        const x = input(dtype, rank, size);
        await group.allReduce(x, op).wait();
        note(`allReduce ${op} ${dtype} ${size}`, x);
      }
      const whole = input(dtype, rank, size * worldSize);
      const piece = empty([size], { dtype, device });
      await group.reduceScatter(whole, piece).wait();
      note(`reduceScatter sum ${dtype} ${size}`, piece);
    }
  };
  const moves = async (dtype) => {
    for (const size of sizes) {
      const mine = input(dtype, rank, size);
      const all = empty([worldSize, size], { dtype, device });
      await group.allGather(mine, all).wait();
      note(`allGather ${dtype} ${size}`, all);
      for (let root = 0; root < worldSize; root += 1) {
        const b = input(dtype, rank, size);
        await group.broadcast(b, root).wait();
        note(`broadcast ${root} ${dtype} ${size}`, b);
      }
    }
    // Rank s sends (s + 2r) mod 3 rows of 5 to rank r; both tensors have a row to spare.
    const rows = (from, to) => (from + 2 * to) % 3;
    const ranks = Array.from({ length: worldSize }, (_, r) => r);
    const inputCounts = ranks.map((r) => rows(rank, r));
    const outputCounts = ranks.map((r) => rows(r, rank));
    const total = (counts) => counts.reduce((a, b) => a + b, 0);
    const flat = input(dtype, rank, (total(inputCounts) + 1) * 5);
    const send = view(flat, [total(inputCounts) + 1, 5]);
    const receive = tensor(new Array((total(outputCounts) + 1) * 5).fill(0), [total(outputCounts) + 1, 5], {
      dtype,
      device,
    });
    await group.allToAll(send, inputCounts, receive, outputCounts).wait();
    note(`allToAll ${dtype}`, receive);
  };
  for (const dtype of reducible) await scope(() => reductions(dtype));
  for (const dtype of every) await scope(() => moves(dtype));
  // Several under way at once, with the tensors given up by their owner before the end and waited for in another order.
  const works = scope(() => [1, 2, 3, 4].map((k) => group.allReduce(input('f32', rank + k, 5000))));
  const kept = input('f32', rank, 5000);
  works.push(group.allReduce(kept));
  for (const work of works.reverse()) await work.wait();
  note('allReduce sum f32 5000', kept);
  kept.dispose();
  await group.barrier();
  return {
    seen,
    sums: await group.sumNumbers([0.1 * (rank + 1), rank === 1 ? Number.NaN : 1, -0]),
    tensors: memory(device).tensors,
  };
}

/** Larger than what is added at a time. */
async function large(group) {
  const size = 4_300_001;
  const x = tensor(
    Float64Array.from({ length: size }, (_, i) => value(group.rank, i)),
    [size],
  );
  await group.allReduce(x).wait();
  const sum = digest(x);
  const y = tensor(
    Float64Array.from({ length: size }, (_, i) => value(group.rank, i)),
    [size],
  );
  await group.broadcast(y, 1).wait();
  return { sum, broadcast: digest(y) };
}

/** The same sum again and again, with the ranks out of step; the distinct results. */
async function repeated(group) {
  const results = new Set();
  for (let i = 0; i < 12; i += 1) {
    const x = input('f32', group.rank, 20001);
    await sleep(((group.rank * 7 + i * 5) % 11) * 3);
    await group.allReduce(x).wait();
    results.add(digest(x));
  }
  return [...results];
}

/** One good collective, then `misdeed` on the guilty rank while the others go on. */
const after = (misdeed) => async (group) => {
  const x = input('f32', group.rank, 100);
  await group.allReduce(x).wait();
  if (group.rank === guilty) await misdeed(group, x);
  begin = performance.now();
  await group.allReduce(x).wait();
  await group.sumNumbers([1]);
  return 'all went well';
};
const scenarios = {
  operations,
  large,
  repeated,
  engine: after(() => {}), // the engine's own misdeeds
  late: after(() => sleep(timeout * 1000 + 3500)),
  frozen: after(() => process.kill(process.pid, 'SIGSTOP')),
  dead: after(() => process.kill(process.pid, 'SIGKILL')),
  ended: after(() => process.exit(7)),
  thrown: after(() => Promise.reject(new Error('the model exploded'))),
  shape: after(async (group) => {
    const y = input('f32', group.rank, 50);
    await group.allReduce(y).wait();
  }),
  async exchange(group) {
    const { worldSize } = group;
    const counts = Array(worldSize).fill(2);
    const rows = () => view(input('f32', group.rank, 2 * worldSize * 5), [2 * worldSize, 5]);
    await group.allToAll(rows(), counts, rows(), counts).wait();
    return 'all went well';
  },
  leaves: after((group) => group.dispose()),
  async hostLate(group) {
    if (group.rank === guilty) await sleep(timeout * 1000 + 3000);
    begin = performance.now();
    await group.barrier();
  },
  async disposeEarly(group) {
    // The others take their time after their last collective.
    const x = input('f32', group.rank, 100);
    await group.allReduce(x).wait();
    if (group.rank !== guilty) await sleep(1000);
    return 'all went well';
  },
  async again(group) {
    await group.dispose();
    const second = await form();
    await second.dispose();
  },
};

let begin = performance.now();
const form = () =>
  process.env.TEST_ENGINE === 'nccl'
    ? formGroup({ engine: 'nccl', device, launch: launchEnvironment(), timeout })
    : initProcessGroup({ timeout });

const rank = launchEnvironment().rank;
const { pid } = process;
const say = (what) =>
  writeFileSync(path.join(process.env.TEST_OUT, String(pid)), JSON.stringify({ rank, pid, ...what }));
let group;
try {
  group = await form();
  const { worldSize, backend } = group;
  say({ worldSize, backend, result: (await scope(() => scenarios[scenario](group))) ?? null });
} catch (error) {
  say({ error: error.message, errorCode: error.code ?? null, seconds: (performance.now() - begin) / 1000 });
  process.exitCode = 1;
} finally {
  await group?.dispose();
}
