/** How samples become batches. Sizes are those of a batch over all ranks. */
export type Batching =
  /** So many samples. */
  | { samples: number }
  /** As many samples, in their order, as have so many tokens together. */
  | { tokens: number }
  /** So many bins of `context` tokens, filled first-fit with the next samples; up to `window` of them wait for a later batch. */
  | { bins: number; window?: number };

/** Where a batch begins. */
export interface Place {
  epoch: number;
  /** Samples of the epoch's order that have been looked at. */
  position: number;
  /** Of these, samples that still wait for a bin: places in the order. */
  waiting: readonly number[];
}

/** Samples of a batch, as places in the order of its epoch, and where the next one begins. */
export interface Plan {
  /** What each rank gets. */
  shares: number[][];
  after: Place;
}

/** What planning must know. */
export interface PlanSettings {
  batching: Batching;
  world: number;
  groups: number;
  context: number;
  /** Samples of an epoch. */
  count: number;
  /** Tokens of a sample, 0 when it cannot be used; asked for only where batches are made by tokens. */
  lengthOf(place: number): Promise<number>;
}

/** The batch that begins at `place`. Batches do not reach across epochs: the last of one may be smaller. */
export async function planBatch(place: Place, settings: PlanSettings): Promise<Plan> {
  const { batching } = settings;
  if ('samples' in batching) return bySamples(place, batching.samples, settings);
  if ('tokens' in batching) return byTokens(place, batching.tokens, settings);
  return intoBins(place, batching.bins, batching.window ?? 256, settings);
}

/** Goes on to the next epoch where this one is over. */
function following(epoch: number, position: number, waiting: readonly number[], count: number): Place {
  return position >= count && waiting.length === 0
    ? { epoch: epoch + 1, position: 0, waiting: [] }
    : { epoch, position, waiting };
}

function bySamples(place: Place, size: number, { world, groups, count }: PlanSettings): Plan {
  const end = Math.min(place.position + size, count);
  const places = Array.from({ length: end - place.position }, (_, i) => place.position + i);
  // Groups have been made equally long; without them the longest come first, and ranks take turns.
  const blocks = groups > 1 && groups % world === 0;
  return {
    shares: Array.from({ length: world }, (_, rank) =>
      blocks
        ? places.slice(
            Math.floor((rank * places.length) / world),
            Math.floor(((rank + 1) * places.length) / world),
          )
        : places.filter((_, i) => i % world === rank),
    ),
    after: following(place.epoch, end, [], count),
  };
}

async function byTokens(place: Place, budget: number, settings: PlanSettings): Promise<Plan> {
  const { world, count, lengthOf } = settings;
  const taken: { at: number; length: number }[] = [];
  let tokens = 0;
  let position = place.position;
  for (; position < count; ++position) {
    const length = await lengthOf(position);
    if (length === 0) continue;
    if (taken.length > 0 && tokens + length > budget) break;
    taken.push({ at: position, length });
    tokens += length;
  }
  // Longest first to the rank with the fewest tokens; ties go to the earlier sample and the lower rank.
  const shares: number[][] = Array.from({ length: world }, () => []);
  const loads = new Array<number>(world).fill(0);
  for (const { at, length } of taken.sort((a, b) => b.length - a.length || a.at - b.at)) {
    const rank = loads.indexOf(Math.min(...loads));
    shares[rank]!.push(at);
    loads[rank]! += length;
  }
  for (const share of shares) share.sort((a, b) => a - b);
  return { shares, after: following(place.epoch, position, [], count) };
}

async function intoBins(place: Place, bins: number, window: number, settings: PlanSettings): Promise<Plan> {
  const { world, context, count, lengthOf } = settings;
  const filled: number[][] = Array.from({ length: bins }, () => []);
  const room = new Array<number>(bins).fill(context);
  const waiting: number[] = [];
  const put = async (at: number): Promise<void> => {
    const length = await lengthOf(at);
    if (length === 0) return;
    const bin = room.findIndex((free) => free >= length);
    if (bin < 0) waiting.push(at);
    else {
      filled[bin]!.push(at);
      room[bin]! -= length;
    }
  };
  for (const at of place.waiting) await put(at);
  let position = place.position;
  while (position < count && waiting.length < window && room.some((free) => free > 0)) await put(position++);
  const share = (rank: number) =>
    filled.slice(Math.floor((rank * bins) / world), Math.floor(((rank + 1) * bins) / world)).flat();
  return {
    shares: Array.from({ length: world }, (_, rank) => share(rank)),
    after: following(place.epoch, position, waiting, count),
  };
}
