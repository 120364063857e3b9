// Collectives between the ranks of a launched group: time of one call, and two bandwidths. Algorithm bandwidth is the size of the tensor over the time;
// bus bandwidth is what goes over each rank's link in the best algorithm over the time, which does not depend on the number of ranks and can be held
// against the speed of the link: 2(n−1)/n times the algorithm bandwidth for all-reduce, (n−1)/n for the others, 1 for broadcast.
import { initProcessGroup, type ProcessGroup, type Work } from '../ts/distributed/index.ts';
import { type DeviceName, empty, type Tensor, zeros } from '../ts/tensor/index.ts';
import { type Summary, summarise } from './statistics.ts';

/** One collective at one size. */
export interface CollectiveResult extends Summary {
  name: string;
  ranks: number;
  bytes: number;
  /** GB/s of {@link bytes}, and over each link. */
  gigabytes: number;
  busGigabytes: number;
}

const sizes = [4 << 10, 64 << 10, 1 << 20, 16 << 20, 64 << 20];

/** `bytes` is the larger of what goes in and comes out on one rank. */
interface Collective {
  name: string;
  bus(ranks: number): number;
  setup(group: ProcessGroup, elements: number, device: DeviceName): { tensors: Tensor[]; call(): Work };
}

const share = (n: number) => (n - 1) / n;

const collectives: readonly Collective[] = [
  {
    name: 'allReduce',
    bus: (n) => 2 * share(n),
    setup(group, elements, device) {
      const x = zeros([elements], { device });
      return { tensors: [x], call: () => group.allReduce(x) };
    },
  },
  {
    name: 'reduceScatter',
    bus: share,
    setup(group, elements, device) {
      const x = zeros([elements], { device });
      const y = empty([elements / group.worldSize], { device });
      return { tensors: [x, y], call: () => group.reduceScatter(x, y) };
    },
  },
  {
    name: 'allGather',
    bus: share,
    setup(group, elements, device) {
      const x = zeros([elements / group.worldSize], { device });
      const y = empty([elements], { device });
      return { tensors: [x, y], call: () => group.allGather(x, y) };
    },
  },
  {
    name: 'allToAll',
    bus: share,
    setup(group, elements, device) {
      const x = zeros([elements], { device });
      const y = empty([elements], { device });
      const counts = Array.from({ length: group.worldSize }, () => elements / group.worldSize);
      return { tensors: [x, y], call: () => group.allToAll(x, counts, y, counts) };
    },
  },
  {
    name: 'broadcast',
    bus: () => 1,
    setup(group, elements, device) {
      const x = zeros([elements], { device });
      return { tensors: [x], call: () => group.broadcast(x, 0) };
    },
  },
];

/** Seconds of one call, `calls` in a row, as the mean over ranks. */
async function sample(group: ProcessGroup, calls: number, call: () => Work): Promise<number> {
  await group.barrier();
  const begin = performance.now();
  for (let i = 0; i < calls; i += 1) await call().wait();
  // On a GPU the calls have only been enqueued so far; this waits for the device.
  if (group.backend === 'nccl') await group.sumNumbers([]);
  const [seconds] = await group.sumNumbers([(performance.now() - begin) / 1e3 / calls]);
  return seconds! / group.worldSize;
}

async function measure(
  group: ProcessGroup,
  collective: Collective,
  bytes: number,
  rounds: number,
  device: DeviceName,
): Promise<CollectiveResult> {
  const ranks = group.worldSize;
  const elements = Math.ceil(bytes / 4 / ranks) * ranks;
  const { tensors, call } = collective.setup(group, elements, device);
  try {
    await sample(group, 2, call); // connections and pools
    // The mean over ranks is the same on every rank, so all agree on the number of calls.
    const calls = Math.max(1, Math.min(200, Math.round(0.1 / (await sample(group, 3, call)))));
    const seconds: number[] = [];
    for (let i = 0; i < rounds; i += 1) seconds.push(await sample(group, calls, call));
    const summary = summarise(seconds);
    const gigabytes = (elements * 4) / summary.median / 1e9;
    const unit = bytes >= 1 << 20 ? `${bytes >> 20}MiB` : `${bytes >> 10}KiB`;
    return {
      name: `collective/${collective.name}-${unit}/f32/${ranks}-ranks-${group.backend}`,
      ranks,
      bytes: elements * 4,
      ...summary,
      gigabytes,
      busGigabytes: gigabytes * collective.bus(ranks),
    };
  } finally {
    for (const tensor of tensors) tensor.dispose();
  }
}

/** Times all collectives whose name contains a filter, on every rank; rank 0 reports. */
export async function benchRanks(options: {
  filters: readonly string[];
  rounds: number;
  device: DeviceName;
  log(line: string): void;
}): Promise<{ rank: number; results: CollectiveResult[] }> {
  const { filters, rounds, device } = options;
  const group = await initProcessGroup({ device });
  const log = group.rank === 0 ? options.log : () => {};
  const results: CollectiveResult[] = [];
  try {
    log(
      `${group.worldSize} ranks, ${group.backend}, ${device}; GB/s of the algorithm, and over each link (bus)`,
    );
    for (const collective of collectives)
      for (const bytes of sizes) {
        const name = `collective/${collective.name}`;
        if (filters.length > 0 && !filters.some((f) => name.includes(f) || f.includes(name))) continue;
        const r = await measure(group, collective, bytes, rounds, device);
        results.push(r);
        const spread = `${(r.p10 * 1e3).toPrecision(3)}–${(r.p90 * 1e3).toPrecision(3)}`;
        log(
          `${r.name.padEnd(48)} ${(r.median * 1e3).toPrecision(3).padStart(9)} ms  ${spread.padStart(15)}  ` +
            `${r.gigabytes.toFixed(2).padStart(7)}  bus ${r.busGigabytes.toFixed(2).padStart(7)}`,
        );
      }
    return { rank: group.rank, results };
  } finally {
    await group.dispose();
  }
}
